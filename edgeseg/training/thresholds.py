"""Choose one threshold a class on labelled frames, for decision `thresholds` of the contract (`edgeseg.models.decide`).

The rule is the argmax of score_c - ln t_c, so choosing thresholds is choosing an offset a class. Coordinate ascent: one class's offset
at a time takes the best value of a grid, all values being counted at once, since a pixel's answer changes to class c exactly where its
offset passes (best score of the others) - score_c. Reweighting a multi-class classifier this way after training is Lachiche and
Flach 2003 (ICML, section 3).

Legend: P = pixels, C = classes, G = values of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeseg.core.images import IGNORE_INDEX, ClassMap, label_to_model, to_frame, to_model
from edgeseg.core.manifest import Contract
from edgeseg.core.metrics import Confusion, confusion_matrix, score
from edgeseg.data.store import FrameStore
from edgeseg.models import decide, normalise, upsample_logits
from edgeseg.training.evaluate import evaluate, torch_predictor

MAX_SCORES: Final = 16_000_000
"""Scores kept to choose with (64 MB): where there are more, every k-th row and column of each frame."""
GRID: Final = np.arange(-100, 101) / 20.0
"""Offsets tried: -5 to 5 in steps of 0.05, which is 1.2 percentage points of probability near one half."""
MAX_ROUNDS: Final = 10

METRICS: Final = ("iou", "dice", "accuracy")
"""What thresholds can be chosen for; the choices of `[decision] metric`."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A contract with its thresholds, and what they changed on the frames they were chosen on (at frame size)."""

    contract: Contract
    metric: str
    before: float
    """With plain argmax."""
    after: float


def choose_decision(
    net: nn.Module, store: FrameStore, contract: Contract, *, num_classes: int, metric: str,
    on_frame: Callable[[int, int], None] | None = None,
) -> Choice:
    """Choose thresholds for `metric` (one of `METRICS`, mean over the classes that occur) on the frames of `store`.

    Two classes get decision `threshold`, more get `thresholds`. Chosen at model size on the pixels of `MAX_SCORES`; taken only if
    they are better at frame size as well, else the thresholds are equal, which is argmax.
    """
    argmax = replace(contract, decision="argmax", threshold=None, thresholds=None)
    scores_PC, labels_P, confusion = _collect(net, store, argmax, num_classes, on_frame)
    before = value_of(confusion, metric)
    chosen = with_thresholds(argmax, choose_thresholds(scores_PC, labels_P, metric=metric))
    after = value_of(evaluate(torch_predictor(net, chosen), store, chosen, num_classes).sum(axis=0), metric)
    if after <= before:
        return Choice(contract=with_thresholds(argmax, (1 / num_classes,) * num_classes), metric=metric, before=before, after=before)
    return Choice(contract=chosen, metric=metric, before=before, after=after)


def with_thresholds(contract: Contract, thresholds: tuple[float, ...]) -> Contract:
    """Give the contract these thresholds, one a class; for two classes as the single threshold of class 1, which says the same."""
    if len(thresholds) == 2:
        return replace(contract, decision="threshold", threshold=thresholds[1], thresholds=None)
    return replace(contract, decision="thresholds", threshold=None, thresholds=thresholds)


def value_of(confusion_CC: Confusion, metric: str) -> float:
    """The metric of a confusion matrix, in 0..1."""
    result = score(confusion_CC)
    return {"iou": result.miou, "dice": result.mean_dice, "accuracy": result.pixel_accuracy}[metric]


def choose_thresholds(scores_PC: NDArray[np.float32], labels_P: NDArray[np.uint8], *, metric: str) -> tuple[float, ...]:
    """Thresholds that sum to 1, the best found for `metric` on these labelled pixels; equal ones where nothing beats argmax."""
    num_classes = scores_PC.shape[1]
    offsets_C = np.zeros(num_classes)
    best = value_of(confusion_matrix(scores_PC.argmax(axis=1).astype(np.uint8), labels_P, num_classes=num_classes), metric)
    for _ in range(MAX_ROUNDS):
        start = best
        for c in range(num_classes):
            values_G = _values_of_offsets(scores_PC + offsets_C.astype(np.float32), scores_PC[:, c], labels_P, c, metric)
            here = int(np.argmax(values_G))
            if values_G[here] > best + 1e-6:
                best, offsets_C[c] = float(values_G[here]), GRID[here]
        if best <= start:
            break
    shares_C = np.exp(-(offsets_C - offsets_C.min()))
    return tuple(float(share) for share in shares_C / shares_C.sum())


