"""Objects on a frame: found in frames of any size, laid over each other in one map, and drawn.

Legend: K = objects, H/W = rows/columns of the frame.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgeseg.core.images import ClassMap, Frame, Placement, to_frame, to_model
from edgeseg.core.instances import Answer, InstanceLabel, Instances, as_class_map, as_instances
from edgeseg.core.manifest import Contract
from edgeseg.core.paste import Patch, clip_boxes, paste, to_frame_boxes
from targets.runtimes.base import Session

MIN_SCORE: Final = 0.5
"""Objects below this score are not shown unless asked for; scoring and comparing look at all of them."""
OVERLAY_SHARE: Final = 0.5
Colour = tuple[int, int, int]


def find_instances(session: Session, contract: Contract, frame_HWC: Frame) -> Instances:
    """Answer one frame of any size with an instance model; boxes in pixels of the frame, perhaps past its border.

    Raises:
        ConfigError: resize policy `tile`.
    """
    placement = contract.place((frame_HWC.shape[0], frame_HWC.shape[1]))
    (model_frame,) = to_model(frame_HWC, placement)
    return to_frame_boxes(as_instances(session.run(model_frame)), placement)


def at_least(found: Instances, min_score: float) -> Instances:
    """Give the objects with at least this score."""
    kept = found.scores_K >= min_score
    return replace(
        found, boxes_K4=found.boxes_K4[kept], scores_K=found.scores_K[kept], classes_K=found.classes_K[kept],
        masks_Khw=found.masks_Khw[kept],
    )


def object_map(found: Instances, frame_hw: tuple[int, int]) -> ClassMap:
    """Which object each pixel belongs to: uint8 [H, W], 0 = none, 1 = the first of `found`; where objects overlap, the earlier one."""
    answer = np.zeros(frame_hw, dtype=np.uint8)
    for number, patch in reversed(list(enumerate(paste(found, frame_hw), start=1))):
        rows, columns = patch.mask_PQ.shape
        answer[patch.top : patch.top + rows, patch.left : patch.left + columns][patch.mask_PQ] = number
    return answer


def put_back(answers: Sequence[Answer], placement: Placement, *, min_score: float = MIN_SCORE) -> ClassMap:
    """Put answers at model size back onto the frame: the class map, or the map of the objects that have `min_score`."""
    if isinstance(answers[0], Instances):
        return object_map(at_least(to_frame_boxes(answers[0], placement), min_score), placement.frame_hw)
    return to_frame([as_class_map(answer) for answer in answers], placement)


def describe(found: Instances, classes: Sequence[str], frame_hw: tuple[int, int]) -> dict[str, Any]:
    """Give the objects as JSON values; boxes are cut off at the frame's border, `id` is the pixel value in `object_map`."""
    boxes_K4 = clip_boxes(found.boxes_K4, frame_hw)
    return {
        "height": frame_hw[0],
        "width": frame_hw[1],
        "objects": [
            {
                "id": number,
                "class": classes[int(index)],
                "class_index": int(index),
                "score": round(float(score), 6),
                "box": [round(float(v), 2) for v in box],
                "pixels": int(patch.mask_PQ.sum()),
            }
            for number, (box, score, index, patch) in enumerate(
                zip(boxes_K4, found.scores_K, found.classes_K, paste(found, frame_hw), strict=True), start=1
            )
        ],
    }


def object_colours(count: int) -> tuple[Colour, ...]:
    """Colours for `count` objects, each far from the one before (steps of the golden angle around the colour circle)."""
    turns = [(0.08 + 0.618034 * i) % 1 for i in range(count)]
    return tuple(
        (round(255 * r), round(255 * g), round(255 * b)) for r, g, b in (colorsys.hsv_to_rgb(turn, 0.75, 1.0) for turn in turns)
    )


@dataclass(frozen=True)
class Shown:
    """One object to draw."""

    patch: Patch
    box: tuple[float, float, float, float]
    words: str


def shown_found(found: Instances, classes: Sequence[str], frame_hw: tuple[int, int]) -> list[Shown]:
    """What was found, as `draw` takes it."""
    boxes = clip_boxes(found.boxes_K4, frame_hw)
    return [
        Shown(patch, _box(box), f"{classes[int(index)]} {float(score):.2f}")
        for patch, box, index, score in zip(paste(found, frame_hw), boxes, found.classes_K, found.scores_K, strict=True)
    ]


def shown_label(label: InstanceLabel, classes: Sequence[str]) -> list[Shown]:
    """What is labelled, as `draw` takes it."""
    return [
        Shown(Patch(0, 0, mask_HW), _box(box), classes[int(index)] + (" (crowd)" if crowd else ""))
        for mask_HW, box, index, crowd in zip(label.masks_NHW, label.boxes_N4, label.classes_N, label.crowd_N, strict=True)
    ]


def draw(frame_HWC: Frame, objects: Iterable[Shown]) -> Frame:
    """Blend each object's colour over its pixels, half and half, then draw its box and say what it is; the first lies on top."""
    listed = list(objects)
    colours = object_colours(len(listed))
    painted = frame_HWC.copy()
    for one, colour in reversed(list(zip(listed, colours, strict=True))):
        rows, columns = one.patch.mask_PQ.shape
        here = np.s_[one.patch.top : one.patch.top + rows, one.patch.left : one.patch.left + columns]
        pixels = frame_HWC[here][one.patch.mask_PQ]
        blended = (1 - OVERLAY_SHARE) * pixels + OVERLAY_SHARE * np.array(colour, dtype=np.float64)
        painted[here][one.patch.mask_PQ] = np.rint(blended).astype(np.uint8)
    image = Image.fromarray(painted)
    pen = ImageDraw.Draw(image)
    for one, colour in reversed(list(zip(listed, colours, strict=True))):
        x0, y0, x1, y1 = one.box
        left, top = int(x0), int(y0)
        corner = (left, top, max(left, int(np.ceil(x1)) - 1), max(top, int(np.ceil(y1)) - 1))
        pen.rectangle(corner, outline=colour)
        written = pen.textbbox((left + 2, top + 1), one.words)
        pen.rectangle((left, top, written[2] + 1, written[3] + 1), fill=colour)
        pen.text((left + 2, top + 1), one.words, fill=(0, 0, 0))
    return np.asarray(image)


def _box(box: NDArray[np.float32]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box.tolist()
    return (x0, y0, x1, y1)
