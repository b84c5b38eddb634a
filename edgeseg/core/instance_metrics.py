"""How good found objects are (COCO's average precision), and how alike two answers are.

Average precision is pycocotools' own: for each class, detections of all frames by falling score are matched with the labelled objects at
IoU 0.50, 0.55 ... 0.95; precision is read off at 101 recalls and averaged (https://cocodataset.org/#detection-eval). A class without a
labelled object is "not evaluated" (`None`), never 0 or 1; crowds are neither missed nor found. At most 100 detections a frame count.

Legend: K = objects found, N = objects labelled, H/W = rows/columns of the frame, C = classes (0 = background).
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.instances import InstanceLabel, Instances
from edgeseg.core.lazy import require
from edgeseg.core.paste import clip_boxes, paste

COUNTED_SCORE: Final = 0.05
"""Agreement looks at detections that have this score in either answer: what lies below is never shown and seldom matters to AP."""
SAME_IOU: Final = 0.9
SAME_SCORE: Final = 0.01

_MAX_DETECTIONS: Final = 100
_HALF: Final = 128
"""Least value of a mask's sample (0..255) that says "of the object"."""


@dataclass(frozen=True, kw_only=True)
class InstanceScore:
    """What the detections of a split are worth; fractions in 0..1."""

    ap: float
    """Mask AP, mean over IoU 0.50 to 0.95 and over the classes that occur."""
    ap50: float
    """Mask AP at IoU 0.50."""
    class_ap: tuple[float | None, ...]
    """Mask AP of each class; `None` = background, or the class does not occur in the labels."""
    box_ap: float
    box_ap50: float
    num_objects: int
    """Labelled objects, crowds not counted."""


