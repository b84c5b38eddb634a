"""Calibration that is looked at: rare classes and odd light are covered, what val or test show is refused, too few are warned of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgeseg.core.errors import DataError
from edgeseg.core.images import Frame
from edgeseg.core.instances import InstanceLabel
from edgeseg.workflow.compress.calibrating import ENOUGH, CalibrationChoice, choose, classes_of, covers_words
from quantization.calibration import Look, choose_calibration, choose_covering, covered, look_at

CLASSES = ("ground", "plant", "stone")


def look(brightness: float = 100.0, classes: tuple[int, ...] = (0,)) -> Look:
    return Look(classes=classes, brightness=brightness, contrast=30.0, dark=10.0, bright=200.0, warmth=0.0)


def frame(seed: int, *, shift: int = 0) -> Frame:
    """A frame of its own, with structure (smooth noise), made darker or brighter by `shift`."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (6, 8, 3)).astype(np.float64)
    large = coarse.repeat(8, axis=0).repeat(8, axis=1) + rng.normal(0, 3, (48, 64, 3))
    return np.clip(large + shift, 0, 255).astype(np.uint8)


IDS = [f"frame{i:03}" for i in range(200)]


def test_rare_classes_and_the_ends_of_brightness_are_covered() -> None:
    rng = np.random.default_rng(0)
    looks = [look(float(rng.normal(110, 8)), (0, 1) if i % 3 else (0,)) for i in range(200)]
    for index in (50, 51, 150):
        looks[index] = look(110.0, (0, 2))
    looks[17], looks[18] = look(10.0), look(240.0)
    chosen = choose_covering(IDS, looks, 12)
    assert len(set(chosen)) == 12 and chosen == sorted(chosen)
    assert {17, 18} <= set(chosen) and sum(2 in looks[i].classes for i in chosen) >= 2
    evenly = choose_calibration(IDS, 12, seed=0)
    assert not {17, 18} <= set(evenly)  # else this test shows nothing
    parts = {i * 16 // 200 for i in chosen}
    assert len(parts) >= 8  # still from all over the split


def test_the_choice_follows_the_ids_not_their_order() -> None:
    rng = np.random.default_rng(1)
    looks = [look(float(rng.integers(0, 255)), (0, int(rng.integers(0, 3)))) for _ in range(200)]
    chosen = [IDS[i] for i in choose_covering(IDS, looks, 20)]
    turned = choose_covering(IDS[::-1], looks[::-1], 20)
    assert sorted(IDS[::-1][i] for i in turned) == chosen


@pytest.mark.parametrize("count", [5, 6, 50])
def test_all_frames_where_there_are_fewer(count: int) -> None:
    assert choose_covering(IDS[:5], [look()] * 5, count) == [0, 1, 2, 3, 4]


def test_frames_that_are_all_alike_are_spread() -> None:
    chosen = choose_covering(IDS, [look()] * 200, 16)
    assert len({i * 16 // 200 for i in chosen}) == 16


def test_no_ids() -> None:
    with pytest.raises(DataError, match="no training frames"):
        choose_covering([], [], 5)


def test_what_is_seen_in_a_frame() -> None:
    red = np.zeros((20, 30, 3), dtype=np.uint8)
    red[..., 0] = 255
    seen = look_at(red, (0, 2))
    assert seen.classes == (0, 2)
    assert seen.contrast == pytest.approx(0) and seen.warmth == pytest.approx(255)
    assert seen.brightness == seen.dark == seen.bright == pytest.approx(0.299 * 255)
    large = np.kron(frame(3), np.ones((16, 16, 1), dtype=np.uint8))  # looked at with a step
    assert look_at(large).brightness == pytest.approx(look_at(frame(3)).brightness, abs=1)


def test_what_a_choice_covers() -> None:
    looks = [look(50, (0,)), look(100, (0, 1)), look(200, (0, 2))]
    facts = covered(looks, [0, 1], CLASSES)
    assert facts["chosen"]["class_frames"] == {"ground": 2, "plant": 1, "stone": 0}
    assert facts["of"]["class_frames"] == {"ground": 3, "plant": 1, "stone": 1}
    assert (facts["chosen"]["brightness"], facts["of"]["brightness"], facts["of"]["num_frames"]) == ([50, 100], [50, 200], 3)
    assert covered([look(classes=())], [0], CLASSES)["of"]["class_frames"] == {}


def _choose(frames: Sequence[Frame], others: Sequence[Frame], count: int, way: str = "cover", *, judged: bool = True) -> CalibrationChoice:
    def read(index: int) -> tuple[Frame, Sequence[int]]:
        return frames[index], (0, 1 + index % 2)

    return choose(IDS[: len(frames)], read, others, count=count, way=way, seed=0, classes=CLASSES, judged=judged)


@pytest.mark.parametrize("way", ["cover", "spread"])
def test_frames_of_val_and_test_are_refused(way: str) -> None:
    train = [frame(seed) for seed in range(40)]
    flat = np.full((48, 64, 3), 90, dtype=np.uint8)
    train[7] = flat
    others = [train[3], frame(11, shift=6), flat, frame(900)]  # the same, a look-alike, the same without structure, another
    choice = _choose(train, others, 20, way)
    used = {*choice.calibrate, *choice.held_back}
    assert not used & {3, 7, 11} and len(choice.calibrate) == 20
    assert not set(choice.calibrate) & set(choice.held_back) and choice.held_back
    assert choice.facts["refused"] == 3
    assert any(note.startswith("3 training frames look like") for note in choice.notes)
    assert _choose(train, [frame(901)], 20, way).facts["refused"] == 0
    with pytest.raises(DataError, match="each of the 5 training frames"):
        _choose(train[:5], train[:5], 4, way)


def test_frames_held_back_cover_the_classes() -> None:
    frames = [frame(seed) for seed in range(60)]
    rare = {20, 21, 40, 41}

    def read(index: int) -> tuple[Frame, Sequence[int]]:
        return frames[index], (0, 2) if index in rare else (0, 1)

    choice = choose(IDS[:60], read, [], count=20, way="cover", seed=0, classes=CLASSES)
    assert set(choice.calibrate) & rare
    assert CalibrationChoice.from_json(choice.to_json()) == choice
    fewer = choose(IDS[:60], read, [], count=6, way="cover", seed=0, classes=CLASSES)
    assert rare & set(fewer.held_back) and rare & set(fewer.calibrate)


def test_too_few_frames_and_classes_left_out_are_warned_of() -> None:
    frames = [frame(seed) for seed in range(40)]
    assert not any("fewer than" in note for note in _choose(frames, [], ENOUGH).notes)
    few = _choose(frames, [], 4).notes
    assert any(f"on 4 frames, fewer than {ENOUGH}" in note and "calibration_frames" in note for note in few)
    assert any("on 1 frame, fewer" in note and "add training frames" in note for note in _choose(frames[:1], [], 8).notes)

    def read(index: int) -> tuple[Frame, Sequence[int]]:
        return frames[index], (0, 2) if index == 1 else (0, 1)

    left = choose(IDS[:40], read, [], count=2, way="spread", seed=0, classes=CLASSES, judged=False)
    assert 1 not in left.calibrate and any("no calibration frame shows stone" in note for note in left.notes)
    assert "chosen to spread: 2 of 3 classes, stone in 0 of its 1 frames" in covers_words(left.facts)


def test_without_rescue_nothing_is_held_back() -> None:
    assert _choose([frame(seed) for seed in range(30)], [], 8, judged=False).held_back == ()


def test_classes_of_labels_of_both_tasks() -> None:
    label = np.array([[0, 2, 255], [0, 0, 2]], dtype=np.uint8)
    assert classes_of(label) == (0, 2)
    none = InstanceLabel(
        boxes_N4=np.zeros((2, 4), np.float32), classes_N=np.array([3, 1]), masks_NHW=np.zeros((2, 4, 4), bool), crowd_N=np.zeros(2, bool),
    )
    assert classes_of(none) == (1, 3)


def test_progress_goes_on_while_val_and_test_are_looked_at() -> None:
    train, others, seen = [frame(seed) for seed in range(9)], [frame(900 + seed) for seed in range(5)], list[tuple[int, int]]()
    choose(IDS[:9], lambda index: (train[index], (0,)), others, count=4, way="cover", seed=0, classes=CLASSES, num_others=5,
           progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 14) for done in range(1, 15)]
