"""RoIAlign as interpolation: each box is looked up at 14x14 points of the level that suits its size (He et al. 2017, arXiv:1703.06870).

A box is looked up on one level only, which no shape may depend on. So all levels lie in one table, a row a cell, and a point is the
weighted sum of four rows: gathers of fixed shape. The mask head takes the 14x14 points as they are; the box head takes 7x7 bins, each the
mean of 2x2 points (four samples a bin, section 3 of the paper).

Legend: N = frames, F = channels, h/w = rows/columns of a level, S = cells of all levels, R = boxes, P = points a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from edgeseg.models.blocks import size_of
from edgeseg.models.mask_rcnn.boxes import area, take

POINTS: Final = 14
CANONICAL_SIDE: Final = 224.0
"""Boxes of this side, up to twice it, are looked up at stride 16: k = floor(4 + log2(sqrt(w h) / 224)), eq. 1 of arXiv:1612.03144."""


class RoiAlign(nn.Module):
    """Features of boxes, [R, F, 14, 14]."""

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.edges = tuple((CANONICAL_SIDE * stride / 16) ** 2 for stride in strides[1:])
        """Area from which on a box belongs to the next level."""

    def forward(self, levels: Sequence[Tensor], boxes_R4: Tensor, frame_R: Tensor | None = None) -> Tensor:
        """Look up `boxes_R4` (pixels of the frame) in levels [N, F, h, w]; `frame_R` = index of each box's frame, for N > 1."""
        frames, channels = int(levels[0].shape[0]), int(levels[0].shape[1])
        sizes = [size_of(level) for level in levels]
        table = torch.cat([level.permute(0, 2, 3, 1).reshape(frames, -1, channels) for level in levels], dim=1).reshape(-1, channels)
        starts = [sum(h * w for h, w in sizes[:i]) for i in range(len(sizes))]
        facts = torch.tensor([
            (1 / stride, float(w), w - 1.0, h - 1.0, float(start))
            for stride, (h, w), start in zip(self.strides, sizes, starts, strict=True)
        ], device=boxes_R4.device)
        # The facts of each box's level. Sums of whole numbers and of powers of two are exact.
        area_R1 = area(boxes_R4)[:, None]
        own = facts[:1] + (area_R1 >= self.edges[0]).to(torch.float32) * (facts[1:2] - facts[:1])
        for i, edge in enumerate(self.edges[1:], start=1):
            own = own + (area_R1 >= edge).to(torch.float32) * (facts[i + 1 : i + 2] - facts[i : i + 1])
        scale_R1, width_R1, last_R2, start_R1 = own[:, 0:1], own[:, 1:2], own[:, 2:4], own[:, 4:5]
        if frame_R is not None:
            start_R1 = start_R1 + frame_R[:, None].to(torch.float32) * sum(h * w for h, w in sizes)
        before_R2P, after_R2P, share_R2P = _taps(boxes_R4, scale_R1, last_R2)  # of x and of y
        left_RP, right_RP, across_R1P = before_R2P[:, 0], after_R2P[:, 0], share_R2P[:, 0, None, :]
        top_RP, bottom_RP = start_R1 + before_R2P[:, 1] * width_R1, start_R1 + after_R2P[:, 1] * width_R1
        down_RP1 = share_R2P[:, 1, :, None]

        def rows(row_RP: Tensor, column_RP: Tensor, weight_RPP: Tensor) -> Tensor:
            index = (row_RP[:, :, None] + column_RP[:, None, :]).reshape(-1).to(torch.int64)  # exact: below 2^24
            return take(table, index) * weight_RPP.reshape(-1, 1)

        points = (
            rows(top_RP, left_RP, (1 - down_RP1) * (1 - across_R1P)) + rows(top_RP, right_RP, (1 - down_RP1) * across_R1P)
            + rows(bottom_RP, left_RP, down_RP1 * (1 - across_R1P)) + rows(bottom_RP, right_RP, down_RP1 * across_R1P)
        )
        return points.reshape(-1, POINTS, POINTS, channels).permute(0, 3, 1, 2)


def _taps(boxes_R4: Tensor, scale_R1: Tensor, last_R2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cells before and after each of the P points along x and y, and the share of the second; all [R, 2, P].

    Cell i of a level covers the pixels i / scale to (i + 1) / scale. Points beyond the middle of the outermost cells have its value.
    """
    share_P = (torch.arange(POINTS, dtype=torch.float32, device=boxes_R4.device) + 0.5) * (1 / POINTS)
    low_R2, high_R2 = boxes_R4[:, :2] * scale_R1 - 0.5, boxes_R4[:, 2:] * scale_R1 - 0.5
    at_R2P = low_R2[:, :, None] + (high_R2 - low_R2)[:, :, None] * share_P[None, None]
    at_R2P = torch.minimum(torch.clamp(at_R2P, min=0.0), last_R2[:, :, None])
    before_R2P = torch.floor(at_R2P)
    return before_R2P, torch.minimum(before_R2P + 1, last_R2[:, :, None]), at_R2P - before_R2P
