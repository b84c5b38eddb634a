"""Mean and scale in the first convolution of an import: the same scores at every pixel, borders included, or left with the reason."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from import_tools import SIZE, TinyNet, example, write_ir, write_onnx, write_saved
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.core.manifest import Contract
from exporters.imported import openvino as as_openvino
from exporters.imported.base import Port, Reading
from exporters.imported.ends import FrameEnd, frame_example
from exporters.imported.onnx_stem import fold_onnx
from exporters.imported.openvino_stem import fold_openvino
from exporters.imported.stem import FirstConv, RawEnd, Stem, fold, why_not

WHOLE = (124.0, 116.0, 104.0), (58.0, 57.0, 56.0)
SCALED = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class TwoReaders(nn.Module):
    """The input enters a convolution and something else."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TinyNet()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x) + x[:, :, ::2, ::2]
        return scores


class Unpadded(nn.Module):
    """A convolution without a border and without a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(3, 3, (2, 3), 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.conv(x)
        return scores


Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Graph:
    """A graph in memory, how it is folded, and how it is run."""

    body: Any
    fold: Callable[[Any, Reading], Stem | str]
    run: Callable[[Any], Run]
    layout: str = "NCHW"


def _run_onnx(model: Any) -> Run:
    import onnxruntime as ort

    model = copy.deepcopy(model)
    model.graph.input[0].type.tensor_type.ClearField("shape")  # the border is new
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.ClearField("value_info")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: np.asarray(session.run(None, {name: x})[0])


def _run_openvino(model: Any) -> Run:
    import openvino as ov

    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: np.array(compiled(x)[0])


@cache
def _onnx_bytes(kind: str) -> bytes:
    nets = {"plain": TinyNet, "nhwc": lambda: TinyNet(nhwc=True), "two": TwoReaders, "unpadded": Unpadded}
    with tempfile.TemporaryDirectory() as folder:
        return write_onnx(Path(folder) / "m.onnx", nets[kind](), sample=example(nhwc=kind == "nhwc")).read_bytes()


def graph_of(kind: str, folder: Path) -> Graph:
    """Make one of the graphs below."""
    tool, _, net = kind.partition(" ")
    if tool == "onnx":
        import onnx

        return Graph(onnx.load_from_string(_onnx_bytes(net)), fold_onnx, _run_onnx, "NHWC" if net == "nhwc" else "NCHW")
    if tool == "ir":
        path = write_ir(folder / "m.xml", TwoReaders() if net == "two" else Unpadded() if net == "unpadded" else None)
    else:
        path = write_saved(folder / "saved")
    model = as_openvino.read(path, tool)._model
    return Graph(model, fold_openvino, _run_openvino, "NHWC" if tool == "saved" else "NCHW")


def reading_of(norm: tuple[tuple[float, ...], tuple[float, ...]], *, layout: str = "NCHW", order: str = "rgb") -> Reading:
    """What the tests vary."""
    port = Port(name="x", dtype="float32", shape=None)
    return Reading(
        input=port, layout=layout, order=order, mean=norm[0], scale=norm[1], output=port, output_layout=layout, answers="scores",
        probabilities=False, num_classes=3, contract=Contract(height=SIZE[0], width=SIZE[1]),
    )


@pytest.mark.parametrize(("kind", "norm", "order"), [
    ("onnx plain", WHOLE, "bgr"), ("onnx plain", SCALED, "rgb"), ("onnx nhwc", WHOLE, "rgb"), ("onnx unpadded", IMAGENET, "bgr"),
    ("ir plain", WHOLE, "bgr"), ("ir plain", SCALED, "rgb"), ("ir unpadded", IMAGENET, "rgb"), ("saved", WHOLE, "rgb"),
])
def test_gives_the_same_scores_at_every_pixel(kind: str, norm: Any, order: str, tmp_path: Path) -> None:
    made = graph_of(kind, tmp_path)
    reading = reading_of(norm, layout=made.layout, order=order)
    frame = frame_example(reading)
    before = made.run(made.body)(FrameEnd(reading)(frame).numpy())
    stem = made.fold(made.body, reading)
    assert not isinstance(stem, str), stem
    raw = RawEnd(reading, stem.borders)(frame)
    assert float(raw.max()) == 255.0, "no arithmetic is left in front"
    after = made.run(made.body)(raw.numpy())
    assert after.shape == before.shape
    assert np.abs(after - before).max() <= 2e-5 * np.abs(before).max()


@pytest.mark.parametrize(("kind", "norm", "said"), [
    ("onnx plain", IMAGENET, "zeros, which stand for the mean 123.675"),
    ("onnx two", WHOLE, "does not enter one convolution"),
    ("ir plain", IMAGENET, "whole numbers only"),
    ("ir two", SCALED, "does not enter one convolution"),
])
def test_leaves_the_graph_as_it_is_and_says_why(kind: str, norm: Any, said: str, tmp_path: Path) -> None:
    made = graph_of(kind, tmp_path)
    reading = reading_of(norm)
    x = FrameEnd(reading)(frame_example(reading)).numpy()
    why = made.fold(made.body, reading)
    assert isinstance(why, str)
    assert said in why
    untouched = graph_of(kind, tmp_path)
    assert np.array_equal(made.run(made.body)(x), untouched.run(untouched.body)(x))


def test_borders_of_same_padding_follow_the_frame() -> None:
    def borders(padding: str, stride: int) -> tuple[int, ...]:
        conv = FirstConv(weight_OIhw=np.ones((4, 3, 3, 5), np.float32), bias_O=None, strides=(stride, stride), dilations=(1, 1),
                         padding=padding)
        stem = fold([conv], reading_of(WHOLE))
        assert isinstance(stem, Stem)
        return stem.borders

    assert borders("VALID", 2) == (0, 0, 0, 0)
    assert borders("SAME_UPPER", 1) == (1, 1, 2, 2)
    assert borders("SAME_UPPER", 2) == (0, 1, 1, 2)  # an even frame needs one row and three columns more
    assert borders("SAME_LOWER", 2) == (1, 0, 2, 1)


def test_says_where_there_is_nothing_to_fold() -> None:
    assert why_not(reading_of(((), ())), quantized=False) == "there is none"
    assert why_not(reading_of(((0.0,) * 3, (1.0,) * 3)), quantized=False) == "there is none"
    assert "int8" in why_not(reading_of(WHOLE), quantized=True)
    assert "gray" in why_not(reading_of(WHOLE, order="gray"), quantized=False)
    assert why_not(reading_of(WHOLE), quantized=False) == ""
