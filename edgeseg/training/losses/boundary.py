"""The boundary loss: what is answered on the wrong side of a class's outline costs its distance from it.

Distance maps are computed here, in torch, and not by scipy: scipy comes with [export] only, and labels are augmented anew each step,
so a map can neither be kept nor be worth a copy from the GPU and back. Two passes (Saito and Toriwaki 1994), exact up to
`RADIUS`, beyond which a distance counts as `RADIUS`: that bounds the work at 2 RADIUS + 1 comparisons a pixel and keeps a far
blunder from drowning all else.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.core.config import TrainSection
from edgeseg.core.images import IGNORE_INDEX
from edgeseg.training.losses.base import nothing

RADIUS: Final = 16
"""Pixels (of those the loss is taken at) at which a distance stops growing."""


def boundary(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection) -> Tensor:
    """Mean over labelled pixels of the mean over the frame's classes of phi_c (p_c - y_c) (Kervadec et al., 1812.07032, eq. (5) and (6)).

    phi_c in -1..1 is the signed distance from the outline of class c in units of `RADIUS`: negative inside, positive outside
    (`signed_distance`). The paper leaves the constant -phi_c y_c out; with it the loss is never negative, and 0 for a perfect answer. It
    says little while answers are poor: give it a small weight beside `ce` or `dice`. Classes that a frame's label does not
    hold do not count in that frame, nor do pixels of 255; class weights do not enter.
    """
    parts = []
    for log_probs_CHW, labels_HW in zip(log_probs_NCHW, labels_NHW, strict=True):
        known_HW = labels_HW != IGNORE_INDEX
        classes_K = torch.bincount(labels_HW[known_HW]).nonzero().flatten()
        if classes_K.numel() == 0:
            continue
        is_class_KHW = labels_HW == classes_K.view(-1, 1, 1)
        phi_KHW = signed_distance(is_class_KHW, known_HW).to(log_probs_CHW.dtype)
        off_KHW = log_probs_CHW[classes_K].exp() - is_class_KHW.to(log_probs_CHW.dtype)
        parts.append((phi_KHW * off_KHW * known_HW).sum() / classes_K.numel())
    if not parts:
        return nothing(log_probs_NCHW)
    return torch.stack(parts).sum() / (labels_NHW != IGNORE_INDEX).sum()


@torch.no_grad()
def signed_distance(is_class_KHW: Tensor, known_HW: Tensor, *, radius: int = RADIUS) -> Tensor:
    """Distance from each class's outline, in units of `radius`: float32 [K, H, W] in -1..1, negative inside.

    Outside it is the distance to the nearest pixel of the class, inside to the nearest labelled pixel of another, minus half a
    pixel, since the outline runs between the two. Unlabelled pixels make no outline.
    """
    to_class_KHW = distance(is_class_KHW, radius=radius)
    to_others_KHW = distance(~is_class_KHW & known_HW, radius=radius)
    outside_KHW = (to_class_KHW - 0.5).where(~is_class_KHW, 0.5 - to_others_KHW)
    return outside_KHW / (radius - 0.5)


@torch.no_grad()
def distance(target_KHW: Tensor, *, radius: int) -> Tensor:
    """Euclidean distance to the nearest true pixel, float32 [K, H, W] in pixels, at most `radius`."""
    height, width = target_KHW.shape[1:]
    rows_H1 = torch.arange(height, device=target_KHW.device, dtype=torch.float32).view(-1, 1)
    far = float(2 * (height + width))
    above_KHW = rows_H1 - rows_H1.where(target_KHW, -far).cummax(dim=1).values
    below_KHW = rows_H1.where(target_KHW, far).flip(1).cummin(dim=1).values.flip(1) - rows_H1
    squared_KHW = torch.minimum(above_KHW, below_KHW).clamp(max=radius).square()
    padded_KHW = F.pad(squared_KHW, (radius, radius), value=float(radius * radius))
    best_KHW, other_KHW = squared_KHW, torch.empty_like(squared_KHW)
    for shift in range(1, radius):
        left, right = radius - shift, radius + shift
        torch.minimum(padded_KHW[:, :, left : left + width], padded_KHW[:, :, right : right + width], out=other_KHW)
        torch.minimum(best_KHW, other_KHW.add_(float(shift * shift)), out=best_KHW)
    return best_KHW.sqrt_()
