"""Segmentation metrics, from one confusion matrix or from outlines. A class absent from the labels is "not evaluated", never 0 or 1.

Legend: N = frames, H/W = rows/columns, C = classes; `confusion_CC[i, j]` counts pixels of label i answered j.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.images import IGNORE_INDEX, ClassMap

Confusion = NDArray[np.int64]


def confusion_matrix(pred: ClassMap, label: ClassMap, *, num_classes: int) -> Confusion:
    """Count pixels: int64 [C, C], rows = label, columns = answer; pixels labelled 255 do not count.

    Raises:
        ValueError: sizes differ, or a value lies outside the classes (labels are checked when the data is read).
    """
    if pred.shape != label.shape:
        raise ValueError(f"answer {pred.shape} and label {label.shape} differ in size")
    known = label != IGNORE_INDEX
    rows, columns = label[known].astype(np.int64), pred[known].astype(np.int64)
    if rows.size and (rows.max() >= num_classes or columns.max() >= num_classes):
        raise ValueError(f"class index {max(rows.max(), columns.max())} outside 0..{num_classes - 1}")
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class SegmentationScore:
    """What a confusion matrix says; fractions in 0..1, `None` = the class does not occur in the labels."""

    iou: tuple[float | None, ...]
    miou: float
    """Mean over the classes that occur in the labels (Everingham et al. 2010; VOC and Cityscapes do the same)."""
    dice: tuple[float | None, ...]
    """2 TP / (2 TP + FP + FN), which is also the F1 of pixels (Dice 1945)."""
    mean_dice: float
    """Mean over the same classes."""
    pixel_accuracy: float
    num_pixels: int


def score(confusion_CC: Confusion) -> SegmentationScore:
    """Per-class IoU = TP / (TP + FP + FN) and Dice, their means over classes present in the labels, and pixel accuracy.

    Raises:
        ValueError: no labelled pixel at all.
    """
    total = int(confusion_CC.sum())
    if total == 0:
        raise ValueError("no labelled pixel to evaluate")
    hit = np.diag(confusion_CC)
    labelled, answered = confusion_CC.sum(axis=1), confusion_CC.sum(axis=0)
    both = labelled + answered
    iou = tuple(float(h / (b - h)) if n > 0 else None for h, b, n in zip(hit, both, labelled, strict=True))
    dice = tuple(float(2 * h / b) if n > 0 else None for h, b, n in zip(hit, both, labelled, strict=True))
    return SegmentationScore(
        iou=iou, miou=mean_of(iou), dice=dice, mean_dice=mean_of(dice), pixel_accuracy=float(hit.sum() / total), num_pixels=total
    )


def mean_of(values: Iterable[float | None]) -> float:
    """Mean over the classes that were evaluated.

    Raises:
        ValueError: none was.
    """
    present = [value for value in values if value is not None]
    if not present:
        raise ValueError("no class to evaluate")
    return float(np.mean(present))


BOUNDARY_TOLERANCE: Final = 0.0075
"""Share of the frame's diagonal within which an outline counts as found (Csurka et al. 2013, section 4; 4.5 pixels at 360x480)."""


def outlines(class_map_HW: ClassMap) -> ClassMap:
    """Keep the class of each pixel that has another labelled class above, below, left or right of it; 255 elsewhere."""
    edge = np.zeros(class_map_HW.shape, dtype=bool)
    for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = class_map_HW[first], class_map_HW[second]
        differs = (a != b) & (a != IGNORE_INDEX) & (b != IGNORE_INDEX)
        edge[first] |= differs
        edge[second] |= differs
    return np.where(edge, class_map_HW, np.uint8(IGNORE_INDEX))


def boundary_f1(
    pred: ClassMap, label: ClassMap, *, num_classes: int, tolerance: float = BOUNDARY_TOLERANCE
) -> tuple[float | None, ...]:
    """F1 of the outlines of one frame, class by class (Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?").

    Precision = share of the pixels on the answer's outline of c (`outlines`) with a pixel of the label's outline of c at most
    `tolerance` diagonals away (at least 1 pixel; Euclidean), recall the other way round, F1 = 2 P R / (P + R). Pixels labelled 255 are
    taken out of the answer too, and nothing that borders on them is an outline, nor is the frame's border. `None` = the label does not
    hold the class. A class that fills all that is labelled has no outline: 1 where the answer has none either, else 0.

    Raises:
        ValueError: sizes differ.
    """
    if pred.shape != label.shape:
        raise ValueError(f"answer {pred.shape} and label {label.shape} differ in size")
    radius = max(1.0, tolerance * float(np.hypot(*label.shape)))
    answered = outlines(np.where(label == IGNORE_INDEX, np.uint8(IGNORE_INDEX), pred))
    labelled = outlines(label)
    found_answered, found_labelled = _found(answered, labelled, radius), _found(labelled, answered, radius)
    present = np.bincount(label.reshape(-1), minlength=256)
    values: list[float | None] = []
    for c in range(num_classes):
        (hits_a, total_a), (hits_l, total_l) = found_answered[:, c], found_labelled[:, c]
        if not present[c]:
            values.append(None)
        elif not total_a or not total_l:
            values.append(float(total_a == total_l))
        else:
            precision, recall = hits_a / total_a, hits_l / total_l
            values.append(float(2 * precision * recall / (precision + recall)) if hits_a else 0.0)
    return tuple(values)


def _found(of_HW: ClassMap, among_HW: ClassMap, radius: float) -> NDArray[np.int64]:
    """(pixels of each class's outline that lie within `radius` of the same class's outline in the other map, all of them): int64 [2, 256].

    The nearest places are looked at first and only for what is not found yet, so a good answer costs a few of them.
    """
    reach = int(radius)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    squared = (dy**2 + dx**2).reshape(-1)
    order = np.argsort(squared, kind="stable")[: int((squared <= radius**2).sum())]
    padded = np.pad(among_HW, reach, constant_values=IGNORE_INDEX)
    rows, columns = np.nonzero(of_HW != IGNORE_INDEX)
    classes = of_HW[rows, columns]
    total = np.bincount(classes, minlength=256)
    place, wanted = (rows + reach) * padded.shape[1] + columns + reach, classes
    flat = padded.reshape(-1)
    for offset in (dy.reshape(-1) * padded.shape[1] + dx.reshape(-1))[order]:
        missing = flat[place + offset] != wanted
        place, wanted = place[missing], wanted[missing]
        if not place.size:
            break
    return np.stack([total - np.bincount(wanted, minlength=256), total])


def mean_boundary_f1(frames: Sequence[Sequence[float | None]]) -> tuple[float | None, ...]:
    """Mean of each class over the frames whose label holds it (as the paper averages); `None` where none does."""
    return tuple(mean_of(values) if any(v is not None for v in values) else None for values in zip(*frames, strict=True))


def agreement(first: ClassMap, second: ClassMap) -> float:
    """Share of pixels with the same class, 0..1."""
    if first.shape != second.shape:
        raise ValueError(f"class maps {first.shape} and {second.shape} differ in size")
    return float(np.mean(first == second))
