"""Intervals over frames: against a closed form, a plain loop, draws from a known population, and the corners."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.core.bootstrap import SEED, Intervals, intervals, more_frames, same_labels
from edgeseg.core.metrics import score
from edgeseg.core.stats import Interval, small_sample_factor, student_quantile


def frames(wrong_N: list[int], *, size: int = 1000, classes: int = 2) -> NDArray[np.int64]:
    """Frames of `size` pixels of class 1, of which `wrong_N` were answered class 0; other classes do not occur."""
    confusions = np.zeros((len(wrong_N), classes, classes), dtype=np.int64)
    confusions[:, 1, 1] = size - np.asarray(wrong_N)
    confusions[:, 1, 0] = wrong_N
    return confusions


def drawn(seed: int, count: int, *, lost: float = 0.0, rare: float = 0.3) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`count` frames of 3 classes, the last in a share `rare` of them, and the same answered with a share `lost` more of mistakes."""
    rng = np.random.default_rng(seed)
    before, after = np.zeros((2, count, 3, 3), dtype=np.int64)
    for n in range(count):
        pixels = (int(rng.integers(2000, 4000)), int(rng.integers(500, 2000)), int(rng.integers(20, 200)) if rng.random() < rare else 0)
        hardness = rng.uniform(0.02, 0.3)
        for c, total in enumerate(pixels):
            for confusions, share in ((before, hardness), (after, hardness + lost * rng.uniform(0, 2))):
                missed = rng.binomial(total, min(share, 1.0))
                confusions[n, c, c], confusions[n, c, (c + 1) % 2 if c < 2 else 0] = total - missed, missed
    return before, after


def test_the_mean_of_equal_frames_has_its_closed_form() -> None:
    rng = np.random.default_rng(3)
    wrong = rng.integers(0, 400, 400)
    found = intervals(frames(wrong.tolist())).iou[1]
    assert found is not None and found.low is not None and found.high is not None
    exact = 1.96 * float(np.std(wrong / 1000)) / math.sqrt(400)  # IoU of such a frame set is a plain mean, whose spread is known
    assert found.value == pytest.approx(1 - wrong.mean() / 1000)
    assert found.high - found.value == pytest.approx(exact, rel=0.08)
    assert found.value - found.low == pytest.approx(exact, rel=0.08)


def test_a_plain_loop_over_resamples_finds_the_same() -> None:
    before, after = drawn(1, 40, lost=0.05)
    found = intervals(after, before, resamples=300)
    generator = np.random.Generator(np.random.Philox(SEED))
    drops = []
    for weights in generator.multinomial(40, np.full(40, 1 / 40), size=300):
        pick = np.repeat(np.arange(40), weights)
        was, now = score(before[pick].sum(axis=0)), score(after[pick].sum(axis=0))
        drops.append([was.miou - now.miou, was.iou[0] - now.iou[0]])  # type: ignore[operator]
    for one, column in ((found.miou_drop, 0), (found.class_drop[0], 1)):
        assert one is not None and one.low is not None and one.high is not None
        low, high = np.percentile(np.asarray(drops)[:, column], [2.5, 97.5])
        factor = small_sample_factor(40)
        assert one.low == pytest.approx(one.value - factor * (one.value - low), abs=1e-12)
        assert one.high == pytest.approx(one.value + factor * (high - one.value), abs=1e-12)
    whole_before, whole_after = score(before.sum(axis=0)), score(after.sum(axis=0))
    assert found.miou_drop is not None and found.miou_drop.value == pytest.approx(whole_before.miou - whole_after.miou)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    before, after = drawn(5, 3000, lost=0.03)
    truth = score(before.sum(axis=0)).miou - score(after.sum(axis=0)).miou
    rng, held, below = np.random.default_rng(6), 0, 0
    for _ in range(200):
        pick = rng.integers(0, 3000, 25)
        drop = intervals(after[pick], before[pick], resamples=400).miou_drop
        assert drop is not None and drop.low is not None and drop.high is not None
        held += drop.low <= truth <= drop.high
        below += truth > drop.high
    assert 0.89 <= held / 200 <= 0.99
    assert below / 200 <= 0.07


