"""What a boundary head learns from (PIDNet, 2206.02066): outlines of the labels, and extra weight for pixels near them."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.core.config import TrainSection
from edgeseg.core.images import IGNORE_INDEX
from edgeseg.training.losses.base import nothing
from edgeseg.training.losses.cross_entropy import cross_entropy

EDGE_WEIGHT: Final = 20.0
"""Weight of the boundary head's own loss (lambda_1 of the paper, section 3.4)."""
AWARENESS_WEIGHT: Final = 1.0
"""Weight of the boundary-awareness loss (lambda_3)."""
AWARE_ABOVE: Final = 0.8
"""A pixel counts as near a boundary where the head gives it a higher probability than this (t of eq. (4))."""
EDGE_RADIUS: Final = 2
"""Pixels around which another class makes a pixel an edge: bands of 4 pixels, as in the authors' code."""


@torch.no_grad()
def edge_map(labels_NHW: Tensor) -> Tensor:
    """Give int64 [N, H, W]: 1 where another labelled class lies within `EDGE_RADIUS` rows and columns, else 0; 255 stays 255."""
    known_NHW = labels_NHW != IGNORE_INDEX
    window = 2 * EDGE_RADIUS + 1
    values_NHW = labels_NHW.to(torch.float32)

    def highest(x_NHW: Tensor) -> Tensor:
        return F.max_pool2d(x_NHW.unsqueeze(1), window, stride=1, padding=EDGE_RADIUS).squeeze(1)

    top_NHW = highest(values_NHW.where(known_NHW, -1.0))
    bottom_NHW = -highest((-values_NHW).where(known_NHW, -256.0))
    return (top_NHW != bottom_NHW).long().where(known_NHW, IGNORE_INDEX)


def edge_loss(scores_NHW: Tensor, edges_NHW: Tensor) -> Tensor:
    """Weighted binary cross-entropy of the boundary head (l_1 of the paper), `scores_NHW` before the sigmoid.

    mean over labelled pixels of w (-(y log s + (1 - y) log(1 - s))), w = share of pixels that are no edge for edges, and the share that
    are for the rest, so both weigh the same in sum. 0 where nothing is labelled, or all or nothing is an edge.
    """
    known_NHW = edges_NHW != IGNORE_INDEX
    if not bool(known_NHW.any()):
        return nothing(scores_NHW)
    scores_P, target_P = scores_NHW[known_NHW], edges_NHW[known_NHW].to(scores_NHW.dtype)
    share = target_P.mean()
    weights_P = target_P * (1 - share) + (1 - target_P) * share
    return F.binary_cross_entropy_with_logits(scores_P, target_P, weights_P)


def boundary_awareness(
    log_probs_NCHW: Tensor, edge_scores_NHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection
) -> Tensor:
    """Cross-entropy of the class scores at pixels that the boundary head takes for an edge (eq. (4)); 0 where it takes none for one."""
    near_NHW = edge_scores_NHW.detach().sigmoid() > AWARE_ABOVE
    return cross_entropy(log_probs_NCHW, labels_NHW.where(near_NHW, IGNORE_INDEX), class_weights_C, section)