class ApCounter:
    """Collects frames one by one, then scores all of them; masks are kept as run lengths."""

    def __init__(self, num_classes: int) -> None:
        """Start with no frames.

        Raises:
            MissingExtraError: pycocotools is not installed.
        """
        self._coder = require("pycocotools.mask", extra="coco")
        self._num_classes = num_classes
        self._images: list[dict[str, Any]] = []
        self._labelled: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def add(self, found: Instances, label: InstanceLabel, frame_hw: tuple[int, int]) -> None:
        """Add a frame: what was found (boxes in pixels of the frame, perhaps past its border) and what is labelled."""
        image = len(self._images) + 1
        self._images.append({"id": image, "height": frame_hw[0], "width": frame_hw[1]})
        for box, class_index, mask_HW, crowd in zip(label.boxes_N4, label.classes_N, label.masks_NHW, label.crowd_N, strict=True):
            self._labelled.append(self._entry(image, len(self._labelled) + 1, box, int(class_index), mask_HW) | {"iscrowd": int(crowd)})
        boxes_K4 = clip_boxes(found.boxes_K4, frame_hw)
        for box, class_index, score, patch in zip(boxes_K4, found.classes_K, found.scores_K, paste(found, frame_hw), strict=True):
            entry = self._entry(image, len(self._found) + 1, box, int(class_index), patch.on(frame_hw))
            self._found.append(entry | {"iscrowd": 0, "score": float(score)})

    def score(self) -> InstanceScore:
        """Score every frame added so far.

        Raises:
            ValueError: no labelled object (but for crowds) in any of them.
        """
        num_objects = sum(not entry["iscrowd"] for entry in self._labelled)
        if not num_objects:
            raise ValueError("no labelled object to evaluate")
        masks, boxes = self._precision("segm"), self._precision("bbox")
        class_ap = tuple(_mean(masks[:, :, i - 1]) if i else None for i in range(self._num_classes))
        return InstanceScore(
            ap=_sure(_mean(masks)), ap50=_sure(_mean(masks[:1])), class_ap=class_ap, box_ap=_sure(_mean(boxes)),
            box_ap50=_sure(_mean(boxes[:1])), num_objects=num_objects,
        )

    def _entry(self, image: int, number: int, box: NDArray[np.float32], class_index: int, mask_HW: NDArray[np.bool_]) -> dict[str, Any]:
        runs = self._coder.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
        x0, y0, x1, y1 = (float(v) for v in box)
        return {
            "id": number, "image_id": image, "category_id": class_index, "segmentation": runs, "area": float(self._coder.area(runs)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }

    def _precision(self, kind: str) -> NDArray[np.float64]:
        """Precision by threshold of IoU, recall and class (from 1); -1 where the class has no labelled object."""
        with contextlib.redirect_stdout(io.StringIO()):  # it tells its story on stdout
            evaluation = require("pycocotools.cocoeval", extra="coco").COCOeval(
                self._coco(self._labelled), self._coco(self._found), kind,
            )
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.params.maxDets = [_MAX_DETECTIONS]
            evaluation.evaluate()
            evaluation.accumulate()
        precision: NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0, 0]
        return precision

    def _coco(self, entries: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - an object of pycocotools
        coco = require("pycocotools.coco", extra="coco").COCO()
        categories = [{"id": i, "name": str(i)} for i in range(1, self._num_classes)]
        # copies: the evaluation writes into them
        coco.dataset = {"images": self._images, "categories": categories, "annotations": [dict(entry) for entry in entries]}
        coco.createIndex()
        return coco


def _mean(precision: NDArray[np.float64]) -> float | None:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def _sure(value: float | None) -> float:
    assert value is not None, "there is a labelled object, so some class is evaluated"
    return value


@dataclass(frozen=True, kw_only=True)
class Matches:
    """How two answers to one frame compare. Sum over frames, then take `share`."""

    same: int
    """Objects that are in both."""
    total: int
    """Objects that are in either; one that is in both counts once."""

    def __add__(self, other: Matches) -> Matches:
        """Both frames together."""
        return Matches(same=self.same + other.same, total=self.total + other.total)

    @property
    def share(self) -> float | None:
        """Share of objects that are in both; `None` where neither found any."""
        return self.same / self.total if self.total else None


def match(first: Instances, second: Instances, *, score_tolerance: float | None = SAME_SCORE) -> Matches:
    """Match objects of two answers one to one, at model size.

    Two objects are the same if their class is, their boxes have an IoU of at least 0.9, their masks (28x28, cut at 0.5) too, and
    their scores differ by at most `score_tolerance` (`None`: by any). Objects of `first` choose by falling score, each the free partner
    with the highest IoU of boxes. Only objects with a score of at least 0.05 count; a pair counts if one of it has that.
    """
    overlap_KL = box_iou(first.boxes_K4, second.boxes_K4)
    alike_KL = (overlap_KL >= SAME_IOU) & (first.classes_K[:, None] == second.classes_K[None, :])
    if score_tolerance is not None:
        # half an ulp of slack: a difference of exactly the tolerance is within it
        alike_KL &= np.abs(first.scores_K[:, None].astype(np.float64) - second.scores_K[None, :]) <= score_tolerance + 1e-7
    free_L = np.ones(len(second), dtype=np.bool_)
    counts_K, counts_L = first.scores_K >= COUNTED_SCORE, second.scores_K >= COUNTED_SCORE
    same, pairs = 0, []
    for i in np.argsort(-first.scores_K, kind="stable"):
        partners = [
            j for j in np.flatnonzero(alike_KL[i] & free_L) if _mask_iou(first.masks_Khw[i], second.masks_Khw[j]) >= SAME_IOU
        ]
        if partners:
            best = partners[int(np.argmax(overlap_KL[i, partners]))]
            free_L[best] = False
            pairs.append((i, best))
    for i, j in pairs:
        same += bool(counts_K[i] or counts_L[j])
        counts_K[i] = counts_L[j] = False
    return Matches(same=same, total=same + int(counts_K.sum()) + int(counts_L.sum()))


def box_iou(first_K4: NDArray[np.float32], second_L4: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of every pair of boxes: float64 [K, L]; 0 where both are empty."""
    first, second = first_K4.astype(np.float64), second_L4.astype(np.float64)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared_KL = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (first, second)]
    union_KL = areas[0][:, None] + areas[1][None, :] - shared_KL
    overlap_KL: NDArray[np.float64] = np.divide(shared_KL, union_KL, out=np.zeros_like(shared_KL), where=union_KL > 0)
    return overlap_KL


def _mask_iou(first_hw: NDArray[np.uint8], second_hw: NDArray[np.uint8]) -> float:
    """IoU of two masks inside their boxes, cut at 0.5; 1 where both are empty."""
    a, b = first_hw >= _HALF, second_hw >= _HALF
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
