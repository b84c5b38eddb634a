"""Tiny trained-elsewhere models, one of each kind that can be imported, made by the tools users have.

All are one small network: a convolution of stride 2, ReLU, a 1x1 convolution to the classes, with weights that are always the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from saved_model_tools import graph_of_convolution, write_saved_model
from torch import Tensor, nn

from edgeseg.core.lazy import require
from edgeseg.core.vendors import quiet
from edgeseg.data.synthetic import draw_field

SIZE: Final = (64, 96)
CLASSES: Final = ("soil", "crop", "weed")


class TinyNet(nn.Module):
    """Float32 picture in (NCHW or NHWC), scores at half size out in the same layout."""

    def __init__(self, num_scores: int = 3, *, channels: int = 3, nhwc: bool = False, last: nn.Module | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.first = nn.Conv2d(channels, 8, 3, 2, 1)
        self.second = nn.Conv2d(8, num_scores, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)
            if num_scores == 1:  # half of a drawn field on either side of 0
                field = torch.from_numpy(draw_field(seed=0, split="val", index=0, size_hw=SIZE)[0]).permute(2, 0, 1)[None, :channels]
                bias = self.second.bias
                assert bias is not None
                bias -= self.second(torch.relu(self.first(field / 127.5 - 1))).median()
        self.nhwc, self.last = nhwc, last or nn.Identity()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Give scores."""
        x = x.permute(0, 3, 1, 2) if self.nhwc else x
        scores: Tensor = self.last(self.second(torch.relu(self.first(x))))
        return scores.permute(0, 2, 3, 1) if self.nhwc else scores


class ClassMapNet(nn.Module):
    """Decides by itself: int64 [1, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TinyNet()

    def forward(self, x: Tensor) -> Tensor:
        """Give class numbers."""
        return self.net(x).argmax(1)


def example(channels: int = 3, *, nhwc: bool = False) -> Tensor:
    """An input to trace with."""
    return torch.rand((1, *SIZE, channels) if nhwc else (1, channels, *SIZE))


def write_onnx(path: Path, net: nn.Module | None = None, *, sample: Tensor | None = None, dynamic: bool = False, opset: int = 18) -> Path:
    """Export with torch."""
    axes: Any = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},) if dynamic else None
    with quiet():
        program = torch.onnx.export(
            net or TinyNet(), (example() if sample is None else sample,), dynamo=True, verbose=False, opset_version=opset,
            input_names=["picture"], output_names=["scores"], dynamic_shapes=axes,
        )
        assert program is not None
        program.save(str(path))
    return path


def write_ir(path: Path, net: nn.Module | None = None) -> Path:
    """Convert with OpenVINO, with its default of float16 weights."""
    # not a plain import: that would let it report each use from a forked process
    ov = require("openvino", extra="export", converter=True)
    with quiet():
        model = ov.convert_model(net or TinyNet(), example_input=example(), input=[(list(example().shape), ov.Type.f32)])
        model.inputs[0].get_tensor().set_names({"picture"})
        model.outputs[0].get_tensor().set_names({"scores"})
        ov.save_model(model, path)
    return path


def write_tflite(path: Path, net: nn.Module | None = None, *, sample: Tensor | None = None) -> Path:
    """Convert with litert_torch; NHWC, as TFLite models are."""
    import litert_torch

    with quiet():
        litert_torch.convert(net or TinyNet(nhwc=True), (example(nhwc=True) if sample is None else sample,)).export(str(path))
    return path


def write_saved(folder: Path, *, shape: tuple[int, ...] = (1, *SIZE, 3)) -> Path:
    """Write a SavedModel of one convolution."""
    return write_saved_model(folder, *_one_convolution(), shape=shape)


def write_frozen(path: Path) -> Path:
    """Write its graph alone."""
    path.write_bytes(graph_of_convolution(*_one_convolution(), shape=(1, *SIZE, 3)))
    return path


def _one_convolution() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.normal(0, 0.5, (3, 3, 3, 3)), rng.normal(0, 0.2, 3)


def write_keras(path: Path) -> Path:
    """Save a Keras 3 model with a sigmoid-free head and a batch norm that has seen something."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed; it comes with pip install 'edgeseg[keras]'")
    from exporters.imported.keras import require_keras

    keras = require_keras()
    keras.utils.set_random_seed(5)
    inputs = keras.Input((*SIZE, 3), name="picture")
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization(moving_mean_initializer="random_normal")(x)
    x = keras.layers.ReLU()(x)
    outputs = keras.layers.Conv2D(3, 1, name="scores", bias_initializer="random_normal")(x)
    with quiet():
        keras.Model(inputs, outputs).save(str(path))
    return path


MODELS: Final[dict[str, tuple[str, Callable[[Path], Path]]]] = {
    "ONNX": ("model.onnx", write_onnx),
    "OpenVINO IR": ("model.xml", write_ir),
    "TFLite": ("model.tflite", write_tflite),
    "TensorFlow SavedModel": ("saved", write_saved),
    "TensorFlow frozen graph": ("frozen.pb", write_frozen),
    "Keras": ("model.keras", write_keras),
}
"""Kind -> file name and what writes one."""
