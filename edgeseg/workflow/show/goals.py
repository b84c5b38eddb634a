"""Judge results against `[goals]`: accuracy goals bind every bundle, speed and size goals the bundle recommended for each target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeseg.core.config import GoalsSection
from edgeseg.report.model import GoalResult, ResultRow
from targets.judging import Finding, judge_speed

LOWER_IS_WORSE = ("agreement", "miou", "ap", "ap50", "fps", "golden")


def judge_rows(
    rows: Sequence[ResultRow], accuracy: dict[str, tuple[Finding, ...]], goals: GoalsSection
) -> tuple[list[ResultRow], list[GoalResult]]:
    """Give marked rows with the speed goals their recommended ones miss, and one result a goal: where it turned out worst.

    Missed is worse than not decided, and that worse than passed. `accuracy` holds the findings of each bundle by name. A target without
    a recommended bundle misses every speed and size goal: there is nothing to put on it. But where the accuracy of one of its bundles is
    not decided, a goal that this bundle would reach is not decided either.
    """
    judged = []
    found: dict[str, list[GoalResult]] = {}

    def note(finding: Finding, where: str) -> None:
        result = GoalResult(**finding.to_json(), where=where)
        found.setdefault(finding.goal, []).append(result)

    for bundle, findings in accuracy.items():
        for finding in findings:
            note(finding, bundle)
    for row in rows:
        if not row.recommended:
            judged.append(row)
            continue
        speed = judge_speed(p90_ms=row.p90_ms, fps=row.fps, size_bytes=row.size_bytes, goals=goals)
        for finding in speed:
            note(finding, f"{row.target}: {row.label}")
        judged.append(replace(row, failed_goals=(*row.failed_goals, *(f.goal for f in speed if not f.passed))))
    for target in dict.fromkeys(row.target for row in rows):
        here = [row for row in rows if row.target == target]
        if not any(row.recommended for row in here):
            for finding in _nothing_recommended(here, goals):
                note(finding, f"{target}: no bundle is recommended")
    return judged, [_worst(results) for results in found.values()]


def _nothing_recommended(rows: Sequence[ResultRow], goals: GoalsSection) -> list[Finding]:
    """Findings of speed and size for a target without a recommended bundle: missed, unless more images could make a bundle reach them."""
    open_rows = [row for row in rows if row.undecided and row.p50_ms is not None]
    possible = [judge_speed(p90_ms=row.p90_ms, fps=row.fps, size_bytes=row.size_bytes, goals=goals) for row in open_rows]
    reachable = {finding.goal for findings in possible for finding in findings if finding.passed}
    return [
        replace(finding, undecided=True, about="no bundle is recommended: its accuracy is not decided") if finding.goal in reachable
        else finding
        for finding in judge_speed(p90_ms=None, fps=None, size_bytes=None, goals=goals)
    ]


def _worst(results: list[GoalResult]) -> GoalResult:
    def badness(result: GoalResult) -> tuple[bool, bool, float]:
        lower = result.goal in LOWER_IS_WORSE
        judged = next((value for value in (result.low if lower else result.high, result.got) if value is not None), None)
        far = float("inf") if judged is None else -judged if lower else judged
        return not (result.passed or result.undecided), result.undecided, far

    return max(results, key=badness)
