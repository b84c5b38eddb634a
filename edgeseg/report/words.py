"""Numbers and goals in words, the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from edgeseg.report.model import GoalResult, ResultRow

MISSING: Final = "-"


def number(value: float | None, digits: int = 1, *, scale: float = 1.0) -> str:
    """Format a number, or `-` for one that was not measured; never a negative zero."""
    if value is None or value != value:
        return MISSING
    rounded = round(value * scale, digits)
    return f"{0.0 if rounded == 0 else rounded:,.{digits}f}".replace(",", " ")


def ms(value: float | None) -> str:
    """Format milliseconds without their unit, to about three digits: 0.31, 4.60, 12.3, 123."""
    if value is None:
        return MISSING
    return number(value, 2 if value < 9.995 else 1 if value < 99.95 else 0)


def percent(value: float | None, digits: int = 1) -> str:
    """Format a fraction 0..1 in percent."""
    return MISSING if value is None else f"{number(value, digits, scale=100)} %"


def equal_share(value: float | None, digits: int) -> str:
    """Format a share of equal pixels in percent, cut off rather than rounded: 100 means every single one."""
    if value is None:
        return MISSING
    return f"{math.floor(value * 100 * 10**digits + 1e-9) / 10**digits:.{digits}f}"


def megabytes(size_bytes: float | None, digits: int = 2) -> str:
    """Format bytes in MB (10^6)."""
    return MISSING if size_bytes is None else f"{number(size_bytes, digits, scale=1e-6)} MB"


def count(value: int | None) -> str:
    """Format a large count: 1.14 M, 0.57 G."""
    if value is None:
        return MISSING
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.1 * power and value >= 1000:
            return f"{value / power:.2f} {letter}"
    return str(value)


def _ms(value: float) -> str:
    return f"{ms(value)} ms"


def _points(value: float) -> str:
    return f"{number(value, 2, scale=100)} points"


GOALS: Final[dict[str, tuple[str, str, Callable[[float], str]]]] = {
    "agreement": ("Agreement of fp32 with torch", "at least", lambda v: f"{equal_share(v, 3)} %"),
    "miou": ("mIoU", "at least", lambda v: percent(v, 2)),
    "miou_drop": ("Loss of mIoU against float", "at most", _points),
    "ap": ("AP", "at least", lambda v: percent(v, 2)),
    "ap50": ("AP at IoU 0.5", "at least", lambda v: percent(v, 2)),
    "ap_drop": ("Loss of AP against float", "at most", _points),
    "class_drop": ("Loss of the worst class's IoU", "at most", _points),
    "p90_ms": ("90th-percentile latency", "at most", _ms),
    "fps": ("Frames per second", "at least", lambda v: number(v, 1)),
    "size_mb": ("Size", "at most", lambda v: f"{number(v, 2)} MB"),
    "golden": ("Golden frames answered as sealed", "at least", lambda v: percent(v, 2)),
}
"""A goal's key -> its name in words, its sense, how its value is written."""


def goal_words(goal: GoalResult) -> tuple[str, str, str]:
    """Give a goal's name, what was wanted and what was got, in words."""
    name, sense, show = GOALS.get(goal.goal, (goal.goal, "limit", lambda v: f"{v:g}"))
    return name, f"{sense} {show(goal.limit)}", "not evaluated" if goal.got is None else show(goal.got) + _between(goal, show)


def _between(goal: GoalResult, show: Callable[[float], str]) -> str:
    return "" if goal.low is None or goal.high is None else f" ({show(goal.low)} to {show(goal.high)})"


def verdict_word(goal: GoalResult) -> str:
    """Give `passed`, `not decided` or `missed`."""
    return "passed" if goal.passed else "not decided" if goal.undecided else "missed"


def points_between(interval: tuple[float, float] | None) -> str:
    """Format the interval of a drop as a change in points, `-0.28 to -0.15`; nothing where there is none."""
    if interval is None:
        return ""
    worse, better = (number(-value, 2, scale=100) for value in (interval[1], interval[0]))
    return f"{worse} to {better}"


def threads(row: ResultRow) -> str:
    """Give `1 thread` or `4 threads`; nothing where nothing was measured."""
    if row.threads == 0:
        return "not measured"
    return f"{row.threads} thread{'' if row.threads == 1 else 's'}"


def no_operation(elsewhere: str) -> str:
    """Why no operation is to blame for a rung of the parity ladder; `elsewhere` = the device that answered, empty for this machine."""
    if elsewhere:
        return f"nothing to look at: the same file answers otherwise on {elsewhere}"
    return "no operation found; every tensor seen is alike"
