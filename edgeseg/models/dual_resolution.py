"""Blocks that DDRNet (2101.06085) introduced and PIDNet (2206.02066) kept: residual stages without a last ReLU, pooled context, head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.blocks import ConvBnAct, NormAct, enlarge, pool_to, size_of


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a sum (ResNet, 1512.03385); `relu` at the end is left out where a branch is fused next."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvBnAct(in_channels, out_channels, 3, stride=stride), ConvBnAct(out_channels, out_channels, 3, act=nn.Identity),
        )
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else ConvBnAct(in_channels, out_channels, stride=stride, act=nn.Identity)
        self.relu = relu

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / stride), ceil(w / stride)]."""
        y_NChw: Tensor = self.body(x_NChw) + self.shortcut(x_NChw)
        return torch.relu(y_NChw) if self.relu else y_NChw


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to twice the inner channels, and a sum without ReLU."""

    def __init__(self, in_channels: int, inner: int, *, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvBnAct(in_channels, inner), ConvBnAct(inner, inner, 3, stride=stride), ConvBnAct(inner, 2 * inner, act=nn.Identity),
        )
        same = stride == 1 and in_channels == 2 * inner
        self.shortcut = nn.Identity() if same else ConvBnAct(in_channels, 2 * inner, stride=stride, act=nn.Identity)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, 2 inner, ceil(h / stride), ceil(w / stride)]."""
        y_NChw: Tensor = self.body(x_NChw) + self.shortcut(x_NChw)
        return y_NChw


def stage(in_channels: int, out_channels: int, num_blocks: int, *, stride: int = 1) -> nn.Sequential:
    """Basic blocks, the last one without its ReLU."""
    return nn.Sequential(*(
        BasicBlock(in_channels if i == 0 else out_channels, out_channels, stride=stride if i == 0 else 1, relu=i < num_blocks - 1)
        for i in range(num_blocks)
    ))


def norm_first(in_channels: int, out_channels: int, kernel: int = 1) -> nn.Sequential:
    """Norm, ReLU, convolution."""
    return nn.Sequential(NormAct(in_channels), nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False))


def pool_by(x_NChw: Tensor, stride: int) -> Tensor:
    """Mean over windows of 2 `stride` + 1 cells, `stride` apart: ceil(n / stride) cells from any map, down to one cell.

    Cells past the border count as zeros, as in both reference implementations. The border is written out, since the
    converters agree on pooling without padding only.
    """
    return F.avg_pool2d(F.pad(x_NChw, (stride,) * 4), 2 * stride + 1, stride)


class PooledContext(nn.Module):
    """The five inputs of DAPPM and PAPPM: the map itself, its means at three strides and over the whole frame, each projected."""

    strides = (2, 4, 8)

    def __init__(self, in_channels: int, inner: int) -> None:
        super().__init__()
        self.itself = norm_first(in_channels, inner)
        self.pooled = nn.ModuleList(norm_first(in_channels, inner) for _ in self.strides)
        self.whole = norm_first(in_channels, inner)

    def forward(self, x_NChw: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map [N, in, h, w] to [N, inner, h, w] of the map itself and four of its context, the last [N, inner, 1, 1]."""
        size = size_of(x_NChw)
        context = [
            enlarge(project(pool_by(x_NChw, stride)), size, stride) for stride, project in zip(self.strides, self.pooled, strict=True)
        ]
        return self.itself(x_NChw), [*context, self.whole(pool_to(x_NChw, 1))]


class NormFirstHead(nn.Module):
    """Norm, ReLU, 3x3 convolution with norm and ReLU, scores by a 1x1 convolution."""

    def __init__(self, in_channels: int, inner: int, num_scores: int) -> None:
        super().__init__()
        self.norm = NormAct(in_channels)
        self.features = ConvBnAct(in_channels, inner, 3)
        self.scores = nn.Conv2d(inner, num_scores, 1)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, scores, h, w]."""
        y_NChw: Tensor = self.scores(self.features(self.norm(x_NChw)))
        return y_NChw
