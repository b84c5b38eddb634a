"""Which setting is fastest, from costs measured in turns: successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943).

A cost is milliseconds a frame, one number a block; block k of all settings was measured in the same moments, so what slows the machine
slows block k of each of them, and only ratios of blocks k are compared. How a cost comes about is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from targets.measure.loop import bootstrap_ratio

Race = Callable[[Sequence[int], int], Mapping[int, Sequence[float]]]
"""Lets settings (by number) take turns for this many blocks; gives the cost of each block, and leaves out the settings that broke."""

MAX_ROUNDS: Final = 3
"""With twice the blocks in each: settings that 7 times the first round's blocks cannot tell apart are as good as each other."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a setting stood when it was measured last, against the best of those it took turns with."""

    setting: int
    cost_ms: float
    """Median over its blocks."""
    ratio: float
    """Its cost over that of the best, block by block: 1 = it is the best, 2 = it takes twice as long."""
    low: float
    high: float
    """95 % percentile bootstrap over the blocks."""
    rounds: int
    """Rounds it took part in."""

    @property
    def clearly_worse(self) -> bool:
        """The whole interval lies above 1."""
        return self.low > 1


def stand(costs: Mapping[int, Sequence[float]], rounds: int) -> list[Standing]:
    """Compare settings that have the same blocks; the best comes first."""
    best = min(costs, key=lambda setting: float(np.median(costs[setting])))
    found = []
    for setting, blocks in costs.items():
        ratio, low, high = bootstrap_ratio(blocks, costs[best])
        found.append(Standing(setting=setting, cost_ms=float(np.median(blocks)), ratio=ratio, low=low, high=high, rounds=rounds))
    return sorted(found, key=lambda one: (one.setting != best, one.ratio))


def halve(settings: Sequence[int], race: Race, *, blocks: int) -> list[Standing]:
    """Find the fastest setting: after each round those that are clearly worse than the best go, and at least the worse half.

    Survivors keep the blocks of former rounds. The first of the result is the winner, the others follow by how long they stayed; settings
    that broke are not in it.

    Args:
        settings: their numbers.
        race: measures.
        blocks: of the first round, for each setting; twice as many in each further one.
    """
    costs: dict[int, list[float]] = {setting: [] for setting in settings}
    left, standings = list(settings), list[Standing]()
    dropped: list[Standing] = []
    for number in range(1, MAX_ROUNDS + 1):
        raced = race(left, blocks << (number - 1))
        left = [setting for setting in left if setting in raced]
        if not left:
            return dropped
        for setting in left:
            costs[setting].extend(raced[setting])
        standings = stand({setting: costs[setting] for setting in left}, number)
        staying = [one for one in standings[:max(2, math.ceil(len(standings) / 2))] if not one.clearly_worse]
        if len(staying) < 2 or number == MAX_ROUNDS:
            break
        dropped = standings[len(staying):] + dropped
        left = [one.setting for one in staying]
    return standings + dropped
