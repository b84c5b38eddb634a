"""A scatter plot as inline SVG: accuracy over latency, the Pareto front as a staircase, limits as lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edgeseg.report.charts import ticks
from edgeseg.report.html import Child, Html, el, join, svg

_WIDTH: Final = 760
_HEIGHT: Final = 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 20, 14, 40
_LABEL_WIDTH: Final = 22
_LABEL_HEIGHT: Final = 13


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One point of the plot."""

    x: float
    """Above 0; drawn on a logarithmic axis."""
    y: float
    """A fraction in 0..1."""
    css: str
    """`front`, `behind` or `chosen`."""
    said: str
    """What is shown when the pointer rests on it."""
    label: str = ""


def scatter(dots: Sequence[Dot], *, title: str, x_name: str, x_limit: float | None = None, y_limit: float | None = None) -> Html:
    """Draw the dots; those of the front are joined by the staircase of what can be had at each x.

    Args:
        dots: what to draw, in any order; points that are not finite or not above 0 in x are left out.
        title: what is drawn; also what a screen reader says.
        x_name: name of the x axis, with its unit.
        x_limit: largest x that is allowed, drawn as a line.
        y_limit: smallest y that is allowed, drawn as a line.
    """
    drawn = [dot for dot in dots if math.isfinite(dot.x) and dot.x > 0 and math.isfinite(dot.y)]
    if not drawn:
        return el("p", f"{title}: nothing was measured.", class_="muted")
    xs = [dot.x for dot in drawn] + ([x_limit] if x_limit else [])
    ys = [dot.y for dot in drawn] + ([y_limit] if y_limit is not None else [])
    low, high = math.log(min(xs) / 1.15), math.log(max(xs) * 1.15)
    margin = max(0.02, 0.1 * (max(ys) - min(ys)))
    y0, y1 = max(0.0, min(ys) - margin), min(1.0, max(ys) + margin)

    def px(x: float) -> float:
        return round(_LEFT + (math.log(x) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT), 1)

    def py(y: float) -> float:
        return round(_HEIGHT - _BOTTOM - (y - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM), 1)

    grid: list[Child] = []
    for y in ticks(y0, y1):
        grid.append(svg("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=py(y), y2=py(y), class_="grid"))
        grid.append(svg("text", f"{y * 100:.3g} %", x=_LEFT - 7, y=py(y) + 4, text_anchor="end"))
    for x in _round_numbers(math.exp(low), math.exp(high)):
        grid.append(svg("line", x1=px(x), x2=px(x), y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="grid"))
        grid.append(svg("text", f"{x:g}", x=px(x), y=_HEIGHT - _BOTTOM + 17, text_anchor="middle"))
    grid.append(svg("text", x_name, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 4, text_anchor="middle"))
    if x_limit:
        grid.append(svg("line", x1=px(x_limit), x2=px(x_limit), y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="limit"))
        grid.append(svg("text", f"at most {x_limit:g}", x=px(x_limit) - 5, y=_TOP + 11, text_anchor="end", class_="value"))
    if y_limit is not None:
        grid.append(svg("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=py(y_limit), y2=py(y_limit), class_="limit"))
        grid.append(svg("text", f"at least {y_limit:g}", x=_LEFT + 5, y=py(y_limit) - 5, class_="value"))
    steps = sorted(((dot.x, dot.y) for dot in drawn if dot.css != "behind"), key=lambda step: step[0])
    marks: list[Child] = [svg("polyline", points=_staircase(steps, px, py), class_="line front")] if steps else []
    for dot in drawn:
        marks.append(svg("circle", svg("title", dot.said), cx=px(dot.x), cy=py(dot.y), r=6 if dot.css == "chosen" else 4,
                         class_=f"dot {dot.css}"))
    written: list[tuple[float, float]] = []
    for dot in sorted(drawn, key=lambda dot: dot.css != "chosen"):  # where two would cover each other, the first is written
        x, y = px(dot.x) + 7, py(dot.y) - 7
        if dot.label and all(abs(x - other_x) > _LABEL_WIDTH or abs(y - other_y) > _LABEL_HEIGHT for other_x, other_y in written):
            written.append((x, y))
            marks.append(svg("text", dot.label, x=x, y=y, class_="value"))
    chart = svg("svg", svg("title", title), join(grid), join(marks), viewbox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", class_="chart")
    return el("figure", el("figcaption", title), chart)


def _round_numbers(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low > 30 else (1, 1.5, 2, 3, 5, 7)
    return [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]


def _staircase(steps: Sequence[tuple[float, float]], px: Callable[[float], float], py: Callable[[float], float]) -> str:
    corners: list[tuple[float, float]] = []
    for x, y in steps:
        if corners:
            corners.append((px(x), corners[-1][1]))
        corners.append((px(x), py(y)))
    corners.append((_WIDTH - _RIGHT, corners[-1][1]))
    return " ".join(f"{x:g},{y:g}" for x, y in corners)
