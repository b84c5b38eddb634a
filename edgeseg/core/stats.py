"""Statistics of measured times. Percentiles are nearest-rank, never interpolated, and nothing is ever left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def nearest_rank(values: Sequence[float], percent: float) -> float:
    """Smallest value that at least `percent` % of the values do not exceed: sorted[ceil(n * p / 100) - 1].

    Raises:
        ValueError: no values, or `percent` outside (0, 100].
    """
    if not values or not 0 < percent <= 100:
        raise ValueError(f"nearest rank of {len(values)} values at {percent} %")
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


@dataclass(frozen=True, kw_only=True)
class LatencyStats:
    """Times of single frames, in milliseconds."""

    num_frames: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    """Nearest-rank 90th percentile; never interpolated."""
    p99_ms: float
    max_ms: float
    fps: float
    """Frames per second of the measured loop: frames divided by the sum of their times."""


def latency_stats(times_ns: Sequence[int]) -> LatencyStats:
    """Summarise times given in nanoseconds."""
    times_ms = [t / 1e6 for t in times_ns]
    total_ms = math.fsum(times_ms)
    return LatencyStats(
        num_frames=len(times_ms),
        mean_ms=total_ms / len(times_ms),
        p50_ms=nearest_rank(times_ms, 50),
        p90_ms=nearest_rank(times_ms, 90),
        p99_ms=nearest_rank(times_ms, 99),
        max_ms=max(times_ms),
        fps=1e3 * len(times_ms) / total_ms,
    )
