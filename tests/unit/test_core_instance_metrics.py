"""AP against a count by hand, and when two objects are the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeseg.core.instance_metrics import ApCounter, Matches, box_iou, match
from edgeseg.core.instances import InstanceLabel, Instances

HW = (60, 80)
Box = tuple[int, int, int, int]


def label_of(objects: list[tuple[Box, int]], *, crowd: tuple[int, ...] = ()) -> InstanceLabel:
    masks = np.zeros((len(objects), *HW), dtype=bool)
    for mask, ((x0, y0, x1, y1), _) in zip(masks, objects, strict=True):
        mask[y0:y1, x0:x1] = True
    return InstanceLabel(
        boxes_N4=np.array([box for box, _ in objects], np.float32).reshape(-1, 4),
        classes_N=np.array([index for _, index in objects], np.int64),
        masks_NHW=masks, crowd_N=np.isin(np.arange(len(objects)), crowd),
    )


def found_of(objects: list[tuple[Box, int, float]], *, mask: int = 255) -> Instances:
    count = len(objects)
    return Instances(
        boxes_K4=np.array([box for box, _, _ in objects], np.float32).reshape(count, 4),
        scores_K=np.array([score for _, _, score in objects], np.float32),
        classes_K=np.array([index for _, index, _ in objects], np.int64), masks_Khw=np.full((count, 28, 28), mask, np.uint8),
    )


A, B, C = (0, 0, 20, 20), (30, 0, 50, 20), (0, 30, 20, 50)
ELSEWHERE = (60, 40, 75, 55)


def test_all_found_is_one() -> None:
    counter = ApCounter(3)
    counter.add(found_of([(A, 1, 0.9), (B, 2, 0.8)]), label_of([(A, 1), (B, 2)]), HW)
    score = counter.score()
    assert (score.ap, score.ap50, score.box_ap, score.box_ap50) == pytest.approx((1, 1, 1, 1))
    assert score.class_ap == (None, pytest.approx(1), pytest.approx(1))
    assert score.num_objects == 2


def test_ap50_by_hand() -> None:
    """Two objects; by falling score: found, elsewhere, found. Precision 1 up to recall 0.5 (51 of the 101 recalls), then 2/3."""
    counter = ApCounter(2)
    counter.add(found_of([(A, 1, 0.9), (ELSEWHERE, 1, 0.8), (B, 1, 0.7)]), label_of([(A, 1), (B, 1)]), HW)
    by_hand = (51 * 1 + 50 * 2 / 3) / 101
    score = counter.score()
    assert score.ap50 == pytest.approx(by_hand)
    assert score.ap == pytest.approx(by_hand)  # the two fit exactly, so every IoU says the same


def test_iou_thresholds_by_hand() -> None:
    """A mask that has 16 of the object's 20 columns: IoU 0.8, so found at 0.50 to 0.80 (7 of 10 thresholds)."""
    counter = ApCounter(2)
    counter.add(found_of([((0, 0, 16, 20), 1, 0.9)]), label_of([(A, 1)]), HW)
    score = counter.score()
    assert score.ap == pytest.approx(0.7)
    assert score.ap50 == pytest.approx(1)


def test_masks_not_boxes_make_mask_ap() -> None:
    counter = ApCounter(2)
    found = found_of([(A, 1, 0.9)])
    half = found.masks_Khw.copy()
    half[:, :, 12:] = 0  # 12 of 28 columns: IoU well below 0.5
    counter.add(replace(found, masks_Khw=half), label_of([(A, 1)]), HW)
    score = counter.score()
    assert score.ap50 == 0
    assert score.box_ap == pytest.approx(1)


def test_false_alarms_of_empty_frames_count_and_absent_classes_do_not() -> None:
    counter = ApCounter(4)
    counter.add(found_of([(A, 1, 0.5), (A, 3, 0.9)]), label_of([(A, 1)]), HW)
    counter.add(found_of([(A, 1, 0.9)]), label_of([]), HW)
    score = counter.score()
    assert score.ap50 == pytest.approx(0.5)  # the false alarm comes first, so precision is 1/2 at every recall
    assert score.class_ap == (None, pytest.approx(0.5), None, None)


