"""From what was recorded around a measurement to what the report shows of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from edgeseg.report.circumstances import Circumstances, Series
from targets.telemetry.trace import Trace
from targets.telemetry.verdict import LatencyWindow, chart_series

_MOST_POINTS: Final = 120


def circumstances(bench: Mapping[str, Any]) -> Circumstances | None:
    """Give what a `BenchResult`, as JSON, says of its circumstances; `None` for one of before they were recorded."""
    if bench.get("trace") is None:
        return None
    windows = [LatencyWindow(*window) for window in bench["windows"]]
    whole, energy, drift, load = bench["end_to_end"], bench["energy"], bench["drift"], bench["load"]
    words = bench["energy_absent"] if energy is None else f"{energy['source']}: {energy['covers']}"
    return Circumstances(
        num_frames=whole["num_frames"], p90_early_stopping_ms=whole["p90_early_stopping_ms"],
        p99_early_stopping_ms=whole["p99_early_stopping_ms"], throttling=bench["throttling"]["verdict"],
        throttling_words=bench["throttling"]["words"], slowdown=bench["throttling"]["slowdown"],
        change=None if drift is None else drift["change"],
        energy_per_frame_j=None if energy is None else energy["per_frame_j"], energy_words=words, others_before=load["others_before"],
        others_during=load["others_during"], steady=bench["steady"],
        series=tuple(_series(one) for one in chart_series(Trace.from_json(bench["trace"]), windows)),
    )


def _series(one: Mapping[str, Any]) -> Series:
    """At most about 120 points, evenly taken."""
    step = max(1, math.ceil(len(one["points"]) / _MOST_POINTS))
    return Series(name=one["name"], unit=one["unit"], points=tuple((time, value) for time, value in one["points"][::step]))
