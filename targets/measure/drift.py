"""How did the speed move during a long measurement: steadily, or at once?"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from targets.telemetry.verdict import LEAST_WINDOWS, LatencyWindow

EDGE: Final = 2
"""Windows that must lie on either side of a step."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Movement of the windows' medians."""

    change: float
    """From the first window to the last, as a share of the median: 0.01 = 1 % slower. By the median of the slopes of all pairs of windows
    (Theil 1950, Sen 1968)."""
    step_at_s: float
    """Start of the window at which two levels divide the windows best (least sum of distances to the medians of both sides)."""
    step: float
    """Median after over median before: 1.3 = 30 % slower from there on."""

    def to_json(self) -> dict[str, Any]:
        """Give all fields."""
        return asdict(self)


def drift(windows: Sequence[LatencyWindow]) -> Drift | None:
    """Judge windows in the order of time; `None` = too few to tell."""
    if len(windows) < LEAST_WINDOWS:
        return None
    median = statistics.median(window.p50_ms for window in windows)
    slopes = [(b.p50_ms - a.p50_ms) / (b.start_s - a.start_s) for a, b in itertools.combinations(windows, 2)]
    values = [window.p50_ms for window in windows]
    at = min(range(EDGE, len(values) - EDGE + 1), key=lambda i: _distances(values[:i]) + _distances(values[i:]))
    span_s = windows[-1].start_s - windows[0].start_s
    return Drift(change=statistics.median(slopes) * span_s / median, step_at_s=windows[at].start_s,
                 step=statistics.median(values[at:]) / statistics.median(values[:at]))


def _distances(values: Sequence[float]) -> float:
    middle = statistics.median(values)
    return sum(abs(value - middle) for value in values)
