"""How slow can a percentile be, given that only so many frames were seen? The early-stopping estimate of MLPerf LoadGen.

The p-th percentile of n samples is itself a sample, and by chance may be too small. LoadGen reports a higher one: the smallest sample of
which it can be said with 99 % confidence that at most 1 - p of all frames are slower ("MLPerf Inference Benchmark", arXiv:1911.02549;
`early_stopping.cc` and `results.cc` of github.com/mlcommons/inference, scenario single stream, confidence 0.99, tolerance 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CONFIDENCE: Final = 0.99


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """The estimate of one percentile."""

    value: float | None
    """In the unit of the samples; `None` = fewer of them than `frames_needed`."""
    frames_needed: int
    """Least number of samples that gives an estimate: 64 for p90, 662 for p99."""
    discarded: int
    """Samples above the estimate."""


def early_stopping(values: Sequence[float], percent: float) -> EarlyStopping:
    """Estimate a percentile as LoadGen does in a single stream: the t-th largest value, t as `over_latency` gives it.

    Raises:
        ValueError: `percent` outside (0, 100).
    """
    over = over_latency(len(values), percent)
    value = sorted(values)[len(values) - over] if over else None
    return EarlyStopping(value=value, frames_needed=frames_needed(percent), discarded=max(0, over - 1))


def over_latency(num_values: int, percent: float) -> int:
    """Largest t >= 1 so that t or fewer slow frames of `num_values` are less likely than 1 % were `percent` only just not met; 0 = none.

    With X binomial of n trials and probability 1 - p: P(X <= t) < 1 - 0.99. LoadGen words it as the least h with I_p(h, t + 1) < 0.01,
    h + t = n, which is the same.

    Raises:
        ValueError: `percent` outside (0, 100).
    """
    slow = _slow_share(percent)
    low, high = 0, math.ceil(num_values * slow) + 1  # P(X <= mean + 1) is about a half: `high` never passes
    while high - low > 1:
        middle = (low + high) // 2
        if _at_most(middle, num_values, slow) < 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return low


def frames_needed(percent: float) -> int:
    """Least number of frames for which `over_latency` is not 0.

    Raises:
        ValueError: `percent` outside (0, 100).
    """
    slow, num_values = _slow_share(percent), 2
    while _at_most(1, num_values, slow) >= 1 - CONFIDENCE:
        num_values += 1
    return num_values


def _slow_share(percent: float) -> float:
    if not 0 < percent < 100:
        raise ValueError(f"early stopping at {percent} %")
    return 1 - percent / 100


def _at_most(count: int, trials: int, probability: float) -> float:
    """P(X <= count), X binomial; summed from `count` down, each term from the one before."""
    if count >= trials:
        return 1.0
    log_last = (math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
                + count * math.log(probability) + (trials - count) * math.log1p(-probability))
    term = total = 1.0
    for k in range(count, 0, -1):
        term *= k / (trials - k + 1) * (1 - probability) / probability
        total += term
        if term < total * 1e-17:
            break
    return math.exp(log_last) * total
