"""Anchors: the boxes that proposals start from, three a cell, one size a level (FPN, Lin et al. 2017, arXiv:1612.03144, section 4.1).

Legend: h/w = rows/columns of a level, A = anchors, row by row, in each cell by ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

RATIOS: Final = (0.5, 1.0, 2.0)
"""Height over width."""
SIDE_IN_STRIDES: Final = 8.0
"""Side of a square anchor, in strides of its level: 32 to 512 pixels at strides 4 to 64."""


def level_anchors(hw: tuple[int, int], stride: int) -> Tensor:
    """Anchors of one level, float32 [A, 4] in pixels of the frame, around the middle of each cell; they may reach past the border."""
    half_R2 = torch.tensor([
        [0.5 * SIDE_IN_STRIDES * stride / math.sqrt(ratio), 0.5 * SIDE_IN_STRIDES * stride * math.sqrt(ratio)] for ratio in RATIOS
    ])
    y_h, x_w = (stride * (torch.arange(size, dtype=torch.float32) + 0.5) for size in hw)
    middle_hw12 = torch.stack([x_w[None, :].expand(hw), y_h[:, None].expand(hw)], dim=2)[:, :, None, :]
    return torch.cat([middle_hw12 - half_R2, middle_hw12 + half_R2], dim=3).reshape(-1, 4)


class Anchors(nn.Module):
    """Anchors of every level for one size of frame, kept until a frame of another size comes; they are in no checkpoint."""

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.sizes: tuple[tuple[int, int], ...] = ()

    def forward(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """Anchors [A, 4] of all levels, which have these rows and columns, finest first."""
        if tuple(sizes) == self.sizes and self.get_buffer("kept_A4").device == device:
            return self.get_buffer("kept_A4")
        if torch.compiler.is_compiling() or device.type == "meta":
            return self._make(sizes, device)
        with torch.inference_mode(False):  # kept beyond a validation
            self.register_buffer("kept_A4", self._make(sizes, device), persistent=False)
        self.sizes = tuple(sizes)
        return self.get_buffer("kept_A4")

    def _make(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        return torch.cat([level_anchors(hw, stride) for hw, stride in zip(sizes, self.strides, strict=True)]).to(device)
