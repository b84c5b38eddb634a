"""Fold mean and scale of an import into its first convolution, where that is exact; what `exporters.stem` does for our own networks.

A convolution is linear, so its weights take 1 / scale and its bias the mean. Its zero padding stands for the mean, though: with a mean
of 0 nothing has to be done about it; a mean of whole numbers is put around the uint8 frame; any other mean stays in front of a padded
convolution, since a border of uint8 cannot hold it. A channel order of BGR goes into the weights too.

The graph itself is changed by the format's own module, which hands over a `FirstConv` and takes back a `Stem`.

Legend: N = 1, H/W = rows/columns, O/I = channels out/in, h/w = rows/columns of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporters.imported.base import Reading


@dataclass(frozen=True, kw_only=True)
class FirstConv:
    """A convolution that reads the model's input and nothing else."""

    weight_OIhw: NDArray[np.float32]
    bias_O: NDArray[np.float32] | None
    strides: tuple[int, int]
    dilations: tuple[int, int]
    padding: tuple[int, int, int, int] | str
    """Zeros at top, bottom, left, right; or `SAME_UPPER`, `SAME_LOWER`, `VALID`."""

    @property
    def geometry(self) -> tuple[object, ...]:
        """What convolutions that share one border must share."""
        return self.weight_OIhw.shape[2:], self.strides, self.dilations, self.padding


@dataclass(frozen=True, kw_only=True)
class Stem:
    """What takes the place of the normalisation."""

    borders: tuple[int, int, int, int]
    """Of the mean colour around the raw frame: top, bottom, left, right."""
    zeros: tuple[int, int, int, int]
    """What the convolution goes on padding with zeros."""
    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]
    """Of each `FirstConv`, for raw RGB values 0..255."""


def fold(convs: Sequence[FirstConv], reading: Reading) -> Stem | str:
    """Give what has to be changed, or why the normalisation stays where it is."""
    if not convs or len({conv.geometry for conv in convs}) != 1:
        return "the input does not enter one convolution"
    if any(conv.weight_OIhw.shape[1] != len(reading.mean) for conv in convs):
        return "the first convolution is grouped"
    padding = _resolved(convs[0], (reading.contract.height, reading.contract.width))
    nothing = (0, 0, 0, 0)
    borders = padding if any(padding) and any(reading.mean) else nothing
    if borders is not nothing and any(value != round(value) or not 0 <= value <= 255 for value in reading.mean):
        mean = ", ".join(f"{value:g}" for value in reading.mean)
        return f"the first convolution pads with zeros, which stand for the mean {mean}, and a border of bytes takes whole numbers only"
    made = [_raw(conv, reading) for conv in convs]
    return Stem(
        borders=borders, zeros=nothing if any(borders) else padding,
        weights=tuple(weight for weight, _ in made), biases=tuple(bias for _, bias in made),
    )


def why_not(reading: Reading, *, quantized: bool) -> str:
    """Say why there is nothing to fold; empty where there may be."""
    if not reading.scale or (not any(reading.mean) and all(value == 1.0 for value in reading.scale)):
        return "there is none"
    if quantized:
        return "the model is in int8 already"
    return "gray is computed in floats" if reading.order == "gray" else ""


def _raw(conv: FirstConv, reading: Reading) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    shape = (1, -1, 1, 1)
    mean, scale = (np.asarray(values, np.float64).reshape(shape) for values in (reading.mean, reading.scale))
    weight = conv.weight_OIhw.astype(np.float64) / scale
    bias = -(weight * mean).sum(axis=(1, 2, 3)) + (0 if conv.bias_O is None else conv.bias_O.astype(np.float64))
    if reading.order == "bgr":
        weight = weight[:, ::-1]
    return np.ascontiguousarray(weight, np.float32), bias.astype(np.float32)


def _resolved(conv: FirstConv, frame_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Padding in pixels: top, bottom, left, right."""
    if not isinstance(conv.padding, str):
        return conv.padding
    if conv.padding == "VALID":
        return (0, 0, 0, 0)
    sides = []
    for size, kernel, stride, dilation in zip(frame_hw, conv.weight_OIhw.shape[2:], conv.strides, conv.dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
        fewer, more = total // 2, total - total // 2
        sides += [fewer, more] if conv.padding == "SAME_UPPER" else [more, fewer]
    top, bottom, left, right = sides
    return top, bottom, left, right


def said(stem: Stem | str) -> dict[str, str]:
    """What the manifest says of where the normalisation is computed."""
    return {"normalisation": f"in front of the model: {stem}" if isinstance(stem, str) else "in the first convolution"}


class RawEnd(nn.Module):
    """uint8 frame [1, H, W, 3] in; its values 0..255 as floats [1, 3, P, Q] out, RGB, with a border of the mean colour."""

    def __init__(self, reading: Reading, borders: tuple[int, int, int, int]) -> None:
        super().__init__()
        height, width = reading.contract.height, reading.contract.width
        top, bottom, left, right = borders
        mean = torch.tensor(reading.mean[::-1] if reading.order == "bgr" else reading.mean).view(1, 1, 1, 3)
        for name, rows, columns in (("left", height, left), ("right", height, right),
                                    ("top", top, left + width + right), ("bottom", bottom, left + width + right)):
            self.register_buffer(name, mean.expand(1, rows, columns, 3).to(torch.uint8).contiguous())

    def forward(self, frame_NHWC: Tensor) -> Tensor:
        """Pad, then give floats in the layout convolutions take."""
        for axis, before, after in ((2, self.left, self.right), (1, self.top, self.bottom)):
            parts = [part for part in (before, frame_NHWC, after) if isinstance(part, Tensor) and part.shape[axis]]
            frame_NHWC = torch.cat(parts, dim=axis) if len(parts) > 1 else frame_NHWC
        return frame_NHWC.permute(0, 3, 1, 2).to(torch.float32)
