"""The page of a search: the Pareto front as a plot, every point that was tried as a table, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import Any, Final

from edgeseg.report.html import Child, Html, el, join
from edgeseg.report.page_parts import facts, table, tag
from edgeseg.report.scatter import Dot, scatter
from edgeseg.report.words import megabytes, ms, percent

_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STATES: Final = {"complete": "", "failed": "bad", "stopped": "warn", "too slow": "warn", "running": "warn"}
"""How a trial ended -> the kind of its tag; "" = none."""


@dataclass(frozen=True, kw_only=True)
class SearchRow:
    """One trial."""

    trial: int
    state: str
    """`complete`, `failed`, `stopped`, `too slow` or `running`."""
    network: str
    width: float
    size_hw: tuple[int, int]
    macs_share: float
    precision: str
    miou: float | None = None
    """On val, of the bundle."""
    miou_low: float | None = None
    """Lower end of its 95 % interval, by which a goal of mIoU is judged."""
    p90_ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    """95 % interval of the p90, from that of the ratio to the baseline."""
    size_bytes: int | None = None
    places: tuple[Mapping[str, Any], ...] = ()
    """The same for each target's format."""
    meets_goals: bool | None = None
    """`None` = it gave no value."""
    on_front: bool = False
    chosen: bool = False
    note: str = ""
    """Why it gave no value."""

    @property
    def words(self) -> str:
        """The point in a few words."""
        cut = "" if self.macs_share >= 1 else f", {self.macs_share:g} of the MACs"
        return f"{self.network}, width {self.width:g}, {self.size_hw[0]} × {self.size_hw[1]}{cut}, {self.precision}"

    def to_json(self) -> dict[str, Any]:
        """Give the row as JSON values."""
        return {**asdict(self), "size_hw": list(self.size_hw), "places": [dict(place) for place in self.places]}


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """All that the page shows."""

    run_name: str
    created_utc: str
    edgeseg_version: str
    dataset: str
    epochs: int
    """Of each trial's training."""
    measured: tuple[str, ...]
    """Where and how latencies were measured, a sentence a place."""
    p90_limit_ms: float | None
    miou_limit: float | None
    verdict: str
    """What was chosen and why, or by how much no point meets the goals."""
    passed: bool | None
    """Whether a point meets the goals; `None` = there are none."""
    rows: tuple[SearchRow, ...]
    notes: tuple[str, ...] = ()
    config_toml: str = ""
    """The configuration of the chosen point; empty = none was chosen."""
    pairs: Mapping[str, str] = field(default_factory=dict)
    """Facts shown above the table."""


def render_search_page(data: SearchReport) -> str:
    """Give the whole page as HTML text. Everything in `data` is treated as plain text and escaped."""
    head = {None: "No goals were set", True: "A point meets the goals", False: "No point meets the goals"}[data.passed]
    css_class = {None: "verdict", True: "verdict good", False: "verdict bad"}[data.passed]
    sections = [
        _section("front", "mIoU against latency", "The dashed line joins the points that no other one beats; figures are "
                 "trials.", _plot(data)),
        _section("points", "Points that were tried", f"mIoU on val after {data.epochs} epochs: it ranks points, and says little of what a "
                 "full training reaches.", join([facts(list(data.pairs.items())), _table(data)])),
        _section("measured", "How it was measured", "", el("ul", *(el("li", line) for line in (*data.measured, *data.notes)))),
    ]
    if data.config_toml:
        sections.append(_section("config", "Configuration of the chosen point", "", el("pre", el("code", data.config_toml), tabindex=0)))
    when = data.created_utc.replace("T", " ").replace("+00:00", " UTC")
    header = el("header", el("p", "edgeseg search", class_="brand"), el("h1", data.run_name),
                el("p", f"{data.dataset}, ", el("time", when, datetime=data.created_utc), class_="muted"))
    main = el("main", el("div", el("h2", head), el("p", data.verdict), class_=css_class), *sections, id="main")
    footer = el("footer", f"Made by edgeseg {data.edgeseg_version}. This file is complete in itself: it loads nothing and runs no script.")
    body = el("body", el("div", header, main, footer, class_="wrap"))
    css = files("edgeseg.report").joinpath("page.css").read_text(encoding="utf-8")
    page_head = el(
        "head", el("meta", charset="utf-8"), el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"), el("meta", name="color-scheme", content="light dark"),
        el("title", f"{data.run_name}: search (edgeseg)"), Html(f"<style>{css}</style>"),
    )
    return "<!DOCTYPE html>\n" + el("html", page_head, body, lang="en") + "\n"


def _section(key: str, title: str, about: str, content: Html) -> Html:
    return el("section", el("h2", title, id=f"{key}-title"), el("p", about, class_="muted") if about else None, content, id=key,
              aria_labelledby=f"{key}-title")


def _plot(data: SearchReport) -> Html:
    dots = [
        Dot(x=row.p90_ms, y=row.miou, css="chosen" if row.chosen else "front" if row.on_front else "behind",
            said=f"trial {row.trial}: {row.words}: mIoU {percent(row.miou, 2)}, p90 {ms(row.p90_ms)} ms",
            label=str(row.trial) if row.chosen or row.on_front else "")
        for row in data.rows if row.miou is not None and row.p90_ms is not None
    ]
    return scatter(dots, title="mIoU on val over the 90th percentile of latency", x_name="p90 in ms, logarithmic",
                   x_limit=data.p90_limit_ms, y_limit=data.miou_limit)


def _table(data: SearchReport) -> Html:
    body = [_line(row) for row in sorted(data.rows, key=lambda row: (row.p90_ms is None, row.p90_ms or 0.0, row.trial))]
    heads = ["Trial", "Network", ">Width", ">Size", ">MACs kept", "Precision", ">mIoU", ">p90 ms", ">Bundle", "Result"]
    return table(heads, body, name="Points that were tried", about="Fastest first. Small figures: the 95 % interval.")


def _line(row: SearchRow) -> Html:
    interval = None if row.low_ms is None else el("span", f"{ms(row.low_ms)} to {ms(row.high_ms)}", class_="sub")
    marks: list[Child] = []
    if row.chosen:
        marks.append(tag("chosen", "good"))
    elif row.on_front:
        marks.append(tag("on the front", "good"))
    if row.meets_goals is False:
        marks.append(tag("misses a goal", "warn"))
    if _STATES.get(row.state):
        marks.append(tag(row.state, _STATES[row.state]))
    if row.note:
        marks.append(el("span", row.note, class_="sub"))
    cells = [el("td", row.network), *(el("td", text, class_="n") for text in (
        f"{row.width:g}", f"{row.size_hw[0]} × {row.size_hw[1]}", f"{row.macs_share:g}")), el("td", row.precision),
        el("td", percent(row.miou, 2), class_="n"), el("td", ms(row.p90_ms), interval, class_="n"),
        el("td", megabytes(row.size_bytes), class_="n"), el("td", *marks)]
    return el("tr", el("th", str(row.trial), scope="row"), *cells, class_="best" if row.chosen else None)
