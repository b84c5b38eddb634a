"""Losses over whole regions: Dice, IoU (Jaccard) and Tversky, from the same three sums a class.

TP_c = sum p_c y_c, answered_c = sum p_c, labelled_c = sum y_c, each over all labelled pixels of the batch. The mean is taken over
the classes that the batch's labels hold: an absent class would ask for nothing but "answer it nowhere", with a gradient that
hangs on the 1 alone. (What is answered wrongly as an absent class is missing from the right one, and costs there.) The 1 in numerator
and denominator keeps a class of few pixels from jumping; a perfect answer gives exactly 0. Class weights do not enter: every class
present counts the same already.
"""

from __future__ import annotations

from torch import Tensor

from edgeseg.core.config import TrainSection
from edgeseg.training.losses.base import known_and_index, nothing


def _sums(log_probs_NCHW: Tensor, labels_NHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(TP_C, answered_C, labelled_C)."""
    known_NHW, index_NHW = known_and_index(labels_NHW)
    probs_NCHW = log_probs_NCHW.exp()
    hit_NHW = probs_NCHW.gather(1, index_NHW.unsqueeze(1)).squeeze(1) * known_NHW
    zeros_C = log_probs_NCHW.new_zeros(log_probs_NCHW.shape[1])
    flat = index_NHW.reshape(-1)
    overlap_C = zeros_C.index_add(0, flat, hit_NHW.reshape(-1))
    labelled_C = zeros_C.index_add(0, flat, known_NHW.reshape(-1).to(zeros_C.dtype))
    # A matrix product with the mask: no masked copy of the probabilities is made.
    answered_C = (probs_NCHW.flatten(2) @ known_NHW.to(probs_NCHW.dtype).flatten(1).unsqueeze(2)).sum(dim=(0, 2))
    return overlap_C, answered_C, labelled_C


def _one_minus_mean(score_C: Tensor, labelled_C: Tensor, log_probs_NCHW: Tensor) -> Tensor:
    present_C = labelled_C > 0
    if not bool(present_C.any()):
        return nothing(log_probs_NCHW)
    return 1 - score_C[present_C].mean()


def dice(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection) -> Tensor:
    """1 - mean of (2 TP + 1) / (answered + labelled + 1) (V-Net, 1606.04797, with plain sums in the denominator as in nnU-Net).

    Mean over the classes present in the batch; 255 does not count.
    """
    overlap_C, answered_C, labelled_C = _sums(log_probs_NCHW, labels_NHW)
    return _one_minus_mean((2 * overlap_C + 1) / (answered_C + labelled_C + 1), labelled_C, log_probs_NCHW)


def iou(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection) -> Tensor:
    """1 - mean of (TP + 1) / (answered + labelled - TP + 1), the soft Jaccard index (Rahman and Wang 2016, eq. (3) and (4)).

    Mean over the classes present in the batch; 255 does not count.
    """
    overlap_C, answered_C, labelled_C = _sums(log_probs_NCHW, labels_NHW)
    return _one_minus_mean((overlap_C + 1) / (answered_C + labelled_C - overlap_C + 1), labelled_C, log_probs_NCHW)


def tversky(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection) -> Tensor:
    """1 - mean of (TP + 1) / (TP + a FP + b FN + 1), a = `tversky_alpha`, b = `tversky_beta` (Salehi et al., 1706.05721, eq. (3) and (4)).

    FP = answered - TP, FN = labelled - TP. b > a makes a missed pixel dearer than a false one; a = b = 1 is `iou`, a = b = 0.5 Dice (with
    2 in place of its 1). Mean over the classes present in the batch; 255 does not count.
    """
    overlap_C, answered_C, labelled_C = _sums(log_probs_NCHW, labels_NHW)
    false_C, missed_C = answered_C - overlap_C, labelled_C - overlap_C
    score_C = (overlap_C + 1) / (overlap_C + section.tversky_alpha * false_C + section.tversky_beta * missed_C + 1)
    return _one_minus_mean(score_C, labelled_C, log_probs_NCHW)
