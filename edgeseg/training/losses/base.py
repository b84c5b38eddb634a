"""What a loss is, and what all of them share.

Legend, for every file beside this one: N = frames, C = classes, H/W = rows/columns of the label, y = the label, p = the softmax.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from edgeseg.core.config import TrainSection
from edgeseg.core.images import IGNORE_INDEX

Loss = Callable[[Tensor, Tensor, Tensor, TrainSection], Tensor]
"""(log_probs_NCHW of any float type, labels_NHW int64 with 255 = ignore, class_weights_C, `[train]`) -> scalar.

Log-probabilities, so that the softmax is computed once for all losses. Where nothing is labelled every loss is 0, with a gradient of 0."""


def nothing(log_probs_NCHW: Tensor) -> Tensor:
    """Give the 0 of a batch with nothing to learn from, still connected to the network."""
    return log_probs_NCHW.sum() * 0.0


def known_and_index(labels_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """Give which pixels are labelled (bool [N, H, W]) and the labels with 0 in place of 255, fit to index with."""
    known_NHW = labels_NHW != IGNORE_INDEX
    return known_NHW, labels_NHW.where(known_NHW, 0)


def of_label(log_probs_NCHW: Tensor, index_NHW: Tensor) -> Tensor:
    """Log-probability of each pixel's own label, [N, H, W]."""
    return log_probs_NCHW.gather(1, index_NHW.unsqueeze(1)).squeeze(1)


def weighted_mean(values_NHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor) -> Tensor:
    """Take sum w_y value / sum w_y over labelled pixels: the reduction of PyTorch's own cross-entropy."""
    known_NHW, index_NHW = known_and_index(labels_NHW)
    weights_NHW = class_weights_C.to(values_NHW.dtype)[index_NHW] * known_NHW
    return (weights_NHW * values_NHW).sum() / weights_NHW.sum()


def tiny(x: Tensor) -> float:
    """Smallest share that 1 - p is told from 0 by in the type of `x`."""
    return float(torch.finfo(x.dtype).eps)
