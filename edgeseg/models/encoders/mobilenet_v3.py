"""MobileNetV3, small and large: Howard et al. 2019, arXiv:1905.02244. Keys as in torchvision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor, nn

from edgeseg.models.blocks import pool_to, scaled
from edgeseg.models.encoders.base import ConvNorm, Encoder, StagedEncoder

# kernel, expanded channels, output channels, squeeze-and-excite, hard-swish, stride (tables 1 and 2 of the paper).
Row = tuple[int, int, int, bool, bool, int]
LARGE: Final[tuple[Row, ...]] = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)
SMALL: Final[tuple[Row, ...]] = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)
_EPS: Final = 1e-3
"""Of all norms, as in torchvision and in the paper's own implementation."""


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means (1709.01507), with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = scaled(channels / 4)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.relu, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Gate [N, C, h, w]; the shape stays."""
        y_NChw: Tensor = x_NChw * self.gate(self.fc2(self.relu(self.fc1(pool_to(x_NChw, 1)))))
        return y_NChw


class InvertedResidual(nn.Module):
    """Expand, depthwise, optional squeeze-and-excite, project; a sum where the shapes allow it (paper, figure 4)."""

    def __init__(self, in_channels: int, expanded: int, out_channels: int, *, kernel: int, stride: int, dilation: int, excite: bool,
                 act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.residual = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = []
        if expanded != in_channels:
            layers.append(ConvNorm(in_channels, expanded, act=act, eps=_EPS))
        layers.append(
            ConvNorm(expanded, expanded, kernel, stride=stride, dilation=dilation, groups=expanded, act=act, eps=_EPS)
        )
        if excite:
            layers.append(SqueezeExcite(expanded))
        layers.append(ConvNorm(expanded, out_channels, eps=_EPS))
        self.block = nn.Sequential(*layers)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / stride), ceil(w / stride)]."""
        y_NChw: Tensor = self.block(x_NChw)
        return x_NChw + y_NChw if self.residual else y_NChw


def build(rows: tuple[Row, ...], width: float = 1.0, *, dense: bool = False, halve_last: bool = False) -> StagedEncoder:
    """Build the network of `rows`; each map is the last one at its stride.

    With `dense`, what the paper segments with (section 6.4): the last stage keeps stride 16, its convolutions dilated by 2, and the 1x1
    convolution to six times the channels, which else belongs to the classifier, ends it. `halve_last` also halves the
    channels of that stage, expansions included.
    """
    channels, stride = scaled(16, width), 2
    layers: list[nn.Module] = [ConvNorm(3, channels, 3, stride=2, act=nn.Hardswish, eps=_EPS)]
    ends = {2: (0, channels)}
    last_stage = False
    for kernel, expanded, out_channels, excite, hard_swish, row_stride in rows:
        last_stage = last_stage or (stride == 16 and row_stride == 2)
        kept = dense and last_stage
        share = 0.5 if last_stage and halve_last else 1.0
        layers.append(InvertedResidual(
            channels, scaled(expanded * share, width), scaled(out_channels * share, width), kernel=kernel,
            stride=1 if kept else row_stride, dilation=2 if kept else 1, excite=excite, act=nn.Hardswish if hard_swish else nn.ReLU,
        ))
        channels = scaled(out_channels * share, width)
        stride = stride if kept else stride * row_stride
        ends[stride] = (len(layers) - 1, channels)
    if dense:
        layers.append(ConvNorm(channels, 6 * channels, act=nn.Hardswish, eps=_EPS))
        ends[stride] = (len(layers) - 1, 6 * channels)
    encoder = StagedEncoder(nn.Sequential(*layers), ends)
    encoder.head_keys = ("classifier.",) if dense else (f"features.{len(layers)}.", "classifier.")
    return encoder


def build_small(width: float) -> Encoder:
    """Build MobileNetV3 small."""
    return build(SMALL, width)


def build_large(width: float) -> Encoder:
    """Build MobileNetV3 large."""
    return build(LARGE, width)
