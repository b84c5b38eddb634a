"""Under what circumstances a bundle was measured: what makes a time repeat, or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line over the seconds of the measurement."""

    name: str
    unit: str
    points: tuple[tuple[float, float | None], ...]
    """(second, value); `None` = did not answer."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What went on while a bundle was measured. `None` = not available."""

    num_frames: int
    p90_early_stopping_ms: float | None
    """Of a frame from its file to its class map, by MLPerf's early stopping (99 % confidence); `None` = too few frames."""
    p99_early_stopping_ms: float | None
    throttling: str
    """`held`, `throttled`, `slowed` or `not available`."""
    throttling_words: str
    slowdown: float | None
    """Sustained over burst median latency."""
    change: float | None
    """Of the median over the measurement, as a share of it."""
    energy_per_frame_j: float | None
    """With the power at rest taken off."""
    energy_words: str
    """Which part of the machine that is, or why there is none."""
    others_before: float | None
    """Share of all processors that other programs took."""
    others_during: float | None
    series: tuple[Series, ...] = ()
    steady: bool = True
    """False: the warm-up ended at its bound with medians still moving. True also where it was not recorded."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Circumstances:
        """Read back what `asdict` gave."""
        series = (Series(name=one["name"], unit=one["unit"], points=tuple((x, y) for x, y in one["points"])) for one in raw["series"])
        return cls(**{**raw, "series": tuple(series)})
