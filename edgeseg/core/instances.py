"""Objects one by one: what a label says of them, and what a model answers.

A model of task `instance` has two outputs of fixed size (`from_outputs` reads them): `detections`, float32 [K, 6] = x0, y0, x1, y1 in
pixels at model size, score (0 = empty slot), class; and `masks`, uint8 [K, 28, 28] = 0..255 for probability 0..1 over the box.

Legend: N = objects labelled, K = objects found, H/W = rows/columns of the frame, h/w = rows/columns of a mask inside its box.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MASK_SIZE: Final = 28
"""Rows and columns of a mask inside its box (He et al. 2017, arXiv:1703.06870)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InstanceLabel:
    """The labelled objects of one frame, at the frame's own size, upright."""

    boxes_N4: NDArray[np.float32]
    """x0, y0, x1, y1 in pixels, edges at integers: the tightest box around the mask, x1 and y1 one past its last pixel."""
    classes_N: NDArray[np.int64]
    """Index into the classes of the data set; class 0 is background and never an object."""
    masks_NHW: NDArray[np.bool_]
    """Which pixels each object has; objects may overlap."""
    crowd_N: NDArray[np.bool_]
    """A crowd is a region of objects nobody told apart: neither learned nor counted as a miss."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """The objects found in one frame, highest score first; none found = arrays of length 0."""

    boxes_K4: NDArray[np.float32]
    """x0, y0, x1, y1 in pixels (of the model's size or of the frame, as the giver says); the box covers x0 <= x < x1."""
    scores_K: NDArray[np.float32]
    """Above 0, at most 1."""
    classes_K: NDArray[np.int64]
    """Index into `manifest.classes`; class 0 is background and never an object."""
    masks_Khw: NDArray[np.uint8]
    """[K, 28, 28], 0..255 = probability 0..1, over the box: sample (i, j) lies at the middle of the cell of row i and column j."""

    def __len__(self) -> int:
        """How many objects were found."""
        return len(self.scores_K)


def from_outputs(detections_K6: NDArray[np.float32], masks_Khw: NDArray[np.uint8], *, num_classes: int) -> Instances:
    """Read the two outputs of an instance model: drop empty slots, sort by falling score (ties keep their order).

    Raises:
        ValueError: shapes differ from [K, 6] and [K, 28, 28], a value is not finite, a score above 1, or a class outside 1..C-1.
    """
    if detections_K6.ndim != 2 or detections_K6.shape[1] != 6 or masks_Khw.shape != (len(detections_K6), MASK_SIZE, MASK_SIZE):
        raise ValueError(f"detections {list(detections_K6.shape)} and masks {list(masks_Khw.shape)} are not [K, 6] and [K, 28, 28]")
    if not np.isfinite(detections_K6).all():
        raise ValueError("detections hold NaN or infinity")
    used = np.flatnonzero(detections_K6[:, 4] > 0)
    order = used[np.argsort(-detections_K6[used, 4], kind="stable")]
    found = detections_K6[order]
    classes = np.rint(found[:, 5]).astype(np.int64)
    if len(order) and (found[0, 4] > 1 or classes.min() < 1 or classes.max() >= num_classes):
        raise ValueError(
            f"a score of {found[0, 4]:.3g} or classes {classes.min()}..{classes.max()} outside 1..{num_classes - 1}"
        )
    return Instances(
        boxes_K4=found[:, :4].astype(np.float32), scores_K=found[:, 4].astype(np.float32), classes_K=classes,
        masks_Khw=np.ascontiguousarray(masks_Khw[order]),
    )
