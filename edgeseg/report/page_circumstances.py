"""The page's account of how it was measured: what the frames are enough for, whether the machine held its speed, what else ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from edgeseg.report.charts import line_chart
from edgeseg.report.circumstances import Circumstances, Series
from edgeseg.report.html import Child, Html, el, join
from edgeseg.report.model import ResultRow
from edgeseg.report.page_parts import table, tag

ABOUT: Final = ("Early stopping is MLPerf's estimate of a percentile that is not too small with 99 % confidence; p90 needs 64 frames, p99 "
                "662. Energy is what was drawn above rest. Other programs: their share of all processors before and meanwhile.")
_KINDS: Final = {"held": "good", "throttled": "bad", "slowed": "warn"}
_LEAST_POINTS: Final = 6


def circumstances_section(rows: Sequence[ResultRow]) -> Html:
    """A line a bundle and target, and below it what changed over time where that was measured long enough."""
    measured = [(row, row.circumstances) for row in rows if row.circumstances is not None]
    if not measured:
        return el("p", "Nothing was measured, or by an edgeseg that did not record it.", class_="muted")
    heads = ["Bundle", "Target", ">Frames", ">p90 early stopping", ">p99", "Speed", ">Energy a frame", ">Other programs"]
    body = [_line(row, found) for row, found in measured]
    charts = [part for row, found in measured for part in _charts(row, found)]
    notes = dict.fromkeys(f"Energy on {row.target}: {found.energy_words}." for row, found in measured if found.energy_words)
    return join([table(heads, body, name="How it was measured"), *(el("p", note, class_="muted") for note in notes), *charts])


def _line(row: ResultRow, found: Circumstances) -> Html:
    energy = _none() if found.energy_per_frame_j is None else f"{found.energy_per_frame_j:.3g} J"
    kind = _KINDS.get(found.throttling)
    factor = None if found.slowdown is None else el("span", f"{found.slowdown:.2f} times its burst", class_="sub")
    speed = join([tag(found.throttling, kind) if kind else _none(), factor])
    frames = join([str(found.num_frames), None if found.steady else el("span", "NOT STEADY when it began", class_="sub")])
    others = join([_share(found.others_before), " / ", _share(found.others_during)])
    return el(
        "tr", el("th", row.label, scope="row"), el("td", row.target), el("td", frames, class_="n"),
        el("td", _ms(found.p90_early_stopping_ms), class_="n"), el("td", _ms(found.p99_early_stopping_ms), class_="n"),
        el("td", speed, class_="keep"), el("td", energy, class_="n"),
        el("td", others, class_="n"),
    )


def _charts(row: ResultRow, found: Circumstances) -> list[Html]:
    drawn = [_chart(one) for one in found.series if sum(value is not None for _, value in one.points) >= _LEAST_POINTS]
    if not drawn:
        return []
    moved = "" if found.change is None else f" Over the measurement the median moved by {found.change:+.1%}."
    return [el("h3", f"{row.label} on {row.target}, over time"), el("p", f"{found.throttling_words}.{moved}"),
            el("div", *drawn, class_="charts")]


def _chart(one: Series) -> Html:
    units = {"c": "°C", "mhz": "MHz", "w": "W"}
    points = [(time, math.nan if value is None else value) for time, value in one.points]
    return line_chart(points, title=f"{one.name.replace('_', ' ')}, {units.get(one.unit, one.unit)}", x_name="second", css="loss")


def _ms(value: float | None) -> Child:
    return _none() if value is None else f"{value:.2f} ms"


def _share(value: float | None) -> Child:
    return _none() if value is None else f"{value:.0%}"


def _none() -> Html:
    return el("span", "not available", class_="muted")
