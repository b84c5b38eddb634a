"""MobileNetV2: Sandler et al. 2018, arXiv:1801.04381. Keys as in torchvision, without the last 1x1 convolution (`features.18`)."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from edgeseg.models.blocks import scaled
from edgeseg.models.encoders.base import ConvNorm, Encoder, StagedEncoder

_STAGES: Final = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion t, output channels c, repeats n, stride s (paper, table 2)."""


class InvertedResidual(nn.Module):
    """Expand, depthwise, project without activation; a sum where the shapes allow it (paper, figure 4 d)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        layers = [] if expansion == 1 else [ConvNorm(in_channels, inner, act=nn.ReLU6)]
        layers.append(ConvNorm(inner, inner, 3, stride=stride, groups=inner, act=nn.ReLU6))
        self.conv = Projected(layers, inner, out_channels)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / stride), ceil(w / stride)]."""
        y_NChw: Tensor = self.conv(x_NChw)
        return x_NChw + y_NChw if self.residual else y_NChw


class Projected(nn.Sequential):
    """Layers, then a bare 1x1 convolution and its norm as the next two members."""

    def __init__(self, layers: list[ConvNorm], in_channels: int, out_channels: int) -> None:
        super().__init__(*layers, nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.folds = ((str(len(layers)), str(len(layers) + 1)),)


def build(width: float) -> Encoder:
    """Build MobileNetV2; maps after `features` 1, 3, 6, 13 and 17."""
    channels, stride = scaled(32, width), 2
    layers: list[nn.Module] = [ConvNorm(3, channels, 3, stride=2, act=nn.ReLU6)]
    ends: dict[int, tuple[int, int]] = {}
    for expansion, wish, repeats, first_stride in _STAGES:
        for i in range(repeats):
            layers.append(InvertedResidual(channels, scaled(wish, width), stride=first_stride if i == 0 else 1, expansion=expansion))
            channels = scaled(wish, width)
        stride *= first_stride
        ends[stride] = (len(layers) - 1, channels)
    encoder = StagedEncoder(nn.Sequential(*layers), ends)
    encoder.head_keys = ("features.18.", "classifier.")
    return encoder