def _values_of_offsets(
    shifted_PC: NDArray[np.float32], plain_P: NDArray[np.float32], labels_P: NDArray[np.uint8], c: int, metric: str
) -> NDArray[np.float64]:
    """The metric, [G], for every offset of class `c` in `GRID`, the other classes' scores being as in `shifted_PC`."""
    num_classes = shifted_PC.shape[1]
    shifted_PC[:, c] = -np.inf
    rival_P = shifted_PC.argmax(axis=1)
    needed_P = shifted_PC[np.arange(len(rival_P)), rival_P] - plain_P
    # The answer is c from the first grid value above `needed` on.
    first_P = np.searchsorted(GRID, needed_P, side="right")
    flat_P = (first_P * num_classes + labels_P) * num_classes + rival_P
    counts_GCC = np.bincount(flat_P, minlength=(len(GRID) + 1) * num_classes**2).reshape(len(GRID) + 1, num_classes, num_classes)
    moved_GCC = counts_GCC.cumsum(axis=0)[:-1]
    rest_GCC = counts_GCC.sum(axis=0) - moved_GCC
    hit_GC = np.diagonal(rest_GCC, axis1=1, axis2=2).copy()
    hit_GC[:, c] = moved_GCC[:, c].sum(axis=1)
    answered_GC = rest_GCC.sum(axis=1)
    answered_GC[:, c] = moved_GCC.sum(axis=(1, 2))
    labelled_C = np.bincount(labels_P, minlength=num_classes)
    if metric == "accuracy":
        return np.asarray(hit_GC.sum(axis=1) / labelled_C.sum())
    present = labelled_C > 0
    both_GC = (labelled_C + answered_GC)[:, present]
    hit_GC = hit_GC[:, present]
    value_GC = hit_GC / (both_GC - hit_GC) if metric == "iou" else 2 * hit_GC / both_GC
    return np.asarray(value_GC.mean(axis=1))


def _collect(
    net: nn.Module, store: FrameStore, contract: Contract, num_classes: int, on_frame: Callable[[int, int], None] | None
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Confusion]:
    """Scores and labels of the pixels to choose with, at model size, and the confusion matrix of argmax at frame size."""
    net = net.cpu().float().eval()
    size_hw = (contract.height, contract.width)
    every = max(1, math.ceil(math.sqrt(len(store) * size_hw[0] * size_hw[1] * num_classes / MAX_SCORES)))
    scores: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.uint8]] = []
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    for i in range(len(store)):
        frame_HWC, label_HW = store[i]
        placement = contract.place((label_HW.shape[0], label_HW.shape[1]))
        answers: list[ClassMap] = []
        for part_hwc, part_label_hw in zip(to_model(frame_HWC, placement), label_to_model(label_HW, placement), strict=True):
            with torch.inference_mode():
                logits_1Chw = upsample_logits(net(normalise(torch.from_numpy(np.array(part_hwc)).unsqueeze(0))), size_hw)
                answers.append(decide(logits_1Chw, contract)[0].numpy())
            scores_hwC = _two_scores(logits_1Chw[0].permute(1, 2, 0).numpy())
            # Another phase each frame, so that no row or column is left out of all of them.
            picked = np.s_[i // every % every :: every, i % every :: every]
            known = part_label_hw[picked] != IGNORE_INDEX
            scores.append(scores_hwC[picked][known])
            labels.append(part_label_hw[picked][known])
        confusion += confusion_matrix(to_frame(answers, placement), label_HW, num_classes=num_classes)
        if on_frame is not None:
            on_frame(i + 1, len(store))
    return np.concatenate(scores), np.concatenate(labels), confusion


def _two_scores(scores_hwC: NDArray[np.float32]) -> NDArray[np.float32]:
    """One score a pixel as the two it stands for."""
    return np.concatenate([np.zeros_like(scores_hwC), scores_hwC], axis=2) if scores_hwC.shape[2] == 1 else scores_hwC
