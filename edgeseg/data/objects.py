"""Objects with a mask each: the class map they make together, and the label a network of instances learns from.

Where objects overlap, the smaller one is on top, since it would vanish otherwise; of two of the same area the later one. Crowds lie below
everything and are ignored. A mask without a pixel is no object.

Legend: N = objects, H/W = rows/columns of the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.images import IGNORE_INDEX, ClassMap
from edgeseg.core.instances import InstanceLabel


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """One object: bool [H, W], its class, and whether it is a crowd. Class 0 covers what is below it and is no instance."""

    mask_HW: NDArray[np.bool_]
    class_index: int
    crowd: bool = False


def paint(hw: tuple[int, int], objects: Sequence[ObjectMask]) -> ClassMap:
    """Give the class map of `objects` on background, uint8 [H, W], by the rule at the head of this module."""
    label = np.zeros(hw, dtype=np.uint8)
    for one in sorted(objects, key=lambda one: (not one.crowd, -int(np.count_nonzero(one.mask_HW)))):
        label[one.mask_HW] = IGNORE_INDEX if one.crowd and one.class_index else one.class_index
    return label


def instance_label(hw: tuple[int, int], objects: Sequence[ObjectMask]) -> InstanceLabel:
    """Give the objects that have a class and a pixel, in their order, with the tightest boxes."""
    kept, boxes = [], []
    for one in objects:
        box = tight_box(one.mask_HW) if one.class_index else None
        if box is not None:
            kept.append(one)
            boxes.append(box)
    return InstanceLabel(
        boxes_N4=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        classes_N=np.array([one.class_index for one in kept], dtype=np.int64),
        masks_NHW=np.stack([one.mask_HW for one in kept]) if kept else np.zeros((0, *hw), dtype=np.bool_),
        crowd_N=np.array([one.crowd for one in kept], dtype=np.bool_),
    )


def tight_box(mask_HW: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 of the pixels that are set, x1 and y1 one past the last; `None` where there is none."""
    rows = np.flatnonzero(mask_HW.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(mask_HW[rows[0] : rows[-1] + 1].any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
