"""Keras files, opened with Keras 3 on its torch backend: a Keras model is then an `nn.Module`, and every exporter's converter takes it."""

from __future__ import annotations

import copy
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.errors import ConfigError, InputMissingError, telling_line, vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME, OUTPUT_NAME
from edgeseg.core.vendors import quiet, versions
from edgeseg.models.keras_norms import fold_norms
from exporters.imported import ends
from exporters.imported.base import Facts, Port, Reading
from exporters.to_onnx import IR_VERSION, strip


class KerasSource:
    """`model.keras`, or a whole model in `.h5`."""

    formats: Mapping[str, str] = {"onnx": "", "openvino": "", "tflite": ""}

    def claims(self, path: Path) -> bool:
        """See `Source.claims`."""
        return path.suffix.lower() in (".keras", ".h5", ".hdf5") and path.is_file()

    def beside(self, path: Path) -> tuple[Path, ...]:
        """See `Source.beside`."""
        return ()

    def open(self, path: Path) -> OpenedKeras:
        """See `Source.open`."""
        keras = require_keras()
        if path.suffix.lower() == ".keras" and not zipfile.is_zipfile(path):  # the format is a ZIP archive; its index stands at the end
            raise InputMissingError(f"{path} is damaged, cut off or no Keras file ({path.stat().st_size} bytes); copy it again")
        try:
            with quiet():
                model = keras.saving.load_model(str(path), compile=False, safe_mode=True)
        except Exception as error:  # Keras, h5py and zipfile each raise their own
            if "unsafe_deserialization" in str(error):  # Keras's own advice is to run it all the same
                raise InputMissingError(f"{path} carries Python code (a Lambda layer), which is never executed; put layers or keras.ops in "
                                        "its place and save the model again") from error
            raise InputMissingError(
                f"{path} cannot be opened by Keras {keras.__version__} ({telling_line(error)}); copy it again, save the whole model in the "
                ".keras format, and keep Lambda layers and layers of your own out of it"
            ) from error
        if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
            raise ConfigError(f"{path.name} holds a model without symbolic inputs; save a functional or sequential one, "
                              "or train and export it with [model] factory")
        return OpenedKeras(model)


def require_keras() -> Any:  # noqa: ANN401
    """Import Keras on its torch backend.

    Raises:
        MissingExtraError: it is not installed.
        ConfigError: this process already uses it with another backend.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"  # the one way to choose it; read when Keras is imported
    keras = require("keras", extra="keras")
    if keras.config.backend() != "torch":
        raise ConfigError(f"Keras runs on {keras.config.backend()} in this process; set KERAS_BACKEND=torch before it is imported")
    return keras


class OpenedKeras:
    """A functional or sequential model."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._model = model
        self.inputs = tuple(_port(tensor, tensor.name) for tensor in model.inputs)
        names = list(getattr(model, "output_names", ())) or [tensor.name for tensor in model.outputs]
        self.outputs = tuple(_port(tensor, name) for tensor, name in zip(model.outputs, names, strict=True))

    def settle(self, input: Port, output: Port, shape: tuple[int, ...]) -> SettledKeras:
        """See `Opened.settle`."""
        index = self.outputs.index(output)
        module = KerasBody(self._model, index).cpu().eval()
        with vendor_errors("keras"), quiet(), torch.no_grad():
            answer = module(torch.zeros(shape, dtype=ends.torch_dtype(input)))
        port = Port(name=output.name, dtype=str(answer.dtype).removeprefix("torch."), shape=tuple(answer.shape), aliases=output.aliases)
        return SettledKeras(module, port, _last_op(self._model.outputs[index]))


class KerasBody(nn.Module):
    """One output of a Keras model, in inference; layouts as the model declares them."""

    def __init__(self, model: Any, index: int) -> None:  # noqa: ANN401
        super().__init__()
        self.model, self.index = model, index
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Answer as the model does."""
        answer = self.model(x, training=False)
        found: Tensor = list(answer.values())[self.index] if isinstance(answer, dict) else (
            answer[self.index] if isinstance(answer, (list, tuple)) else answer)
        return found


class SettledKeras:
    """One input, one output, static; runs in torch."""

    def __init__(self, module: KerasBody, output: Port, last_op: str) -> None:
        self._module = module
        self.facts = Facts(
            output=output, last_op=last_op, quantized=False,
            runtime=f"keras {versions('keras').get('keras', '')} on torch {versions('torch').get('torch', '')}",
        )

    def run(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """See `Settled.run`."""
        with vendor_errors("keras"), torch.no_grad():
            answer: NDArray[np.generic] = self._module(torch.from_numpy(x)).numpy()
        return answer

    def write(self, format: str, reading: Reading, workdir: Path) -> ModelFiles:
        """See `Settled.write`."""
        with vendor_errors("keras"), quiet():
            body = copy.deepcopy(self._module)  # the original stays as it is, to be compared with
            fold_norms(body.model)
        whole = nn.Sequential(ends.FrameEnd(reading), body, ends.AnswerEnd(reading, format)).eval()
        example = ends.frame_example(reading)
        made = {"onnx": _write_onnx, "openvino": _write_openvino, "tflite": _write_tflite}[format]
        with vendor_errors(format), quiet(), torch.no_grad():
            files = made(whole, example, workdir)
        return ModelFiles(
            folder=workdir, files=files, entry=files[0], format=format, precision="fp32", scheme={},
            tools=versions("keras", "torch", *{"onnx": ("onnx", "onnxscript"), "openvino": ("openvino",),
                                               "tflite": ("litert-torch", "ai-edge-litert")}[format]),
        )


def _write_onnx(whole: nn.Module, example: Tensor, workdir: Path) -> tuple[str, ...]:
    onnx = require("onnx", extra="export")
    model = ends.to_onnx(whole, example, (INPUT_NAME, OUTPUT_NAME))
    model.ir_version = min(model.ir_version, IR_VERSION)
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(workdir / "model.onnx"))
    return ("model.onnx",)


def _write_openvino(whole: nn.Module, example: Tensor, workdir: Path) -> tuple[str, ...]:
    ov = require("openvino", extra="export")
    model = ends.to_openvino(whole, example)
    model.inputs[0].get_tensor().set_names({INPUT_NAME})
    model.outputs[0].get_tensor().set_names({OUTPUT_NAME})
    model.inputs[0].get_node().set_friendly_name(INPUT_NAME)
    ov.save_model(model, workdir / "model.xml", compress_to_fp16=False)
    return ("model.xml", "model.bin")


def _write_tflite(whole: nn.Module, example: Tensor, workdir: Path) -> tuple[str, ...]:
    (workdir / "model.tflite").write_bytes(ends.to_tflite(whole, example, workdir / "whole.tflite"))
    return ("model.tflite",)


def _port(tensor: Any, name: str) -> Port:  # noqa: ANN401
    return Port(name=name, dtype=str(tensor.dtype), shape=tuple(tensor.shape), aliases=(tensor.name,))


def _last_op(tensor: Any) -> str:  # noqa: ANN401
    operation = tensor._keras_history.operation
    activation = getattr(operation, "activation", None)
    return str(getattr(activation, "__name__", None) or type(operation).__name__).lower()