def test_crowds_are_neither_missed_nor_found() -> None:
    counter = ApCounter(2)
    counter.add(found_of([(A, 1, 0.8), (B, 1, 0.9)]), label_of([(A, 1), (B, 1), (C, 1)], crowd=(1, 2)), HW)
    assert counter.score().ap == pytest.approx(1)
    assert counter.score().num_objects == 1


def test_boxes_are_cut_off_at_the_border_for_scoring() -> None:
    counter = ApCounter(2)
    counter.add(found_of([((-20, 0, 20, 20), 1, 0.9)]), label_of([(A, 1)]), HW)
    assert counter.score().box_ap == pytest.approx(1)
    assert counter.score().ap == pytest.approx(1)


def test_nothing_labelled_cannot_be_scored(capsys: pytest.CaptureFixture[str]) -> None:
    counter = ApCounter(2)
    counter.add(found_of([(A, 1, 0.9)]), label_of([(B, 1)], crowd=(0,)), HW)
    with pytest.raises(ValueError, match="no labelled object"):
        counter.score()
    counter.add(found_of([]), label_of([(B, 1)]), HW)
    assert counter.score().ap == 0
    assert capsys.readouterr().out == ""  # pycocotools prints; nobody asked


def test_box_iou_by_hand() -> None:
    first = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], np.float32)
    second = np.array([[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    np.testing.assert_allclose(box_iou(first, second), [[1 / 3, 1, 0], [0, 0, 0]])


BASE = [(A, 1, 0.9), (B, 2, 0.5), (C, 1, 0.3)]


@pytest.mark.parametrize(("other", "same", "total"), [
    (BASE, 3, 3),
    (BASE[::-1], 3, 3),
    ([(A, 1, 0.9), (B, 2, 0.5)], 2, 3),
    ([*BASE, (ELSEWHERE, 1, 0.06)], 3, 4),
    ([*BASE, (ELSEWHERE, 1, 0.04)], 3, 3),
    ([(A, 1, 0.89), *BASE[1:]], 3, 3),
    ([(A, 1, 0.889), *BASE[1:]], 2, 4),
    ([(A, 2, 0.9), *BASE[1:]], 2, 4),
    ([((0, 0, 19, 20), 1, 0.9), *BASE[1:]], 3, 3),
    ([((0, 0, 17, 20), 1, 0.9), *BASE[1:]], 2, 4),
    ([(A, 1, 0.9), (A, 1, 0.9), *BASE[1:]], 3, 4),
], ids=["equal", "order", "missed", "new", "faint", "score", "score-far", "class", "box", "box-far", "twice"])
def test_same_objects_by_hand(other: list[tuple[Box, int, float]], same: int, total: int) -> None:
    assert match(found_of(BASE), found_of(other)) == Matches(same=same, total=total)
    assert match(found_of(other), found_of(BASE)) == Matches(same=same, total=total)


def test_a_pair_counts_if_one_of_it_has_the_score() -> None:
    assert match(found_of([(A, 1, 0.051)]), found_of([(A, 1, 0.049)])) == Matches(same=1, total=1)
    assert match(found_of([(A, 1, 0.049)]), found_of([(A, 1, 0.048)])) == Matches(same=0, total=0)


def test_masks_must_agree_too() -> None:
    full, part = found_of([(A, 1, 0.9)]), found_of([(A, 1, 0.9)])
    part.masks_Khw[:, :2] = 0  # 26 of 28 rows: IoU 0.93
    assert match(full, part).share == 1
    part.masks_Khw[:, :3] = 0  # 25 of 28: 0.89
    assert match(full, part).share == 0
    assert match(found_of([(A, 1, 0.9)], mask=0), found_of([(A, 1, 0.9)], mask=127)).share == 1  # both empty


def test_scores_of_int8_may_differ() -> None:
    assert match(found_of([(A, 1, 0.9)]), found_of([(A, 1, 0.5)]), score_tolerance=None).share == 1


def test_matches_add_up() -> None:
    nothing = match(found_of([]), found_of([]))
    assert nothing.share is None
    assert (nothing + Matches(same=1, total=2) + Matches(same=2, total=2)).share == 0.75
