"""Segmentation metrics from one confusion matrix. A class absent from the labels is "not evaluated", never 0 or 1.

Legend: N = frames, H/W = rows/columns, C = classes; `confusion_CC[i, j]` counts pixels of label i answered j.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    pixel_accuracy: float
    num_pixels: int


def score(confusion_CC: Confusion) -> SegmentationScore:
    """Per-class IoU = TP / (TP + FP + FN), their mean over classes present in the labels, and pixel accuracy.

    Raises:
        ValueError: no labelled pixel at all.
    """
    total = int(confusion_CC.sum())
    if total == 0:
        raise ValueError("no labelled pixel to evaluate")
    hit = np.diag(confusion_CC)
    labelled, answered = confusion_CC.sum(axis=1), confusion_CC.sum(axis=0)
    union = labelled + answered - hit
    iou = tuple(float(h / u) if n > 0 else None for h, u, n in zip(hit, union, labelled, strict=True))
    present = [value for value in iou if value is not None]
    return SegmentationScore(iou=iou, miou=float(np.mean(present)), pixel_accuracy=float(hit.sum() / total), num_pixels=total)


def agreement(first: ClassMap, second: ClassMap) -> float:
    """Share of pixels with the same class, 0..1."""
    if first.shape != second.shape:
        raise ValueError(f"class maps {first.shape} and {second.shape} differ in size")
    return float(np.mean(first == second))
