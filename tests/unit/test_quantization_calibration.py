from __future__ import annotations

import itertools

import pytest

from edgeseg.core.errors import DataError
from quantization import choose_calibration

IDS = [f"frame{i:04}" for i in range(1000)]


def test_choice_is_spread_over_the_split() -> None:
    chosen = choose_calibration(IDS, 50, seed=0)
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert len(set(chosen)) == 50
    assert min(gaps) >= 19 and max(gaps) <= 21
    assert chosen[0] < 20 and chosen[-1] >= 980


def test_choice_follows_the_seed_and_the_ids_not_their_order() -> None:
    chosen = [IDS[i] for i in choose_calibration(IDS, 30, seed=1)]
    backwards = IDS[::-1]
    assert sorted(backwards[i] for i in choose_calibration(backwards, 30, seed=1)) == chosen
    assert chosen == [IDS[i] for i in choose_calibration(IDS, 30, seed=1)]
    assert chosen != [IDS[i] for i in choose_calibration(IDS, 30, seed=2)]


@pytest.mark.parametrize("count", [7, 8, 100])
def test_all_frames_where_there_are_fewer(count: int) -> None:
    assert choose_calibration(IDS[:7], count, seed=3) == list(range(7))


@pytest.mark.parametrize("seed", range(20))
def test_count_is_exact_and_no_frame_is_taken_twice(seed: int) -> None:
    for total, count in ((10, 9), (367, 128), (3, 2), (1, 1)):
        chosen = choose_calibration(IDS[:total], count, seed=seed)
        assert len(set(chosen)) == count and min(chosen) >= 0 and max(chosen) < total


def test_no_ids() -> None:
    with pytest.raises(DataError, match="no training frames"):
        choose_calibration([], 5, seed=0)
