"""The search alone: costs that are known, and a machine that is slow at times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from targets.measure.loop import bootstrap_ratio
from targets.measure.result import FULL
from targets.tuning.search import MAX_ROUNDS, halve, stand


class Track:
    """Settings of known cost on a machine whose speed changes from block to block, with a little of every setting's own noise."""

    def __init__(self, costs: Sequence[float], *, seed: int = 0, noise: float = 0.01, breaks: Mapping[int, int] | None = None) -> None:
        self.costs, self.noise, self.breaks = costs, noise, breaks or {}
        self.rng = np.random.Generator(np.random.Philox(seed))
        self.races: list[tuple[list[int], int]] = []

    def __call__(self, settings: Sequence[int], blocks: int) -> dict[int, list[float]]:
        self.races.append((list(settings), blocks))
        machine = self.rng.lognormal(0, 0.5, blocks)  # up to several times slower, for all of them alike
        return {
            setting: list(self.costs[setting] * machine * self.rng.lognormal(0, self.noise, blocks))
            for setting in settings if self.breaks.get(setting) != len(self.races)
        }


@pytest.mark.parametrize("seed", range(5))
def test_finds_the_fastest_though_the_machine_changes_its_speed(seed: int) -> None:
    costs = list(np.random.Generator(np.random.Philox(seed)).permutation([1.0, 1.06, 1.1, 1.3, 1.5, 2.0, 3.0, 4.0]))
    track = Track(costs, seed=seed)
    found = halve(range(8), track, blocks=4)
    assert costs[found[0].setting] == 1.0
    assert (found[0].ratio, found[0].low, found[0].high) == (1, 1, 1)
    assert sorted(one.setting for one in found) == list(range(8))
    assert [one.rounds for one in found] == sorted((one.rounds for one in found), reverse=True)


def test_at_most_half_of_them_stay_and_blocks_double() -> None:
    track = Track([1.0] * 16, noise=0.05)
    halve(range(16), track, blocks=4)
    assert [blocks for _, blocks in track.races] == [4, 8, 16, 32][:len(track.races)]
    assert len(track.races) <= MAX_ROUNDS
    for (before, _), (after, _) in zip(track.races, track.races[1:], strict=False):
        assert set(after) < set(before)
        assert len(after) <= max(2, (len(before) + 1) // 2)


def test_clearly_worse_ones_go_at_once() -> None:
    track = Track([2.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    found = halve(range(6), track, blocks=6)
    assert found[0].setting == 1
    assert len(track.races) == 1
    assert all(one.clearly_worse for one in found[1:])
    assert all(one.ratio == pytest.approx(2, rel=0.05) for one in found[1:])


def test_what_breaks_is_left_out_and_the_rest_goes_on() -> None:
    track = Track([1.0, 1.001, 1.002, 1.003], breaks={0: 2})
    found = halve(range(4), track, blocks=4)
    assert 0 not in [one.setting for one in found]
    assert found[0].setting in (1, 2, 3)
    assert halve([0], Track([1.0], breaks={0: 1}), blocks=4) == []


def test_one_alone_is_the_winner() -> None:
    track = Track([5.0])
    assert [one.setting for one in halve([0], track, blocks=4)] == [0]
    assert len(track.races) == 1


def test_standings_are_ratios_of_blocks_taken_together() -> None:
    slow = [1.0, 10.0, 100.0, 1000.0]
    found = stand({7: slow, 3: [1.5 * value for value in slow]}, rounds=2)
    assert [(one.setting, one.rounds) for one in found] == [(7, 2), (3, 2)]
    assert (found[1].low, found[1].ratio, found[1].high) == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.parametrize(("factor", "seeds", "least", "most"), [(1.0, 200, 0.0, 0.06), (1.01, 50, 0.9, 1.0)])
def test_how_often_noise_passes_for_a_faster_setting(factor: float, seeds: int, least: float, most: float) -> None:
    faster = 0
    for seed in range(seeds):  # 1 % of noise: 2.5 % of the intervals lie above 1 by chance, and a setting faster by 1 % is to be seen
        costs = Track([factor, 1.0], seed=seed)([0, 1], FULL.min_pairs)
        faster += bootstrap_ratio(costs[0], costs[1])[1] > 1
    assert least <= faster / seeds <= most
