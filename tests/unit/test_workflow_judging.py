"""Frames held back never calibrate, and a judge's cost is 1 where a limit is just met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models

from edgeseg.core.config import GoalsSection
from edgeseg.core.errors import DataError
from edgeseg.workflow.compress.judging import MOST_HELD_BACK, Limits, hold_back, judge_by_agreement, judge_by_labels, judged_on, limits_of
from quantization.ladder import Judged

IDS = [f"frame{index:03}" for index in range(100)]


def test_frames_outside_the_calibration_are_held_back() -> None:
    calibrate, held = hold_back(IDS, list(range(0, 100, 4)))
    assert calibrate == list(range(0, 100, 4))
    assert len(held) == MOST_HELD_BACK
    assert not set(held) & set(calibrate)
    assert max(held) > 90 and min(held) < 10


def test_frames_are_taken_out_where_all_would_calibrate() -> None:
    calibrate, held = hold_back(IDS[:33], list(range(33)))
    assert (len(calibrate), len(held)) == (24, 9)
    assert sorted(calibrate + held) == list(range(33))


@pytest.mark.parametrize("count", [1, 7])
def test_very_few_frames_serve_for_both(count: int) -> None:
    assert hold_back(IDS[:count], list(range(count))) == (list(range(count)), list(range(count)))


def test_limits_are_the_goals() -> None:
    limits = limits_of(GoalsSection(miou_drop=0.02, class_drop=0.1))
    assert limits.cost(0.02, 0.05) == pytest.approx(1)
    assert limits.cost(0.01, 0.2) == pytest.approx(2)
    assert limits_of(GoalsSection()).cost(0.005, 0.9) == pytest.approx(0.5)
    assert limits_of(GoalsSection(class_drop=0.1)).cost(0.5, 0.05) == pytest.approx(0.5)
    assert Limits(miou_drop=0.0).cost(0.0, None) <= 1 < Limits(miou_drop=0.0).cost(0.001, None)


def test_judged_against_the_float_bundle_on_the_same_frames(tmp_path: Path) -> None:
    parent = tiny_models.tiny_bundle(tmp_path, "null")
    frames = [tiny_models.tiny_frame(seed, height=30, width=50) for seed in range(6)]
    labels = [np.random.default_rng(seed).integers(0, 3, (30, 50), dtype=np.uint8) for seed in range(6)]
    judged = judge_by_labels(parent, zip(frames, labels, strict=True), Limits())(parent)
    assert (judged.miou_drop, judged.worst_drop, judged.agreement, judged.cost) == (0, 0, 1, 0)
    assert judged.miou is not None and 0 < judged.miou < 1
    assert judge_by_agreement(parent, [frame[:24, :32] for frame in frames])(parent).cost == 0


def test_the_bad_end_of_the_interval_counts(tmp_path: Path) -> None:
    parent, other = tiny_models.tiny_bundle(tmp_path, "null"), tiny_models.tiny_bundle(tmp_path, "onnx")
    frames = [tiny_models.tiny_frame(seed) for seed in range(8)]
    labels = [tiny_models.brightness_step(frame) for frame in frames]
    judged = judge_by_labels(parent, zip(frames, labels, strict=True), Limits(miou_drop=0.01))(other)
    assert judged.miou_drop is not None and judged.miou_drop_high is not None and judged.agreement is not None
    assert 0.5 < judged.miou_drop < judged.miou_drop_high <= 1
    assert judged.cost == pytest.approx(judged.miou_drop_high / 0.01)
    assert judged.agreement < 0.5


def test_frames_without_a_labelled_pixel_are_refused(tmp_path: Path) -> None:
    nothing = [(tiny_models.tiny_frame(0), np.full((24, 32), 255, np.uint8))]
    with pytest.raises(DataError, match="no pixel of the training frames held back is labelled"):
        judge_by_labels(tiny_models.tiny_bundle(tmp_path, "null"), nothing, Limits())


@pytest.mark.parametrize(("drop", "high", "worst", "verdict"), [
    (0.004, 0.009, None, "reached"), (0.004, 0.03, None, "not decided"), (0.011, 0.03, None, "missed"), (0.004, 0.009, 0.2, "missed"),
])
def test_too_few_frames_are_no_miss(drop: float, high: float, worst: float | None, verdict: str) -> None:
    for limits in (Limits(miou_drop=0.01, class_drop=0.1), Limits(miou_drop=0.01), Limits()):
        if worst is not None and limits.class_drop is None:
            continue
        assert limits.verdict(Judged(cost=limits.cost(high, worst), miou_drop=drop, miou_drop_high=high, worst_drop=worst)) == verdict


def test_without_labels_there_is_nothing_between_reached_and_missed() -> None:
    assert [Limits().verdict(Judged(cost=cost, agreement=0.9)) for cost in (0.5, 1.5)] == ["reached", "missed"]


def test_frames_that_serve_for_both_are_said_to() -> None:
    few, others = {"num_frames": 5, "ids_sha256": "a"}, {"num_frames": 9, "ids_sha256": "b"}
    assert judged_on(few, {**few, "way": "cover"}) == {**few, "also_calibrates": True}
    assert judged_on(others, few) == others
