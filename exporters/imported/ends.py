"""The two ends of the contract as torch modules, and their conversion: what is put before and behind an imported graph.

`FrameEnd` turns the uint8 frame into what the model takes, `AnswerEnd` its answer into the uint8 class map, with the decision head of
our own exports. Each format's own converter turns both into small graphs of that format, which are joined to the imported one.

Legend: N = 1, H/W = rows/columns at model size, C = channels or classes, h/w = rows/columns of the answer.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME, OUTPUT_NAME
from exporters.head import head_for
from exporters.imported.base import Port, Reading
from exporters.to_onnx import OPSET

X_NAME: Final = "x"
ANSWER_NAME: Final = "answer"
LUMA: Final = (0.299, 0.587, 0.114)
"""Weights of R, G and B in gray, ITU-R BT.601."""


class FrameEnd(nn.Module):
    """uint8 frame [1, H, W, 3] in; channels in the model's order, normalised, in its layout and type out."""

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.order, self.to_NCHW, self.raw = reading.order, reading.layout == "NCHW", not reading.scale
        shape = (1, -1, 1, 1) if self.to_NCHW else (1, 1, 1, -1)
        self.register_buffer("mean", torch.tensor(reading.mean).view(shape) if any(reading.mean) else None)
        uses_scale = any(value != 1.0 for value in reading.scale)
        self.register_buffer("factor", torch.tensor([1.0 / value for value in reading.scale]).view(shape) if uses_scale else None)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 1, 1, 3) if self.order == "gray" else None)

    def forward(self, frame_NHWC: Tensor) -> Tensor:
        """Prepare one frame."""
        x = frame_NHWC
        if self.order == "bgr":
            x = torch.cat([x[..., 2:3], x[..., 1:2], x[..., 0:1]], dim=3)
        if isinstance(self.luma, Tensor):
            x = (x.to(torch.float32) * self.luma).sum(dim=3, keepdim=True)
            x = (x + 0.5).to(torch.uint8) if self.raw else x
        if self.to_NCHW:
            x = x.permute(0, 3, 1, 2)
        if self.raw:
            return x
        x = x.to(torch.float32)
        x = x - self.mean if isinstance(self.mean, Tensor) else x
        return x * self.factor if isinstance(self.factor, Tensor) else x


class AnswerEnd(nn.Module):
    """The model's answer in, uint8 class map [1, H, W] out: bilinear to model size and decided, or (class numbers) to the nearest."""

    def __init__(self, reading: Reading, format: str) -> None:
        super().__init__()
        self.reading = reading
        contract = reading.contract
        shape = scores_shape(reading)
        if reading.answers == "classes":
            rows, columns = (_nearest(n, to) for n, to in zip(shape[2:], (contract.height, contract.width), strict=True))
            self.register_buffer("rows", rows)
            self.register_buffer("columns", columns)
            return
        self.limit = 0.0
        if reading.probabilities:  # p > t is p - t > 0 exactly; the head then decides at one half, where the logit is 0
            assert contract.threshold is not None
            self.limit, shape = contract.threshold, (1, 1, *shape[2:])
            contract = replace(contract, threshold=0.5)
        self.head = head_for(format, shape, contract)

    def forward(self, answer: Tensor) -> Tensor:
        """Decide one answer."""
        reading = self.reading
        scores = answer.permute(0, 3, 1, 2) if reading.output_layout == "NHWC" else answer
        if reading.answers == "classes":
            classes_NHW = scores if reading.output_layout == "NHW" else scores[:, 0]
            for axis, index in ((1, self.rows), (2, self.columns)):
                classes_NHW = classes_NHW.index_select(axis, index) if isinstance(index, Tensor) else classes_NHW
            return classes_NHW.to(torch.uint8)
        scores = scores.unsqueeze(1) if reading.output_layout == "NHW" else scores
        if reading.probabilities:
            scores = scores[:, -1:] - self.limit
        class_map: Tensor = self.head(scores)
        return class_map


def scores_shape(reading: Reading) -> tuple[int, int, int, int]:
    """Shape [1, C, h, w] of the answer once its layout is put right."""
    axes = reading.output.shape
    assert axes is not None
    _, *rest = (axis or 0 for axis in axes)
    if reading.output_layout == "NHW":
        return (1, 1, rest[0], rest[1])
    return (1, rest[0], rest[1], rest[2]) if reading.output_layout == "NCHW" else (1, rest[2], rest[0], rest[1])


def _nearest(num_in: int, num_out: int) -> Tensor | None:
    """For each of `num_out` cells, the index of the cell of `num_in` its centre lies in; `None` where they are the same."""
    if num_in == num_out:
        return None
    return ((torch.arange(num_out, dtype=torch.float64) + 0.5) * num_in / num_out).to(torch.int64).clamp(max=num_in - 1)


def frame_example(reading: Reading) -> Tensor:
    """A frame to trace with: noise, so that no branch of a tracer can fold it away."""
    contract = reading.contract
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, contract.height, contract.width, 3), dtype=torch.uint8, generator=generator)


def answer_example(reading: Reading) -> Tensor:
    """An answer to trace with, of the output's shape and type."""
    port = reading.output
    assert port.shape is not None
    generator = torch.Generator().manual_seed(0)
    example = torch.rand([axis or 0 for axis in port.shape], generator=generator)
    return (example * reading.num_classes).to(torch_dtype(port)) if reading.answers == "classes" else example


def torch_dtype(port: Port) -> torch.dtype:
    """The port's type in torch."""
    dtype: torch.dtype = getattr(torch, port.dtype)
    return dtype


class Named(nn.Module):
    """Give the signature's output its name."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        """Answer one frame."""
        return {OUTPUT_NAME: self.module(frame)}


def to_onnx(module: nn.Module, example: Tensor, names: tuple[str, str]) -> Any:  # noqa: ANN401
    """Convert to an ONNX model of opset `OPSET` with these names of input and output."""
    require("onnxscript", extra="export")
    program = torch.onnx.export(
        module.eval(), (example,), dynamo=True, optimize=True, verbose=False, opset_version=OPSET, input_names=[names[0]],
        output_names=[names[1]],
    )
    assert program is not None  # None only without dynamo
    return program.model_proto


def to_openvino(module: nn.Module, example: Tensor) -> Any:  # noqa: ANN401
    """Convert to an OpenVINO model, by way of `torch.export`: OpenVINO's own tracer lacks operators that Keras uses (subtract)."""
    ov = require("openvino", extra="export", converter=True)
    model = ov.convert_model(torch.export.export(module.eval(), (example,)))
    model.reshape({model.inputs[0]: list(example.shape)})
    return model


def to_tflite(module: nn.Module, example: Tensor, path: Path) -> bytes:
    """Convert to a TFLite model (through `path`, which is removed) and give its bytes."""
    litert_torch = require("litert_torch", extra="export")
    litert_torch.convert(Named(module).eval(), sample_kwargs={INPUT_NAME: example}).export(str(path))
    content = path.read_bytes()
    path.unlink()
    return content
