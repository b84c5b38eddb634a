"""Polygons and run lengths of COCO: checked first, then drawn, polygons by pycocotools.

pycocotools takes what it is given: run lengths that do not add up, or a polygon far outside the frame, end in memory it does not own. So
nothing reaches it unchecked. Format: https://cocodataset.org/#format-data and the head of pycocotools/mask.py; runs go down the columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.images import ClassMap
from edgeseg.core.instances import InstanceLabel
from edgeseg.core.lazy import require
from edgeseg.data.objects import ObjectMask, instance_label, paint

_GROUPS_A_RUN: Final = 7
"""Characters (5 bits each) a run length may take; 35 bits are more than any frame has pixels."""


@dataclass(frozen=True)
class Annotation:
    """One annotation whose `segmentation` (JSON of COCO) has passed `wrong_with`."""

    id: int
    class_index: int
    crowd: bool
    segmentation: Any


@dataclass(frozen=True)
class CocoLabel:
    """Reads the label of one image from its annotations; called with the annotation file's path, which it does not need."""

    height: int
    width: int
    annotations: tuple[Annotation, ...]

    def __call__(self, path: Path) -> ClassMap:
        """Class map uint8 [H, W]; overlaps by the rule of `edgeseg.data.objects`, crowds are 255."""
        return paint((self.height, self.width), self._objects())

    def instances(self) -> InstanceLabel:
        """Give the objects of the image; annotations without a pixel are left out."""
        return instance_label((self.height, self.width), self._objects())

    def _objects(self) -> list[ObjectMask]:
        return [ObjectMask(rasterise(one.segmentation, self.height, self.width), one.class_index, one.crowd) for one in self.annotations]


def rasterise(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:  # noqa: ANN401 - JSON that passed `wrong_with`
    """Draw polygons or run lengths: bool [H, W]."""
    if isinstance(segmentation, list):
        coder = require("pycocotools.mask", extra="train")
        drawn = coder.merge(coder.frPyObjects(segmentation, height, width))
        runs = run_lengths(drawn["counts"].decode("ascii"))
    else:
        counts = segmentation["counts"]
        runs = run_lengths(counts) if isinstance(counts, str) else counts
    # Not pycocotools' decode: it warns with numpy 2, and warnings cannot be silenced from several threads. The tests compare the two.
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(inside.reshape(width, height).T)


def wrong_with(segmentation: object, height: int, width: int) -> str:
    """Say what is wrong with a segmentation of a frame of this size; empty where it is sound."""
    if isinstance(segmentation, dict):
        return _wrong_with_runs(segmentation, height, width)
    if not isinstance(segmentation, list):
        return "has no segmentation; polygons or RLE are needed"
    if not segmentation:
        return "has an empty segmentation (a box alone does not say which pixels)"
    return next((said for polygon in segmentation if (said := _wrong_with_polygon(polygon, height, width))), "")


def _wrong_with_polygon(polygon: object, height: int, width: int) -> str:
    try:
        values = np.asarray(polygon)
    except ValueError:  # lists of different lengths inside
        return "has a polygon that is no flat list of numbers x, y, x, y, ..."
    if not isinstance(polygon, list) or values.ndim != 1 or (values.size and values.dtype.kind not in "iuf"):
        return "has a polygon that is no flat list of numbers x, y, x, y, ..."
    if values.size % 2:
        return f"has a polygon of {values.size} numbers; x and y need an even count"
    if values.size < 6:
        points = values.size // 2
        return f"has a polygon of {points} point{'' if points == 1 else 's'}; it takes 3"
    points_P2 = values.reshape(-1, 2).astype(np.float64)
    if not np.isfinite(points_P2).all():
        return "has a polygon with NaN or infinity"
    size = np.array([width, height])
    outside = np.flatnonzero(((points_P2 < -size) | (points_P2 > 2 * size)).any(axis=1))
    if outside.size:
        x, y = points_P2[outside[0]]
        return f"has a polygon with the point ({x:g}, {y:g}), far outside the {width}x{height} image"
    return ""


def _wrong_with_runs(segmentation: dict[str, object], height: int, width: int) -> str:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        return f"has an RLE of size {size}, its image is [{height}, {width}] (height, width)"
    if isinstance(counts, str):
        try:
            runs = run_lengths(counts)
        except ValueError as error:
            return f"has an RLE that {error}"
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        runs = counts
    else:
        return "has an RLE whose counts are neither whole numbers nor a string"
    if any(run < 0 for run in runs):
        return f"has an RLE with the run length {min(runs)}; none may be negative"
    if sum(runs) != height * width:
        return f"has an RLE whose runs add up to {sum(runs)} pixels; the image has {height * width} ({width}x{height})"
    return ""


def run_lengths(counts: str) -> list[int]:
    """Run lengths of a compressed RLE: 6 bits a character from '0' on, low groups first, each run after the third as a difference.

    Raises:
        ValueError: a character outside the alphabet, or an end in the middle of a run (worded to follow "an RLE that").
    """
    runs: list[int] = []
    value = groups = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"holds the character {character!r}")
        value |= (code & 31) << (5 * groups)
        groups += 1
        if groups > _GROUPS_A_RUN:
            raise ValueError("holds a run longer than any image")
        if not code & 32:  # the last group; its bit 16 is the sign
            if code & 16:
                value -= 1 << (5 * groups)
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = groups = 0
    if groups:
        raise ValueError("ends in the middle of a run")
    return runs
