"""Lovasz-softmax: the convex extension of the IoU itself."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeseg.core.config import TrainSection
from edgeseg.training.losses.base import known_and_index, nothing


def lovasz_softmax(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection) -> Tensor:
    """Mean over the batch's classes of the Lovasz extension of the Jaccard loss (Berman et al., 1705.08790, eq. (8), (9), (11)).

    For class c the errors m = 1 - p_c where y = c, p_c elsewhere, are sorted, largest first; the loss is sum_i m_i g_i, g_i being what
    the Jaccard loss of "the first i pixels are wrong" gains with pixel i. All labelled pixels of the batch are one set, as in the metric.
    255 does not count, absent classes neither; class weights do not enter. A perfect answer gives 0. Sorting costs: one sort a class.
    """
    known_NHW, _ = known_and_index(labels_NHW)
    labels_P = labels_NHW[known_NHW]
    if labels_P.numel() == 0:
        return nothing(log_probs_NCHW)
    losses = []
    for c in torch.bincount(labels_P).nonzero().flatten().tolist():
        is_class_P = (labels_P == c).to(log_probs_NCHW.dtype)
        errors_P = (is_class_P - log_probs_NCHW[:, c][known_NHW].exp()).abs()
        losses.append(errors_P @ gains_of(errors_P, is_class_P))
    return torch.stack(losses).mean()


@torch.no_grad()
def gains_of(errors_P: Tensor, is_class_P: Tensor) -> Tensor:
    """Factor g of each pixel's error, [P]: constant in every neighbourhood without ties, so it is the gradient too."""
    order_P = errors_P.argsort(descending=True)
    return torch.empty_like(errors_P).scatter_(0, order_P, jaccard_gains(is_class_P[order_P]))


def jaccard_gains(is_class_P: Tensor) -> Tensor:
    """What the Jaccard loss gains with each further wrong pixel, [P], from the sorted 0/1 labels (algorithm 1 of the paper)."""
    total = is_class_P.sum()
    intersection_P = total - is_class_P.cumsum(0)
    union_P = total + (1 - is_class_P).cumsum(0)
    jaccard_P = 1 - intersection_P / union_P
    return torch.cat([jaccard_P[:1], jaccard_P.diff()])