def test_pairing_narrows_the_interval() -> None:
    before, after = drawn(7, 60, lost=0.01)
    found = intervals(after, before)
    assert found.miou_drop is not None and found.miou_drop.high is not None and found.miou_drop.low is not None
    assert found.miou.high is not None and found.miou.low is not None
    assert (found.miou_drop.high - found.miou_drop.low) * 4 < found.miou.high - found.miou.low


def test_the_same_answers_lose_exactly_nothing_however_few() -> None:
    for count in (1, 2, 30):
        before, _ = drawn(2, count, rare=1.0)
        found = intervals(before, before.copy())
        assert found.miou_drop == Interval(value=0.0, low=0.0, high=0.0, num_frames=count)
        assert {(one.value, one.low, one.high) for one in found.class_drop if one} == {(0.0, 0.0, 0.0)}
        assert more_frames(found.miou_drop, 0.01, num_frames=count) == 0


def test_one_frame_shows_no_spread() -> None:
    before, after = drawn(2, 1, lost=0.2)
    found = intervals(after, before)
    assert found.miou_drop is not None
    assert (found.miou.decided, found.miou_drop.decided, found.miou_drop.reason) == (False, False, "one frame shows no spread")


def test_a_class_that_is_absent_has_none_and_one_of_two_frames_a_wide_one() -> None:
    before, after = drawn(4, 30, lost=0.05, rare=0.0)
    found = intervals(after, before)
    assert found.iou[2] is None and found.class_drop[2] is None
    for n, missed in ((3, 10), (9, 40)):
        for confusions, more in ((before, 0), (after, 5 if n == 3 else 20)):
            confusions[n, 2, 2], confusions[n, 2, 0] = 100 - missed - more, missed + more
    rare = intervals(after, before).class_drop[2]
    assert rare is not None and rare.num_frames == 2 and rare.low is not None and rare.high is not None
    assert rare.high - rare.low > 0.5  # t with one degree of freedom
    common = intervals(after, before).class_drop[0]
    assert common is not None and common.high is not None and common.low is not None and common.high - common.low < 0.05


def test_frames_without_a_label_do_not_count() -> None:
    before, after = drawn(8, 20, lost=0.05)
    empty = np.zeros((5, 3, 3), dtype=np.int64)
    assert intervals(np.concatenate([after, empty])).miou.num_frames == 20
    with pytest.raises(ValueError, match="no labelled pixel"):
        intervals(empty)
    assert intervals(after, before).miou_drop is not None


def test_other_labels_are_refused() -> None:
    before, after = drawn(8, 20, lost=0.05)
    assert same_labels(before, after)
    assert not same_labels(before[:-1], after) and not same_labels(before[::-1], after)
    with pytest.raises(ValueError, match="other frames"):
        intervals(after, before[::-1])


def test_the_seed_gives_the_same_twice() -> None:
    before, after = drawn(9, 25, lost=0.05)
    assert intervals(after, before) == intervals(after, before)
    assert intervals(after, before) != intervals(after, before, seed=1)
    assert isinstance(intervals(after, before), Intervals)


def test_as_many_more_frames_as_said_decide_it() -> None:
    limit = 0.07
    before, after = drawn(10, 24, lost=0.045)
    found = intervals(after, before).miou_drop
    assert found is not None and found.high is not None and found.value < limit < found.high
    more = more_frames(found, limit, num_frames=24)
    assert more is not None and 5 < more < 2000
    copies = math.ceil((24 + more) / 24)  # the same mix of frames, so the value stays
    again = intervals(np.tile(after, (copies, 1, 1)), np.tile(before, (copies, 1, 1))).miou_drop
    assert again is not None and again.high is not None and again.high <= limit * 1.02
    at_limit = Interval(value=limit, low=0.0, high=0.1, num_frames=24)
    assert more_frames(at_limit, limit, num_frames=24) is None
    assert more_frames(Interval(value=0.2, low=None, high=None, num_frames=1), limit, num_frames=24) == 7 * 24


@pytest.mark.parametrize(("degrees", "exact"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (99, 1.9842)])
def test_student(degrees: int, exact: float) -> None:
    assert student_quantile(degrees) == pytest.approx(exact, rel=0.01)


def test_student_refuses_what_has_no_quantile() -> None:
    for degrees, percent in ((0, 97.5), (3, 50), (3, 100)):
        with pytest.raises(ValueError, match="Student"):
            student_quantile(degrees, percent)
