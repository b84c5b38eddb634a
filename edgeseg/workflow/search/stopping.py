"""When a training is not worth going on with: the median rule, among those that are at least as fast."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

FEWEST_RIVALS: Final = 3
"""Below this many trainings to compare with, none is stopped."""


@dataclass(frozen=True)
class Rival:
    """Another training: its validation scores by epoch, and how fast its best point can be."""

    scores: Mapping[int, float]
    p90_ms: float


def is_rung(epoch: int, epochs: int) -> bool:
    """Whether a training of `epochs` may be stopped after `epoch`: at a quarter and at half, never once most of it is paid for."""
    return epoch > 0 and 2 * epoch <= epochs


def falls_behind(score: float, epoch: int, p90_ms: float, rivals: Sequence[Rival]) -> str:
    """Say why a training need not go on, or "".

    It need not where, after the same epoch, its score lies below the median of the trainings that are at least as fast: on the Pareto
    front only those stand in its way. A slow network is so held to more than a fast one, and the fastest of all is never stopped.
    (The median stopping rule of Vizier, Golovin et al. 2017, with the comparison cut down to those who dominate in speed.)
    """
    scores = [rival.scores[epoch] for rival in rivals if epoch in rival.scores and rival.p90_ms <= p90_ms]
    if len(scores) < FEWEST_RIVALS:
        return ""
    median = statistics.median(scores)
    if score >= median:
        return ""
    return f"after {epoch} epochs mIoU {score:.3f}, below the median {median:.3f} of {len(scores)} trainings that are at least as fast"
