"""Boxes x0, y0, x1, y1 in pixels, edges at integers: offsets from one box to another, overlaps, suppression. Fixed sizes throughout.

Legend: A, B = boxes, M = boxes by falling score.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_LOG: Final = math.log(1000 / 16)
"""No box grows by more than this factor in one step, so that no exponential overflows."""
SUPPRESSION_STEPS: Final = 8
"""Steps of `suppress`; measured in docs/adr/0008: 8 give greedy suppression's own answer, but for rare chains."""

Weights = tuple[float, float]
"""What offsets of the middle and of the logarithm of the size are multiplied by, to bring their deviation near 1."""


def take(table_AD: Tensor, index_M: Tensor) -> Tensor:
    """Give rows of a table, [M, D]. As an embedding: LiteRT then makes one operation of it, of `index_select` seven."""
    return F.embedding(index_M, table_AD)


def decode(boxes_A4: Tensor, deltas_A4: Tensor, weights: Weights = (1.0, 1.0)) -> Tensor:
    """Move and stretch boxes: middle += size d_xy, size *= exp(d_wh); section 3.1.2 of Ren et al. 2015, arXiv:1506.01497."""
    low_A2, high_A2 = boxes_A4[:, :2], boxes_A4[:, 2:]
    size_A2 = high_A2 - low_A2
    middle_A2 = low_A2 + 0.5 * size_A2 + size_A2 * (deltas_A4[:, :2] * (1 / weights[0]))
    half_A2 = 0.5 * size_A2 * torch.exp(torch.clamp(deltas_A4[:, 2:] * (1 / weights[1]), max=LARGEST_LOG))
    return torch.cat([middle_A2 - half_A2, middle_A2 + half_A2], dim=1)


def encode(boxes_A4: Tensor, wanted_A4: Tensor, weights: Weights = (1.0, 1.0)) -> Tensor:
    """Give the offsets with which `decode` makes `wanted_A4` of `boxes_A4`; both have sides above 0."""
    size_A2, wanted_size_A2 = boxes_A4[:, 2:] - boxes_A4[:, :2], wanted_A4[:, 2:] - wanted_A4[:, :2]
    moved_A2 = (wanted_A4[:, :2] + wanted_A4[:, 2:] - boxes_A4[:, :2] - boxes_A4[:, 2:]) * 0.5 / size_A2
    return torch.cat([moved_A2 * weights[0], torch.log(wanted_size_A2 / size_A2) * weights[1]], dim=1)


def clip(boxes_A4: Tensor, frame_hw: tuple[int, int]) -> Tensor:
    """Cut boxes off at the frame's border."""
    height, width = frame_hw
    border = torch.tensor([width, height, width, height], dtype=boxes_A4.dtype, device=boxes_A4.device)
    return torch.minimum(torch.clamp(boxes_A4, min=0.0), border)


def intersection(first_A4: Tensor, second_B4: Tensor) -> Tensor:
    """Shared area of every pair: [A, B]."""
    low = torch.maximum(first_A4[:, None, :2], second_B4[None, :, :2])
    high = torch.minimum(first_A4[:, None, 2:], second_B4[None, :, 2:])
    side = torch.clamp(high - low, min=0.0)
    return side[:, :, 0] * side[:, :, 1]


def area(boxes_A4: Tensor) -> Tensor:
    """Area of each box: [A]."""
    return (boxes_A4[:, 2] - boxes_A4[:, 0]) * (boxes_A4[:, 3] - boxes_A4[:, 1])


def iou(first_A4: Tensor, second_B4: Tensor) -> Tensor:
    """Intersection over union of every pair: [A, B]; 0 where both are empty."""
    shared_AB = intersection(first_A4, second_B4)
    union_AB = area(first_A4)[:, None] + area(second_B4)[None, :] - shared_AB
    return shared_AB / torch.clamp(union_AB, min=1e-6)


def suppress(overlap_MM: Tensor, threshold: float, steps: int = SUPPRESSION_STEPS) -> Tensor:
    """Which boxes stay: float [M], 1 or 0, for boxes by falling score with the overlaps `overlap_MM`.

    Greedy suppression keeps a box if no kept box before it overlaps it by more than the threshold: a fixed point of
    k_j = not any_{i<j} (k_i and o_ij > t). It is found by iteration from k = 1, each step a vector times a matrix (Cluster-NMS, Zheng et
    al. 2020, arXiv:2005.03572): after n steps every box is right that hangs on the others by a chain of at most n. One step is Fast NMS
    (arXiv:1904.02689), which removes too many: boxes that were removed still remove others.
    """
    rank_M = torch.arange(overlap_MM.shape[0], device=overlap_MM.device)
    earlier_MM = rank_M[:, None] < rank_M[None, :]
    hides_MM = torch.logical_and(overlap_MM > threshold, earlier_MM).to(torch.float32)
    kept_1M = torch.ones_like(hides_MM[:1])
    for _ in range(steps):
        kept_1M = (torch.matmul(kept_1M, hides_MM) < 0.5).to(torch.float32)
    return kept_1M[0]
