"""OpenVINO IR, and whatever OpenVINO's frontends read. The ends are joined to the imported model's operations, which stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.errors import ConfigError, InputMissingError, telling_line, vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.manifest import FRAME_END, INPUT_NAME, OUTPUT_NAME
from edgeseg.core.vendors import quiet, versions
from exporters.imported.base import Facts, Port, Reading
from exporters.imported.ends import AnswerEnd, FrameEnd, answer_example, frame_example, to_openvino
from exporters.imported.openvino_stem import fold_openvino
from exporters.imported.stem import RawEnd, said, why_not

_PASSING: Final = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Interpolate", "Convert", "Result"})


class OpenVinoSource:
    """`model.xml` with `model.bin` beside it."""

    formats: Mapping[str, str] = {
        "openvino": "",
        "onnx": "nothing converts an OpenVINO IR back; import the ONNX file it was made from",
        "tflite": "nothing converts an OpenVINO IR to TFLite; import the model it was made from",
    }

    def claims(self, path: Path) -> bool:
        """See `Source.claims`."""
        return path.suffix.lower() == ".xml" and path.is_file()

    def beside(self, path: Path) -> tuple[Path, ...]:
        """See `Source.beside`."""
        return (path.with_suffix(".bin"),)

    def open(self, path: Path) -> OpenedOpenVino:
        """See `Source.open`."""
        if not path.with_suffix(".bin").is_file():
            raise InputMissingError(f"{path.with_suffix('.bin')} is missing; an OpenVINO IR is two files, copy it beside {path.name}")
        return read(path, "OpenVINO IR")


def read(path: Path, kind: str) -> OpenedOpenVino:
    """Read a file or folder with the frontend that knows it.

    Raises:
        InputMissingError: it is damaged, or no such file.
    """
    ov = require("openvino", extra="export")
    try:
        with quiet():
            model = ov.Core().read_model(str(path))
    except Exception as error:  # every front end of OpenVINO has its own
        line = telling_line(error)
        why = "" if line.startswith("FrontEnd API failed") else f" ({line})"  # of a damaged SavedModel it says no more than that
        raise InputMissingError(f"{path} is not a whole {kind}{why}: damaged or cut off; copy it again, or export it again") from error
    return OpenedOpenVino(model)


class OpenedOpenVino:
    """A model that was read."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._model = model
        self.inputs = tuple(_port(port) for port in model.inputs)
        self.outputs = tuple(_port(port) for port in model.outputs)

    def settle(self, input: Port, output: Port, shape: tuple[int, ...]) -> SettledOpenVino:
        """See `Opened.settle`."""
        if self._model.get_sinks() or self._model.get_variables():
            raise ConfigError("the model keeps state from frame to frame; a bundle answers every frame by itself")
        ov = require("openvino", extra="export")
        with vendor_errors("openvino"), quiet():
            model = self._model.clone()
            kept = model.outputs[[port.name for port in self.outputs].index(output.name)].get_node()
            model = ov.Model([kept], model.get_parameters(), "imported")
            model.reshape({model.inputs[0]: ov.PartialShape(list(shape))})
            compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            answer = compiled(np.zeros(shape, input.dtype))[0]
        return SettledOpenVino(model, compiled, Port(name=output.name, dtype=answer.dtype.name, shape=answer.shape, aliases=output.aliases))


class SettledOpenVino:
    """One input, one output, static; runs in OpenVINO, in f32."""

    def __init__(self, model: Any, compiled: Any, output: Port) -> None:  # noqa: ANN401
        self._model, self._compiled = model, compiled
        operations = model.get_ops()
        halves = any(op.get_type_name() == "Constant" and op.get_element_type().get_type_name() == "f16" for op in operations)
        self.facts = Facts(
            output=output, last_op=_last_op(model), quantized=any(op.get_type_name() == "FakeQuantize" for op in operations),
            runtime=" ".join(("openvino", *versions("openvino").values())),
            remarks=("note: its weights are stored in float16 and computed with in float32",) if halves else (),
        )

    def run(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """See `Settled.run`."""
        with vendor_errors("openvino"):
            return np.array(self._compiled(x)[0])

    def write(self, format: str, reading: Reading, workdir: Path) -> ModelFiles:
        """See `Settled.write`."""
        with vendor_errors("openvino"), quiet():
            return write(self._model.clone(), reading, workdir, quantized=self.facts.quantized)


def write(body: Any, reading: Reading, workdir: Path, *, quantized: bool) -> ModelFiles:  # noqa: ANN401
    """Join the ends to `body` (one input, one output; it is used up) and save."""
    ov = require("openvino", extra="export")
    path = workdir / "model.xml"
    stem = why_not(reading, quantized=quantized) or fold_openvino(body, reading)
    feed = FrameEnd(reading) if isinstance(stem, str) else RawEnd(reading, stem.borders)
    frame_end = to_openvino(feed, frame_example(reading))
    for index, operation in enumerate(frame_end.get_ordered_ops()):
        operation.set_friendly_name(f"{FRAME_END}{operation.get_type_name()}_{index}")
    answer_end = to_openvino(AnswerEnd(reading, "openvino"), answer_example(reading))
    x = frame_end.outputs[0].get_node().input_value(0)
    body.get_parameters()[0].output(0).replace(x)
    answer = body.outputs[0].get_node().input_value(0)
    answer_end.get_parameters()[0].output(0).replace(answer)
    model = ov.Model(answer_end.get_results(), frame_end.get_parameters(), "imported")
    model.inputs[0].get_tensor().set_names({INPUT_NAME})
    model.outputs[0].get_tensor().set_names({OUTPUT_NAME})
    model.inputs[0].get_node().set_friendly_name(INPUT_NAME)
    _name_operations(model)
    model.validate_nodes_and_infer_types()
    ov.save_model(model, path, compress_to_fp16=False)
    return ModelFiles(
        folder=workdir, files=(path.name, path.with_suffix(".bin").name), entry=path.name, format="openvino",
        precision="int8" if quantized else "fp32", scheme=said(stem), tools=versions("torch", "openvino"),
    )


def _name_operations(model: Any) -> None:  # noqa: ANN401
    """Give every operation a name of its own: the quantizer tells them apart by it, and three graphs were joined."""
    taken: set[str] = set()
    for index, operation in enumerate(model.get_ordered_ops()):
        if operation.get_friendly_name() in taken:
            operation.set_friendly_name(f"{operation.get_type_name()}_{index}")
        taken.add(operation.get_friendly_name())


def _last_op(model: Any) -> str:  # noqa: ANN401
    node = model.outputs[0].get_node()
    while node.get_type_name() in _PASSING:
        node = node.input_value(0).get_node()
    return str(node.get_type_name()).lower()


def _port(port: Any) -> Port:  # noqa: ANN401
    partial = port.get_partial_shape()
    names = sorted(port.get_names(), key=lambda name: (len(name), name))
    friendly = port.get_node().get_friendly_name()
    axes = None if partial.rank.is_dynamic else tuple(int(d.get_length()) if d.is_static else None for d in partial)
    element = port.get_element_type()
    dtype = "dynamic" if element.is_dynamic() else ("string" if element.get_type_name() == "string" else element.to_dtype().name)
    return Port(name=names[0] if names else friendly, dtype=dtype, shape=axes, aliases=(*names[1:], friendly))
