"""Which anchors and boxes learn from which object, and which of them take part in a step.

Matching: Ren et al. 2015, arXiv:1506.01497, section 3.1.2. Sampling is a function of (seed, epoch, position) alone: random numbers come
from Philox (`edgeseg.data.loader.generator`), one a candidate, and the largest win. So no state has to be kept for a resumed run, how many
processes share a batch does not matter, every shape is fixed, and a GPU is never waited for.

Legend: A = candidates (anchors or proposals), G = labelled objects without crowds, Q = crowds, S = samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edgeseg.core.instances import InstanceLabel
from edgeseg.data.loader import generator
from edgeseg.models.mask_rcnn.boxes import area, intersection, iou

ANCHORS: Final = 3
PROPOSALS: Final = 4
"""Purposes of random numbers, beside those of `edgeseg.data.loader`."""
CROWD_SHARE: Final = 0.5
"""A candidate of which more than this lies in a crowd is not background: what it holds was not labelled one by one."""


class Objects(NamedTuple):
    """What is labelled in one frame, on the device."""

    boxes_G4: Tensor
    classes_G: Tensor
    masks_GHW: Tensor
    """uint8, 0 or 1."""
    crowds_Q4: Tensor


def objects_of(label: InstanceLabel, device: torch.device) -> Objects:
    """Bring a label to the device, crowds apart from objects."""
    single, crowd = np.flatnonzero(~label.crowd_N), np.flatnonzero(label.crowd_N)
    arrays = (label.boxes_N4[single], label.classes_N[single], label.masks_NHW[single].view(np.uint8), label.boxes_N4[crowd])
    return Objects(*(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays))


class Matched(NamedTuple):
    """What each candidate is to learn."""

    object_A: Tensor
    """Index of its object; 0 where it has none."""
    positive_A: Tensor
    negative_A: Tensor
    """Neither: it learns nothing."""


def match(candidates_A4: Tensor, objects: Objects, *, above: float, below: float, best_too: bool) -> Matched:
    """Match each candidate with the object it overlaps most: positive from IoU `above` on, negative under `below`.

    With `best_too`, the candidates that overlap an object most of all are positive at any IoU above 0, so that no object goes unlearnt.
    """
    if not len(objects.boxes_G4):
        nothing_A = torch.zeros(len(candidates_A4), dtype=torch.bool, device=candidates_A4.device)
        return Matched(nothing_A.long(), nothing_A, ~nothing_A & ~_in_crowd(candidates_A4, objects))
    overlap_AG = iou(candidates_A4, objects.boxes_G4)
    best_A, object_A = overlap_AG.max(dim=1)
    positive_A = best_A >= above
    if best_too:
        best_G = overlap_AG.max(dim=0).values
        is_best_AG = (overlap_AG == best_G) & (best_G > 0)
        # one that is the best of an object learns that object, even where another overlaps it more
        chosen_A, which_A = torch.where(is_best_AG, overlap_AG, torch.full_like(overlap_AG, -1.0)).max(dim=1)
        rescued_A = (chosen_A > 0) & ~positive_A
        positive_A, object_A = positive_A | rescued_A, torch.where(rescued_A, which_A, object_A)
    return Matched(object_A, positive_A, (best_A < below) & ~positive_A & ~_in_crowd(candidates_A4, objects))


def _in_crowd(candidates_A4: Tensor, objects: Objects) -> Tensor:
    if not len(objects.crowds_Q4):
        return torch.zeros(len(candidates_A4), dtype=torch.bool, device=candidates_A4.device)
    shared_A = intersection(candidates_A4, objects.crowds_Q4).max(dim=1).values
    return shared_A > CROWD_SHARE * area(candidates_A4)


class Sample(NamedTuple):
    """Candidates that take part in a step, positives first; always the same number."""

    index_S: Tensor
    positive_S: Tensor
    used_S: Tensor
    """False = filler, where the frame has too few candidates; weighs nothing."""


@dataclass(frozen=True)
class Place:
    """Where in a training a frame is seen."""

    seed: int
    epoch: int
    position: int
    """Of the frame, in its epoch."""

    def numbers(self, purpose: int, count: int, device: torch.device) -> Tensor:
        """`count` random numbers 0 <= x < 1 of their own."""
        rng = generator(self.seed, purpose=purpose, epoch=self.epoch, index=self.position)
        return torch.from_numpy(rng.random(count, dtype=np.float32)).to(device)


def sample(matched: Matched, key_A: Tensor, *, count: int, most_positive: int) -> Sample:
    """Draw `count` candidates: up to `most_positive` positives, then negatives; those with the largest keys 0 <= key < 1."""
    count, most_positive = min(count, len(key_A)), min(most_positive, len(key_A))
    none_A = torch.full_like(key_A, -1.0)
    first, index = torch.where(matched.positive_A, key_A, none_A).topk(most_positive)
    rank_A = torch.where(matched.negative_A, key_A, none_A)
    rank_A = rank_A.scatter(0, index, torch.where(first >= 0, first + 2, rank_A.gather(0, index)))
    rank_S, index_S = rank_A.topk(count)
    return Sample(index_S, rank_S >= 2, rank_S >= 0)
