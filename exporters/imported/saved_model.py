"""TensorFlow SavedModels and frozen graphs, read by OpenVINO's own frontend: TensorFlow is not needed.

TensorFlow itself is only needed to make a TFLite file of one (`pip install 'edgeseg[tensorflow]'`), whose contract is then put around
it as around any TFLite file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.vendors import quiet, versions
from exporters.imported.base import Facts, Port, Reading, Settled
from exporters.imported.openvino import OpenedOpenVino, read
from exporters.imported.tflite import open_content

_NO_ONNX: Final = "no converter from TensorFlow to ONNX works with current TensorFlow; import the model as "


class SavedModelSource:
    """A folder with `saved_model.pb`."""

    formats: Mapping[str, str] = {
        "openvino": "", "tflite": "",
        "onnx": _NO_ONNX + "openvino or tflite",
    }

    def claims(self, path: Path) -> bool:
        """See `Source.claims`."""
        return (path / "saved_model.pb").is_file()

    def beside(self, path: Path) -> tuple[Path, ...]:
        """See `Source.beside`."""
        return ()

    def open(self, path: Path) -> OpenedSavedModel:
        """See `Source.open`."""
        return OpenedSavedModel(path, read(path, "TensorFlow SavedModel"))


class FrozenGraphSource:
    """A frozen graph, which is a `.pb` file of its own."""

    formats: Mapping[str, str] = {
        "openvino": "",
        "onnx": _NO_ONNX + "openvino",
        "tflite": "TensorFlow's converter takes a SavedModel, no frozen graph; import the SavedModel it was made from",
    }

    def claims(self, path: Path) -> bool:
        """See `Source.claims`."""
        return path.suffix.lower() == ".pb" and path.name != "saved_model.pb" and path.is_file()

    def beside(self, path: Path) -> tuple[Path, ...]:
        """See `Source.beside`."""
        return ()

    def open(self, path: Path) -> OpenedOpenVino:
        """See `Source.open`."""
        return read(path, "TensorFlow frozen graph")


class OpenedSavedModel:
    """A model that OpenVINO read."""

    def __init__(self, path: Path, opened: OpenedOpenVino) -> None:
        self._path, self._opened = path, opened
        self.inputs, self.outputs = opened.inputs, opened.outputs

    def settle(self, input: Port, output: Port, shape: tuple[int, ...]) -> SettledSavedModel:
        """See `Opened.settle`."""
        settled = self._opened.settle(input, output, shape)
        return SettledSavedModel(self._path, settled, (self.outputs.index(output), len(self.outputs)), shape)


class SettledSavedModel:
    """One input, one output, static; runs in OpenVINO, in f32."""

    def __init__(self, path: Path, settled: Settled, place: tuple[int, int], shape: tuple[int, ...]) -> None:
        self._path, self._settled, self._place, self._shape = path, settled, place, shape

    @property
    def facts(self) -> Facts:
        """See `Facts`."""
        return self._settled.facts

    def run(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """See `Settled.run`."""
        return self._settled.run(x)

    def write(self, format: str, reading: Reading, workdir: Path) -> ModelFiles:
        """See `Settled.write`."""
        if format == "openvino":
            return self._settled.write(format, reading, workdir)
        tf = require("tensorflow", extra="tensorflow")
        with vendor_errors("tensorflow"), quiet():
            content = tf.lite.TFLiteConverter.from_saved_model(str(self._path)).convert()
        opened = open_content(content, self._path.name)
        output = next((port for port in opened.outputs if port.name == reading.output.name), opened.outputs[min(
            self._place[0], len(opened.outputs) - 1)])
        made = opened.settle(opened.inputs[0], output, self._shape).write(format, reading, workdir)
        return ModelFiles(
            folder=made.folder, files=made.files, entry=made.entry, format=made.format, precision=made.precision, scheme=made.scheme,
            tools={**made.tools, **versions("tensorflow", "tensorflow-cpu")},
        )
