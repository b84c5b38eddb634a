"""Statistics: of measured times (percentiles are nearest-rank, nothing is ever left out), and intervals of what was measured on frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

from edgeseg.core.early_stopping import early_stopping


def nearest_rank(values: Sequence[float], percent: float) -> float:
    """Smallest value that at least `percent` % of the values do not exceed: sorted[ceil(n * p / 100) - 1].

    Raises:
        ValueError: no values, or `percent` outside (0, 100].
    """
    if not values or not 0 < percent <= 100:
        raise ValueError(f"nearest rank of {len(values)} values at {percent} %")
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


ABOVE_0: Final = "above 0"
"""Said of a number that others are divided by, in the type of a field: `Annotated[float, ABOVE_0]`."""


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
    fps: Annotated[float, ABOVE_0]
    """Frames per second of the measured loop: frames divided by the sum of their times."""
    p90_early_stopping_ms: float | None = None
    """MLPerf's estimate of p90, which is not too small with 99 % confidence; `None` = fewer than 64 frames, or not evaluated."""
    p99_early_stopping_ms: float | None = None
    """The same of p99; `None` = fewer than 662 frames, or not evaluated."""


def latency_stats(times_ns: Sequence[int]) -> LatencyStats:
    """Summarise times given in nanoseconds."""
    times_ms = sorted(t / 1e6 for t in times_ns)
    total_ms = math.fsum(times_ms)
    return LatencyStats(
        num_frames=len(times_ms),
        mean_ms=total_ms / len(times_ms),
        p50_ms=nearest_rank(times_ms, 50),
        p90_ms=nearest_rank(times_ms, 90),
        p99_ms=nearest_rank(times_ms, 99),
        max_ms=max(times_ms),
        fps=1e3 * len(times_ms) / total_ms,
        p90_early_stopping_ms=early_stopping(times_ms, 90).value,
        p99_early_stopping_ms=early_stopping(times_ms, 99).value,
    )


CONFIDENCE: Final = 0.95
"""Of every interval: two-sided, of one number at a time."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number with the 95 % interval of what it would be on all frames of the kind it was measured on."""

    value: float
    """As measured."""
    low: float | None
    high: float | None
    """`None` where nothing can be said."""
    num_frames: int
    """Frames that bear on it: for a class, those whose label holds it."""
    reason: str | None = None
    """Why there is no interval."""

    @property
    def decided(self) -> bool:
        """Whether there is an interval to judge by."""
        return self.low is not None and self.high is not None

    def to_json(self) -> dict[str, Any]:
        """Give all fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Interval:
        """Read back what `to_json` gave."""
        return cls(**raw)


def student_quantile(degrees: int, percent: float = 50 + 50 * CONFIDENCE) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, else within 1 % (Abramowitz & Stegun 1964, 26.7.5).

    Raises:
        ValueError: `degrees` below 1, or `percent` outside (50, 100).
    """
    if degrees < 1 or not 50 < percent < 100:
        raise ValueError(f"Student's t with {degrees} degrees of freedom at {percent} %")
    p = percent / 100
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    from statistics import NormalDist  # not loaded by who runs a bundle

    z = NormalDist().inv_cdf(p)
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))


def small_sample_factor(num_frames: int) -> float:
    """By how much an interval of the bootstrap is too narrow with few frames: t(n - 1) / z * sqrt(n / (n - 1)); 1.05 with 30, 1.6 with 5.

    T. Hesterberg, "What Teachers Should Know about the Bootstrap", 2015, section 4.2 (arXiv:1411.5279), there applied to the percents.

    Raises:
        ValueError: fewer than two frames.
    """
    from statistics import NormalDist

    return student_quantile(num_frames - 1) / NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * math.sqrt(num_frames / (num_frames - 1))
