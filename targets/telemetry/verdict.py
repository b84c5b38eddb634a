"""Did the board hold its speed? Burst against sustained latency, with what the sensors say about the reason."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from targets.telemetry.base import Column
from targets.telemetry.clocks import GPU_CLOCK
from targets.telemetry.raspberry_pi import CAPPING_BITS, decode_throttled
from targets.telemetry.trace import Trace

SLOWED: Final = 1.05
"""Sustained over burst latency from which on a board counts as slowed."""
CLOCK_FELL: Final = 0.95
LEAST_WINDOWS: Final = 6

Outcome = Literal["held", "throttled", "slowed", "not available"]


class LatencyWindow(NamedTuple):
    """Frames of a short piece of the measured loop."""

    start_s: float
    """In the seconds of the trace."""
    p50_ms: float


@dataclass(frozen=True, kw_only=True)
class ThrottlingVerdict:
    """Whether the board held its speed, and why not."""

    verdict: Outcome
    """`throttled`: a sensor saw it. `slowed`: frames became slower and no sensor says why. `not available`: too few windows, no sensor."""
    throttled: bool | None
    """What the sensors say; `None` = none of them can tell."""
    slowdown: float | None
    """Sustained over burst median latency; `None` = too short to tell."""
    burst_p50_ms: float | None
    """Median over the first sixth of the windows."""
    sustained_p50_ms: float | None
    """Median over the last third of the windows."""
    evidence: tuple[str, ...]
    """What sensors saw; where nothing decides, what may have to do with it."""

    @property
    def words(self) -> str:
        """One line for a table or a page."""
        if self.slowdown is None:
            speed = "too short to compare burst with sustained speed"
        else:
            speed = f"sustained {self.sustained_p50_ms:.2f} ms, burst {self.burst_p50_ms:.2f} ms ({self.slowdown:.2f}x)"
        told = "; ".join(self.evidence) or ("no sensor here can tell" if self.throttled is None else "no sensor saw throttling")
        return f"{self.verdict}: {speed}; {told}"

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {**asdict(self), "evidence": list(self.evidence), "words": self.words}


def latency_windows(durations_ns: Sequence[int], *, window_s: float = 1.0, offset_s: float = 0.0) -> list[LatencyWindow]:
    """Cut frames that followed each other without a pause into windows of at least `window_s`.

    Args:
        durations_ns: of all frames, in order.
        window_s: least length of a window; what is left at the end is its own where it is at least half as long.
        offset_s: when the first frame started, in the seconds of the trace.
    """
    windows: list[LatencyWindow] = []
    start, now, inside = 0, 0, list[int]()
    for duration in durations_ns:
        inside.append(duration)
        now += duration
        if now - start >= window_s * 1e9:
            windows.append(LatencyWindow(offset_s + start / 1e9, statistics.median(inside) / 1e6))
            start, inside = now, []
    if inside and now - start >= window_s * 0.5e9:
        windows.append(LatencyWindow(offset_s + start / 1e9, statistics.median(inside) / 1e6))
    return windows


def throttling_verdict(trace: Trace, windows: Sequence[LatencyWindow], *, gpu: bool = False) -> ThrottlingVerdict:
    """Judge a measured loop by its latencies and the sensors recorded around it.

    Where frames became slower, a clock that fell is the reason if it is the highest of the processors' at a time, since that
    of an idle one falls, and the GPU's only where frames were answered on it (`gpu`). Another one that fell is named and decides nothing.
    """
    burst = sustained = slowdown = None
    if len(windows) >= LEAST_WINDOWS:
        burst = statistics.median(window.p50_ms for window in windows[:max(1, len(windows) // 6)])
        sustained = statistics.median(window.p50_ms for window in windows[-(len(windows) // 3):])
        slowdown = sustained / burst
    seen = [_look(trace, column) for column in trace.with_role("throttle")]
    evidence = [words for words in seen if words]
    answered = any(trace.points(column.name) for column in trace.with_role("throttle"))
    throttled = bool(evidence) if answered else None
    slower = slowdown is not None and slowdown >= SLOWED
    worked, idle = _fallen_clocks(trace, gpu=gpu)
    if slower and worked:
        throttled, evidence = True, [*evidence, *worked]
    elif slower and not evidence:
        evidence = [f"{words}, which had perhaps nothing to do" for words in idle]
    verdict: Outcome
    if throttled:
        verdict = "throttled"
    elif slower:
        verdict = "slowed"
    else:
        verdict = "not available" if slowdown is None else "held"
    return ThrottlingVerdict(verdict=verdict, throttled=throttled, slowdown=slowdown, burst_p50_ms=burst, sustained_p50_ms=sustained,
                             evidence=tuple(evidence))


def chart_series(trace: Trace, windows: Sequence[LatencyWindow] = ()) -> list[dict[str, Any]]:
    """Series for a chart over time, latencies first: `name`, `unit`, `points` of [seconds, value or None]."""
    series: list[dict[str, Any]] = []
    if windows:
        series.append({"name": "latency", "unit": "ms", "points": [[window.start_s, window.p50_ms] for window in windows]})
    for role, unit in (("temperature", "c"), ("clock", "mhz"), ("power", "w")):
        for column in trace.with_role(role):
            if column.kind == "gauge":
                points = [[time, value] for time, value in zip(trace.times_s, trace.values[column.name], strict=True)]
            else:
                points = _rates(trace, column)
            series.append({"name": column.name.rpartition("_")[0], "unit": unit, "points": points})
    return series


def _rates(trace: Trace, column: Column) -> list[list[float | None]]:
    points = trace.points(column.name)
    return [[after, (b - a) / (after - before)] for (before, a), (after, b) in pairwise(points) if after > before]


def _look(trace: Trace, column: Column) -> str:
    values = [value for _, value in trace.points(column.name)]
    if not values:
        return ""
    if column.kind == "flags":
        return _flags_words([int(value) for value in values])
    if column.kind == "counter":
        grown = values[-1] - values[0]
        return f"{column.name.rpartition('_')[0]} counted {grown:.0f} events" if grown > 0 else ""
    limited = sum(value > 0 for value in values)
    return f"{column.name.rpartition('_')[0]} was limited in {limited} of {len(values)} samples" if limited else ""


def _flags_words(bits: Sequence[int]) -> str:
    """Bits seen set in a sample, or that appeared among the bits kept since boot while recording."""
    now = 0
    for value in bits:
        now |= value
    seen = (now & 0xFFFF) | ((now & ~bits[0]) >> 16)
    if not seen & CAPPING_BITS:
        return ""
    return f"firmware: {', '.join(decode_throttled(seen).now)}"


def _fallen_clocks(trace: Trace, *, gpu: bool) -> tuple[list[str], list[str]]:
    """Clocks that fell: of what worked, and of what perhaps had nothing to do."""
    heat = max(((value, column.name) for column in trace.with_role("temperature") for _, value in trace.points(column.name)), default=None)
    at = f" ({heat[1].removesuffix('_c')} up to {heat[0]:.0f} °C)" if heat else ""
    clocks = {column.name for column in trace.with_role("clock")}
    worked, idle = list[str](), list[str]()
    for sensor, columns in trace.sensors.items():
        names = [name for name in columns if name in clocks]
        is_gpu = sensor == GPU_CLOCK.name
        highest = [max(known) for values in zip(*(trace.values[name] for name in names), strict=True)
                   if (known := [value for value in values if value is not None])]
        what = f"the highest of {len(names)} {sensor}s" if len(names) > 1 else "".join(f"{name.rpartition('_')[0]} clock" for name in names)
        decides = _fall(highest) if not is_gpu or gpu else ""
        if decides:
            worked.append(f"{what} fell {decides}{at}")
            continue
        falls = ((name, _fall([value for _, value in trace.points(name)])) for name in names)
        idle += [f"{name.rpartition('_')[0]} clock fell {fall}" for name, fall in falls if fall]
    return worked, idle


def _fall(values_mhz: Sequence[float]) -> str:
    """`from 2400 to 1200 MHz` where the median over the last third is below 95 % of that over the first sixth; else empty."""
    if len(values_mhz) < LEAST_WINDOWS:
        return ""
    first = statistics.median(values_mhz[:max(1, len(values_mhz) // 6)])
    last = statistics.median(values_mhz[-(len(values_mhz) // 3):])
    return f"from {first:.0f} to {last:.0f} MHz" if last < CLOCK_FELL * first else ""
