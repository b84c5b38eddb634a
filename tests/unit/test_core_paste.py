"""Masks come to frame size by one rule, and boxes by the placement of their frame."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.core.errors import ConfigError
from edgeseg.core.images import place, to_model
from edgeseg.core.instances import Instances
from edgeseg.core.paste import clip_boxes, paste, paste_one, to_frame_boxes

Box = tuple[float, float, float, float]


def naive_paste(mask: np.ndarray, box: Box, frame_hw: tuple[int, int]) -> np.ndarray:
    """The rule of edgeseg.core.paste, pixel by pixel."""
    x0, y0, x1, y1 = box
    cells_y, cells_x = mask.shape
    whole = np.zeros(frame_hw, dtype=bool)
    for row in range(frame_hw[0]):
        for column in range(frame_hw[1]):
            y, x = row + 0.5, column + 0.5
            if not (y0 <= y < y1 and x0 <= x < x1):
                continue
            v = min(max((y - y0) / (y1 - y0) * cells_y - 0.5, 0), cells_y - 1)
            u = min(max((x - x0) / (x1 - x0) * cells_x - 0.5, 0), cells_x - 1)
            i, j = int(v), int(u)
            down, right = min(i + 1, cells_y - 1), min(j + 1, cells_x - 1)
            fy, fx = v - i, u - j
            top = float(mask[i, j]) * (1 - fx) + float(mask[i, right]) * fx
            bottom = float(mask[down, j]) * (1 - fx) + float(mask[down, right]) * fx
            whole[row, column] = top * (1 - fy) + bottom * fy >= 127.5
    return whole


@pytest.mark.parametrize("box", [
    (3.0, 2.0, 31.0, 30.0), (3.3, 2.7, 40.1, 35.9), (-8.2, -3.1, 20.0, 60.0), (10.0, 10.0, 12.4, 11.2), (0.0, 0.0, 44.0, 40.0),
    (50.0, 1.0, 60.0, 9.0), (5.0, 5.0, 5.0, 9.0), (9.0, 9.0, 4.0, 4.0), (5.6, 5.6, 6.4, 6.4), (-1e7, -1e7, 1e7, 1e7),
])
def test_paste_is_exactly_the_rule(box: Box) -> None:
    rng = np.random.default_rng(1)
    blobs = rng.integers(0, 256, (7, 7), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    for mask in (rng.integers(0, 256, (28, 28), dtype=np.uint8), blobs):
        got = paste_one(mask, box, (40, 44)).on((40, 44))
        np.testing.assert_array_equal(got, naive_paste(mask, box, (40, 44)))


def test_a_full_mask_fills_its_box() -> None:
    full = np.full((28, 28), 255, dtype=np.uint8)
    patch = paste_one(full, (2, 3, 202, 153), (200, 300))
    assert (patch.top, patch.left, patch.mask_PQ.shape) == (3, 2, (150, 200))
    assert patch.mask_PQ.all()
    assert not paste_one(full // 2, (2, 3, 202, 153), (200, 300)).mask_PQ.any()  # 127 of 255 lies below one half
    assert paste_one(full // 2 + 1, (2, 3, 202, 153), (200, 300)).mask_PQ.all()


def found_of(boxes: list[Box]) -> Instances:
    count = len(boxes)
    return Instances(
        boxes_K4=np.array(boxes, dtype=np.float32).reshape(count, 4), scores_K=np.linspace(0.9, 0.5, count, dtype=np.float32),
        classes_K=np.ones(count, dtype=np.int64), masks_Khw=np.full((count, 28, 28), 255, dtype=np.uint8),
    )


@pytest.mark.parametrize("policy", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame_hw", [(90, 160), (160, 90), (64, 64), (31, 200)])
def test_boxes_come_back_to_where_the_object_is(policy: str, frame_hw: tuple[int, int]) -> None:
    frame = np.zeros((*frame_hw, 3), dtype=np.uint8)
    top, bottom, left, right = frame_hw[0] // 4, frame_hw[0] // 2, frame_hw[1] // 3, frame_hw[1] // 2
    frame[top:bottom, left:right] = 255
    placement = place(frame_hw, (256, 320), policy)
    (model_frame,) = to_model(frame, placement)
    rows, columns = np.nonzero(model_frame[:, :, 0] >= 128)
    bright = [(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
    (box,) = to_frame_boxes(found_of(bright), placement).boxes_K4
    np.testing.assert_allclose(box, (left, top, right, bottom), atol=1.01 * max(frame_hw[0] / 256, frame_hw[1] / 320))


def test_letterbox_takes_off_the_border() -> None:
    placement = place((100, 200), (100, 100), "letterbox")  # half the size, 25 rows of border above
    (box,) = to_frame_boxes(found_of([(10, 30, 40, 60)]), placement).boxes_K4
    assert box.tolist() == [20, 10, 80, 70]
    (over,) = to_frame_boxes(found_of([(10, 15, 40, 60)]), placement).boxes_K4
    assert over.tolist() == [20, -20, 80, 70]  # not cut: the mask was made for the whole box
    assert clip_boxes(over[None], (100, 200)).tolist() == [[20, 0, 80, 70]]


def test_tiles_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"set data\.resize to stretch or letterbox"):
        to_frame_boxes(found_of([(0, 0, 1, 1)]), place((100, 100), (64, 64), "tile"))


def test_nothing_found_is_nothing_pasted() -> None:
    nothing = found_of([])
    assert list(paste(to_frame_boxes(nothing, place((10, 10), (20, 20), "stretch")), (10, 10))) == []
