"""Losses. Each takes log-probabilities and labels, so that the softmax is computed once for all of them.

Legend: N = frames, C = classes, H/W = rows/columns of the label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.core.config import TrainSection
from edgeseg.core.images import IGNORE_INDEX, ClassMap

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(log_probs_NCHW float32, labels_NHW int64 with 255 = ignore, class_weights_C) -> scalar."""


def cross_entropy(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor) -> Tensor:
    """Weighted mean of -log p(label) over labelled pixels; 0 where a batch has none."""
    if not bool((labels_NHW != IGNORE_INDEX).any()):
        return log_probs_NCHW.sum() * 0.0
    return F.nll_loss(log_probs_NCHW, labels_NHW, class_weights_C, ignore_index=IGNORE_INDEX)


def dice(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor) -> Tensor:
    """1 - mean soft Dice over the classes in the batch (V-Net, 1606.04797, with plain sums in the denominator as in nnU-Net).

    Dice_c = (2 sum p_c y_c + 1) / (sum p_c + sum y_c + 1), sums over all labelled pixels of the batch.
    """
    num_classes = log_probs_NCHW.shape[1]
    known_NHW = labels_NHW != IGNORE_INDEX
    index_NHW = labels_NHW.where(known_NHW, 0)
    probs_NCHW = log_probs_NCHW.exp()
    hit_NHW = probs_NCHW.gather(1, index_NHW.unsqueeze(1)).squeeze(1) * known_NHW
    zeros_C = log_probs_NCHW.new_zeros(num_classes)
    flat = index_NHW.reshape(-1)
    overlap_C = zeros_C.index_add(0, flat, hit_NHW.reshape(-1))
    labelled_C = zeros_C.index_add(0, flat, known_NHW.reshape(-1).to(zeros_C.dtype))
    # A matrix product with the mask: no masked copy of the probabilities is made.
    answered_C = (probs_NCHW.flatten(2) @ known_NHW.to(probs_NCHW.dtype).flatten(1).unsqueeze(2)).sum(dim=(0, 2))
    dice_C = (2 * overlap_C + 1) / (answered_C + labelled_C + 1)
    present_C = labelled_C > 0
    if not bool(present_C.any()):
        return log_probs_NCHW.sum() * 0.0
    return 1 - dice_C[present_C].mean()


LOSSES: Final[dict[str, Loss]] = {
    "ce": cross_entropy,
    "dice": dice,
}
"""Each has a weight of the same name in `[train]`."""


def total_loss(logits_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection) -> Tensor:
    """Sum of the losses with their weights of `[train]`; logits already at the label's size, any float type."""
    log_probs = F.log_softmax(logits_NCHW.float(), dim=1)
    parts = [getattr(section, name) * loss(log_probs, labels_NHW, class_weights_C)
             for name, loss in LOSSES.items() if getattr(section, name) > 0]
    return torch.stack(parts).sum()


def class_weights(labels: Iterable[ClassMap], *, num_classes: int, rule: str) -> NDArray[np.float32]:
    """Class weights from the training labels.

    `median_frequency` (Eigen and Fergus, 1411.4734): weight_c = median(freq) / freq_c with freq_c = pixels of c / labelled pixels of
    the frames that hold c; `sqrt_median_frequency` its square root; `none` ones. A class that never occurs gets 1.
    """
    pixels, seen_in = np.zeros(num_classes), np.zeros(num_classes)
    if rule == "none":
        return np.ones(num_classes, dtype=np.float32)
    for label in labels:
        counts = np.bincount(label.reshape(-1), minlength=256)[:num_classes]
        pixels += counts
        seen_in += (counts > 0) * counts.sum()
    weights = np.ones(num_classes)
    present = pixels > 0
    frequency = pixels[present] / seen_in[present]
    weights[present] = np.median(frequency) / frequency
    if rule == "sqrt_median_frequency":
        weights = np.sqrt(weights)
    return weights.astype(np.float32)
