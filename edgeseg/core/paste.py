"""From boxes and 28x28 masks at model size to masks at frame size: one way for every runtime, for training and for torch.

The mask of a box is a grid of samples, each at the middle of its cell. The middle of pixel (i, j) of the frame is looked up in it
bilinearly (beyond the outermost samples the value stays as it is), and the pixel belongs to the object where the probability is at
least 0.5. So an object that fills its box gets every pixel whose middle lies in the box, whatever the box's size.

Legend: K = objects, H/W = rows/columns of the frame, h/w = rows/columns of a mask inside its box, P/Q = rows/columns of a patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.errors import ConfigError
from edgeseg.core.images import Placement
from edgeseg.core.instances import Instances

MASK_THRESHOLD: Final = 0.5
"""Least probability with which a pixel belongs to an object."""

_HALF: Final = 255 * MASK_THRESHOLD


@dataclass(frozen=True)
class Patch:
    """The pixels of one object: bool [P, Q], lying at row `top` and column `left` of the frame; all others are not of it."""

    top: int
    left: int
    mask_PQ: NDArray[np.bool_]

    def on(self, frame_hw: tuple[int, int]) -> NDArray[np.bool_]:
        """The object's mask on the whole frame: bool [H, W]."""
        whole = np.zeros(frame_hw, dtype=np.bool_)
        rows, columns = self.mask_PQ.shape
        whole[self.top : self.top + rows, self.left : self.left + columns] = self.mask_PQ
        return whole


def to_frame_boxes(found: Instances, placement: Placement) -> Instances:
    """Move boxes from model size to frame size; a box may reach past the frame's border, as its mask was made for it.

    Raises:
        ConfigError: policy `tile`, which cuts objects apart.
    """
    if placement.policy == "tile":
        raise ConfigError("resize policy 'tile' cuts objects apart; set data.resize to stretch or letterbox")
    window = placement.windows[0]
    offset = np.array([window.m_left, window.m_top] * 2, dtype=np.float64)
    scale = np.array([window.width / window.m_width, window.height / window.m_height] * 2, dtype=np.float64)
    return replace(found, boxes_K4=((found.boxes_K4 - offset) * scale).astype(np.float32))


def clip_boxes(boxes_K4: NDArray[np.float32], frame_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes cut off at the frame's border, for showing and for scoring."""
    H, W = frame_hw
    return np.clip(boxes_K4, 0, np.array([W, H, W, H], dtype=np.float32)).astype(np.float32)


def paste(found: Instances, frame_hw: tuple[int, int]) -> Iterator[Patch]:
    """Masks at frame size, one object at a time, in the order of `found` (boxes in pixels of the frame)."""
    for box, mask_hw in zip(found.boxes_K4.tolist(), found.masks_Khw, strict=True):
        yield paste_one(mask_hw, (box[0], box[1], box[2], box[3]), frame_hw)


def paste_one(mask_hw: NDArray[np.uint8], box: tuple[float, float, float, float], frame_hw: tuple[int, int]) -> Patch:
    """One mask (uint8 0..255 over `box` = x0, y0, x1, y1) at frame size, by the rule at the head of this module."""
    x0, y0, x1, y1 = box
    top, rows, row_share = _taps(y0, y1, frame_hw[0], mask_hw.shape[0])
    left, columns, column_share = _taps(x0, x1, frame_hw[1], mask_hw.shape[1])
    last_row, last_column = mask_hw.shape[0] - 1, mask_hw.shape[1] - 1
    values = mask_hw.astype(np.float64)
    low, high = values[rows], values[np.minimum(rows + 1, last_row)]
    values_Pw = low + (high - low) * row_share[:, None]
    low, high = values_Pw[:, columns], values_Pw[:, np.minimum(columns + 1, last_column)]
    return Patch(top, left, low + (high - low) * column_share >= _HALF)


def _taps(start: float, end: float, length: int, cells: int) -> tuple[int, NDArray[np.int64], NDArray[np.float64]]:
    """Pixels of one axis whose middle lies in [start, end): the first of them, and for each the sample before it and its share."""
    first, stop = max(0, math.ceil(start - 0.5)), min(length, math.ceil(end - 0.5))
    if stop <= first:
        return 0, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float64)
    middles = np.arange(first, stop, dtype=np.float64) + 0.5
    position = np.clip((middles - start) * (cells / (end - start)) - 0.5, 0, cells - 1)
    before = np.floor(position).astype(np.int64)
    return first, before, position - before
