"""Losses that look at one pixel at a time: cross-entropy (with label smoothing and hard pixels), binary cross-entropy, focal."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.core.config import TrainSection
from edgeseg.core.images import IGNORE_INDEX
from edgeseg.training.losses.base import known_and_index, nothing, of_label, tiny, weighted_mean


def cross_entropy(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection) -> Tensor:
    """-sum w_y log p_y / sum w_y over the pixels kept.

    Kept are the labelled pixels; with `ohem` > 0 the hard ones among them (`hard_pixels`). With `label_smoothing` = e the target of a
    pixel is 1 - e + e/C for its label and e/C for the others (Szegedy et al., 1512.00567, section 7), each class's part times its own
    weight, as in PyTorch. 255 does not count; an absent class pulls nothing towards it and is pushed down as any other.
    """
    if section.ohem > 0:
        labels_NHW = hard_pixels(log_probs_NCHW, labels_NHW, below=section.ohem, least_share=section.ohem_keep)
    if not bool((labels_NHW != IGNORE_INDEX).any()):
        return nothing(log_probs_NCHW)
    if section.label_smoothing > 0:
        # The softmax of log-probabilities is those probabilities again.
        return F.cross_entropy(log_probs_NCHW, labels_NHW, class_weights_C, ignore_index=IGNORE_INDEX,
                               label_smoothing=section.label_smoothing)
    return F.nll_loss(log_probs_NCHW, labels_NHW, class_weights_C, ignore_index=IGNORE_INDEX)


@torch.no_grad()
def hard_pixels(log_probs_NCHW: Tensor, labels_NHW: Tensor, *, below: float, least_share: float) -> Tensor:
    """Give the labels with 255 at the easy pixels (online hard example mining, Shrivastava et al., 1604.03540, on pixels).

    Hard are pixels whose label has a probability of at most `below`, and in any case the `least_share` of the batch's labelled pixels
    with the lowest probability (the thresholded form that BiSeNet and PIDNet train with).
    """
    known_NHW, index_NHW = known_and_index(labels_NHW)
    of_label_NHW = of_label(log_probs_NCHW, index_NHW)
    candidates = of_label_NHW[known_NHW]
    if candidates.numel() == 0:
        return labels_NHW
    least = max(1, math.ceil(least_share * candidates.numel()))
    limit = torch.clamp(candidates.kthvalue(least).values, min=math.log(below))
    return labels_NHW.where(of_label_NHW <= limit, IGNORE_INDEX)


def binary_cross_entropy(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection) -> Tensor:
    """Each class against the rest: -mean_c (y_c log p_c + (1 - y_c) log(1 - p_c)), then the mean over labelled pixels, weighted by w_y.

    With two classes both terms are equal and it is the binary cross-entropy of one score (a network of one score a pixel counts as two:
    0 and the score), which is also their cross-entropy. With more, every wrong class is pushed down for itself. 255 does not
    count; an absent class is "the rest" everywhere, so it is learnt to be absent.
    """
    known_NHW, index_NHW = known_and_index(labels_NHW)
    if not bool(known_NHW.any()):
        return nothing(log_probs_NCHW)
    right_NHW = of_label(log_probs_NCHW, index_NHW)
    if log_probs_NCHW.shape[1] == 2:
        return weighted_mean(-right_NHW, labels_NHW, class_weights_C)
    log_rest_NCHW = (-torch.expm1(log_probs_NCHW)).clamp(min=tiny(log_probs_NCHW)).log()
    others_NHW = log_rest_NCHW.sum(dim=1) - of_label(log_rest_NCHW, index_NHW)
    return weighted_mean(-(right_NHW + others_NHW) / log_probs_NCHW.shape[1], labels_NHW, class_weights_C)


def focal(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection) -> Tensor:
    """-(1 - p_y)^g log p_y, g = `focal_gamma`, mean over labelled pixels weighted by w_y (Lin et al., 1708.02002, eq. (5), softmax form).

    g = 0 is the cross-entropy. The paper divides by the number of objects; pixels are divided by their weights, as in cross-entropy.
    255 does not count; an absent class has no pixel of its own.
    """
    known_NHW, index_NHW = known_and_index(labels_NHW)
    if not bool(known_NHW.any()):
        return nothing(log_probs_NCHW)
    right_NHW = of_label(log_probs_NCHW, index_NHW)
    wrong_NHW = (-torch.expm1(right_NHW)).clamp(min=tiny(right_NHW))
    return weighted_mean(-(wrong_NHW ** section.focal_gamma) * right_NHW, labels_NHW, class_weights_C)
