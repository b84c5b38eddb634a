"""Which bundle to put on a target, and why, in one sentence. Pure: rows in, recommendations out.

The rules, in order:

1. Only what was verified and meets its accuracy goals, and was measured, is considered.
2. Where rows were measured on the target itself, the others do not count.
3. A bundle below fp32 is considered only if it is faster than its own fp32 in the same runtime and place, with the whole
   95 % interval above 1; smaller files alone are no reason to lose accuracy.
4. An int8 or mixed bundle also has to be faster than the fp32 bundle in the runtime's own float arithmetic (bf16 on processors that
   have it), where that is as accurate as asked: else that is the better choice, and a row of its own.
5. Among the rest the lowest median wins; medians within 1 % of it are a tie, and the smallest file wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgeseg.report.model import ResultRow
from edgeseg.report.words import ms, percent

_TIE: Final = 1.01


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The bundle for one target, or none; `reason` is one sentence either way."""

    target: str
    row: ResultRow | None
    reason: str
    int8_note: str = ""
    """Plain words where int8 is not what is recommended though there is one; empty otherwise."""


def recommend(rows: Sequence[ResultRow]) -> tuple[Recommendation, ...]:
    """Give one recommendation a target, in the order targets first appear in `rows`."""
    return tuple(_for_target(target, [row for row in rows if row.target == target]) for target in dict.fromkeys(r.target for r in rows))


def mark(rows: Sequence[ResultRow]) -> tuple[ResultRow, ...]:
    """Give the rows back with `recommended` and `reason` filled in."""
    chosen = {rec.target: rec for rec in recommend(rows)}
    marked = []
    for row in rows:
        rec = chosen[row.target]
        is_it = row is rec.row
        reason = rec.reason if is_it else _why_not(row, [r for r in rows if r.target == row.target], rec.row)
        marked.append(replace(row, recommended=is_it, reason=reason))
    return tuple(marked)


def _for_target(target: str, rows: list[ResultRow]) -> Recommendation:
    candidates = [row for row in rows if _obstacle(row, rows) is None]
    if not candidates:
        if all(row.p50_ms is None for row in rows) and all(row.accurate for row in rows):
            return Recommendation(target=target, row=None, reason="None is recommended: nothing was measured for this target.")
        whys = [f"{_place(row, rows)} {_obstacle(row, rows)}" for row in rows]
        return Recommendation(target=target, row=None, reason=f"None is recommended: {'; '.join(whys)}.")
    fastest = min(_p50_ms(row) for row in candidates)
    best = min((row for row in candidates if _p50_ms(row) <= fastest * _TIE), key=lambda row: (row.size_bytes, _p50_ms(row), row.name))
    note = _int8_note(best, rows)
    return Recommendation(target=target, row=best, reason=_why(best, candidates, note), int8_note=note)


def _p50_ms(row: ResultRow) -> float:
    assert row.p50_ms is not None
    return row.p50_ms


def _obstacle(row: ResultRow, rows: Iterable[ResultRow]) -> str | None:
    """What keeps a row from being recommended, to be read after its name; `None` = nothing."""
    rows = list(rows)
    if not row.verified:
        return "was not compared with torch"
    if not row.accurate:
        return f"misses {_and(row.failed_goals)}" if row.failed_goals else f"is not decided on {_and(row.undecided_goals)}: too few images"
    if row.p50_ms is None:
        return "was not measured"
    if not row.is_target_machine and any(r.is_target_machine and r.p50_ms is not None for r in rows):
        return "was measured elsewhere, while other bundles were measured on the target itself"
    if row.reduced:
        return _not_faster(row, rows) or _not_faster_than_own_float(row, rows)
    return None


def _not_faster_than_own_float(row: ResultRow, rows: Iterable[ResultRow]) -> str | None:
    ratio = row.speedup_vs_own_float
    if ratio is None or ratio.low > 1:
        return None
    own = [r for r in rows if r.precision == "fp32" and r.arithmetic != "f32" and r.accurate and _place_of(r) == _place_of(row)]
    if not own:
        return None
    between = f"ratio {ratio.low:.2f} to {ratio.high:.2f}"
    return f"is not faster than its fp32 in {own[0].arithmetic}, which the runtime chooses by itself ({between})"


