"""Feature pyramid: coarse maps brought up and added to finer ones (FPN, Lin et al. 2017, arXiv:1612.03144, figure 3).

Legend: N = frames, F = channels of the pyramid, h/w = rows/columns of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.blocks import size_of

STRIDES: Final = (4, 8, 16, 32, 64)
"""Of the levels P2 to P6; P6 serves proposals alone."""


class FeaturePyramid(nn.Module):
    """Maps of an encoder at strides 4, 8, 16, 32 in; P2 to P6 out, all with `channels` channels."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in in_channels)
        self.outer = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Levels [N, F, h, w], finest first."""
        levels: list[Tensor] = []
        coarser: Tensor | None = None
        for x_NChw, inner, outer in zip(reversed(maps), reversed(self.inner), reversed(self.outer), strict=True):
            y_NFhw = inner(x_NChw)
            if coarser is not None:
                y_NFhw = y_NFhw + _doubled(coarser, size_of(y_NFhw))
            levels.insert(0, outer(y_NFhw))
            coarser = y_NFhw
        return [*levels, F.max_pool2d(levels[-1], 1, 2)]


def _doubled(x_NFhw: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Each cell twice along both axes, cut to `size_hw`: cell i lies over the cells 2i and 2i + 1 of the finer level, at any size."""
    h, w = size_of(x_NFhw)
    twice = F.interpolate(x_NFhw, size=(2 * h, 2 * w), mode="nearest")
    return twice if (2 * h, 2 * w) == size_hw else twice[:, :, : size_hw[0], : size_hw[1]]
