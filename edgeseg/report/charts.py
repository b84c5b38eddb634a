"""Charts as inline SVG: lines over epochs, and bars whose parts follow one another in time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeseg.report.html import Html, el, join, svg

_WIDTH, _HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 34


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that lie in low..high, about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return [0.0 if abs(v) < step * 1e-9 else float(f"{v:.12g}") for v in values]


def line_chart(points: Sequence[tuple[float, float]], *, title: str, x_name: str, percent: bool = False, css: str) -> Html:
    """Draw y over x with axes, and the last value written beside its point. Points that are not finite are left out.

    Args:
        points: (x, y), x ascending.
        title: what is drawn; also what a screen reader says, with first and last value.
        x_name: name of the x axis.
        percent: y is a fraction in 0..1, written in percent.
        css: class of the line (its colour).
    """
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return el("p", f"{title}: nothing was recorded.", class_="muted")
    xs, ys = [p[0] for p in finite], [p[1] for p in finite]
    x0, x1 = min(xs), max(max(xs), min(xs) + 1)
    y0, y1 = min(0.0, min(ys)), max(ys)
    y1 = y0 + 1 if y1 <= y0 else y0 + (y1 - y0) * 1.06
    y1 = min(1.0, y1) if percent and max(ys) <= 1 else y1

    def px(x: float) -> float:
        return round(_LEFT + (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT), 1)

    def py(y: float) -> float:
        return round(_HEIGHT - _BOTTOM - (y - y0) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM), 1)

    def show(y: float) -> str:
        return f"{y * 100:.0f} %" if percent else f"{y:.3g}"

    grid = []
    for y in ticks(y0, y1):
        grid.append(svg("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=py(y), y2=py(y), class_="grid"))
        grid.append(svg("text", show(y), x=_LEFT - 7, y=py(y) + 4, text_anchor="end"))
    for x in ticks(x0, x1):
        if float(x).is_integer():
            grid.append(svg("text", f"{x:.0f}", x=px(x), y=_HEIGHT - _BOTTOM + 17, text_anchor="middle"))
    grid.append(svg("text", x_name, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 2, text_anchor="middle"))
    last_x, last_y = finite[-1]
    above = py(last_y) > _TOP + 20
    marks = [
        svg("polyline", points=" ".join(f"{px(x):g},{py(y):g}" for x, y in finite), class_=f"line {css}"),
        svg("circle", cx=px(last_x), cy=py(last_y), r=3.5, class_=f"dot {css}"),
        svg("text", f"{last_y * 100:.1f} %" if percent else f"{last_y:.3f}", x=px(last_x), y=py(last_y) + (-9 if above else 18),
            text_anchor="end" if px(last_x) > _WIDTH / 2 else "start", class_="value"),
    ]
    said = f"{title}: {show(ys[0])} at {x_name} {xs[0]:g}, {show(ys[-1])} at {x_name} {xs[-1]:g}."
    chart = svg("svg", svg("title", said), join(grid), join(marks), viewbox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", class_="chart")
    return el("figure", el("figcaption", title), chart)


def part_bar(parts: Sequence[tuple[str, float]], *, full: float, said: str) -> Html:
    """Draw parts one after the other as a bar; `full` is the value that fills the width. Text-free, so it fits any width.

    Args:
        parts: (CSS class, value at least 0).
        full: largest sum among the bars that are drawn together.
        said: what a screen reader says.
    """
    rects, start = [], 0.0
    for css, value in parts:
        width = 100 * value / full if full > 0 else 0.0
        rects.append(svg("rect", x=f"{start:.3f}%", y=0, width=f"{width:.3f}%", height=16, class_=css))
        start += width
    return svg("svg", svg("title", said), join(rects), width="100%", height=16, role="img", class_="bar")