def _not_faster(row: ResultRow, rows: Iterable[ResultRow]) -> str | None:
    ratio, twin = row.speedup_vs_fp32, _fp32_twin(row, rows)
    if ratio is not None and ratio.low > 1:
        return None
    if twin is None or twin.p50_ms is None or row.p50_ms is None:
        return "is not faster than its fp32 here" if ratio else "has no fp32 measured beside it, so whether it is faster is not known"
    times = f"{ms(row.p50_ms)} ms against {ms(twin.p50_ms)} ms"
    if ratio is not None and ratio.high > 1 and row.p50_ms < twin.p50_ms:
        return f"is not clearly faster than its fp32 here: {times}, ratio between {ratio.low:.2f} and {ratio.high:.2f}"
    if ratio is None and row.p50_ms < twin.p50_ms:
        return f"is not shown to be faster than its fp32 here: {times}, without an interval"
    return f"is not faster than its fp32 here: {times}"


def _fp32_twin(row: ResultRow, rows: Iterable[ResultRow]) -> ResultRow | None:
    same = [r for r in rows if not r.reduced and _place_of(r) == _place_of(row)]
    return same[0] if same else None


def _place_of(row: ResultRow) -> tuple[object, ...]:
    return row.format, row.runtime, row.device, row.measured_on, row.threads


def _why(best: ResultRow, candidates: list[ResultRow], note: str) -> str:
    count = len(candidates)
    among = f"the fastest of the {count} bundles that meet all conditions" if count > 1 else "the only bundle that meets all conditions"
    text = f"{best.label} is {among}: {ms(best.p50_ms)} ms (median)"
    if not best.is_target_machine:
        text += f" on {best.measured_on}, which is not the target"
    if best.speedup_vs_fp32 is not None and best.reduced:
        ratio = best.speedup_vs_fp32
        text += f", {ratio.value:.2f} times as fast as its own fp32 (interval {ratio.low:.2f} to {ratio.high:.2f})"
    if best.main_drop is not None:
        points, name = round(best.main_drop * 100, 2), best.main_name
        text += f", and {'loses' if points > 0 else 'gains'} {abs(points):.2f} points of {name}" if points else f", and loses no {name}"
    if best.int8_in_name_only:
        text += f"; called int8, though only {percent(best.int8_share, 0)} of its multiply-accumulates run in int8 there"
    if best.arithmetic != "f32":
        text += f"; golden answers and agreement were not judged in {best.arithmetic}; run it with --arithmetic {best.arithmetic}"
    if note:
        text += f"; {note}"
    return text + "."


def _int8_note(best: ResultRow, rows: list[ResultRow]) -> str:
    """Say plainly why an fp32 bundle is recommended although there are int8 ones."""
    if best.precision != "fp32":
        return ""
    own = [r for r in rows if r.precision == "int8" and _place_of(r) == _place_of(best)]
    if own and (why := _obstacle(own[0], rows)) is not None:
        return f"its int8 {why}"
    if own:  # faster than its fp32 beyond doubt, yet not chosen: within the tie and larger
        return "its int8 is no smaller at the same speed"
    return "there is no int8 of it to compare with" if any(r.precision == "int8" for r in rows) else ""


def _why_not(row: ResultRow, rows: list[ResultRow], best: ResultRow | None) -> str:
    obstacle = _obstacle(row, rows)
    if obstacle is not None:
        return f"Not recommended: it {obstacle}."
    assert best is not None
    if _p50_ms(row) <= _p50_ms(best) * _TIE:
        return f"As fast as {_place(best, rows)} but not smaller."
    return f"Good, but {_place(best, rows)} is faster: {ms(best.p50_ms)} ms against {ms(row.p50_ms)} ms."


def _place(row: ResultRow, rows: Iterable[ResultRow]) -> str:
    twice = sum(r.label == row.label for r in rows) > 1
    return f"{row.label} ({row.runtime}, {row.device})" if twice else row.label


def _and(names: Sequence[str]) -> str:
    quoted = [f"its goal {name}" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
