"""Is a goal reached? Passed, missed, or not decided: the frames measured on are too few to say.

mIoU and the drops of mIoU and of each class are judged by their 95 % interval over frames (`edgeseg.core.bootstrap`). Passed = the
whole interval keeps the limit, so its bad side does. Missed = none of it does. In between it is not decided, which does not reach the
goal either, and the finding says about how many more frames would decide it. Numbers without an interval (AP, agreement, golden frames,
speed, size, and drops where the float network's answers frame by frame are not at hand) are judged as they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.bootstrap import more_frames
from edgeseg.core.config import GoalsSection
from edgeseg.core.stats import Interval
from targets.verify import golden_limit

if TYPE_CHECKING:
    from targets.verify import VerifyResult

POINT: Final = "measured value alone: no interval over frames"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One goal, and whether it was reached."""

    goal: str
    """Key of `[goals]`, or `golden`."""
    limit: float
    got: float | None
    """As measured; `None` = could not be evaluated, which does not pass."""
    passed: bool
    low: float | None = None
    high: float | None = None
    """The 95 % interval it was judged by; `None` = judged as measured."""
    undecided: bool = False
    """Not passed, and not missed either: the interval holds the limit."""
    more_frames: int | None = None
    """About how many more frames would decide it; `None` = it is decided, or more than a million."""
    about: str = ""
    """In words: the class it is about, and what is not decided."""

    def to_json(self) -> dict[str, Any]:
        """Give all fields."""
        return asdict(self)


def at_least(goal: str, limit: float, got: float | None) -> Finding:
    """Judge a number that should reach `limit`."""
    return Finding(goal=goal, limit=limit, got=got, passed=got is not None and got >= limit)


def at_most(goal: str, limit: float, got: float | None) -> Finding:
    """Judge a number that should not exceed `limit`."""
    return Finding(goal=goal, limit=limit, got=got, passed=got is not None and got <= limit)


def judge_interval(goal: str, limit: float, interval: Interval, *, num_frames: int, upper: bool, name: str = "") -> Finding:
    """Judge a number by its interval: `upper` = it should not exceed `limit`, else it should reach it. `num_frames` = of the split."""
    low, high, got = interval.low, interval.high, interval.value
    passed = low is not None and high is not None and (high <= limit if upper else low >= limit)
    missed = low is not None and high is not None and (low > limit if upper else high < limit)
    of = f"{name}, in {interval.num_frames} of {num_frames} images" if name else ""
    if passed or missed:
        return Finding(goal=goal, limit=limit, got=got, passed=passed, low=low, high=high, about=of)
    more = more_frames(interval, limit, num_frames=num_frames)
    about = "; ".join(part for part in (of, interval.reason or "", needed_words(more)) if part)
    return Finding(goal=goal, limit=limit, got=got, passed=False, low=low, high=high, undecided=True, more_frames=more, about=about)


def needed_words(more: int | None) -> str:
    """Say how many more images would decide, to two digits."""
    if more is None:
        return "more than a million more images needed: it lies at the limit"
    step = 10 ** max(0, len(str(more)) - 2)
    rounded = -(-more // step) * step
    return f"about {rounded} more image{'' if rounded == 1 else 's'} needed"


def worst_of_classes(limit: float, drops: Mapping[str, Interval], *, num_frames: int) -> Finding:
    """Judge `class_drop`: every class has to keep the limit. The finding is of the class that is worst off.

    A class that misses it counts before one that is not decided, and that before one that keeps it. Each interval is of its own class: that
    all classes together lie in theirs is less certain than 95 %.
    """
    found = [
        judge_interval("class_drop", limit, interval, num_frames=num_frames, upper=True, name=name) for name, interval in drops.items()
    ]

    def badness(finding: Finding) -> tuple[bool, bool, float]:
        return not (finding.passed or finding.undecided), finding.undecided, float("inf") if finding.high is None else finding.high

    return max(found, key=badness)


def judge(result: VerifyResult, goals: GoalsSection) -> tuple[Finding, ...]:
    """Judge the accuracy goals that were set, and always the golden frames; see `judge_accuracy`."""
    return judge_accuracy(
        precision=result.precision, golden_agreement=result.golden_agreement, agreement=result.agreement, miou=result.miou,
        miou_drop=result.miou_drop, worst_class_drop=result.worst_class_drop, goals=goals,
        intervals=result.intervals.to_json(result.classes),
    )


def judge_accuracy(
    *, precision: str, golden_agreement: float, agreement: float | None, miou: float | None, miou_drop: float | None,
    worst_class_drop: float | None, goals: GoalsSection, task: str = "semantic", ap: float | None = None, ap50: float | None = None,
    ap_drop: float | None = None, intervals: Mapping[str, Any] | None = None,
) -> tuple[Finding, ...]:
    """Judge the accuracy goals that were set, and always the golden frames. `agreement` is a goal of fp32 bundles only.

    `worst_class_drop` is of IoU, with task `instance` of AP. `intervals` = those of `VerifyResult.to_json()`; what they hold is judged by
    them, and the rest as measured.

    Speed and size (`p90_ms`, `fps`, `size_mb`) belong to the recommended bundle of a target: `judge_speed`.
    """
    given = intervals or {}
    num_frames = given["miou"]["num_frames"] if given else 0
    findings = [at_least("golden", golden_limit(task), golden_agreement)]
    if goals.agreement is not None and precision == "fp32":
        findings.append(at_least("agreement", goals.agreement, agreement))
    for goal, limit, got in (("miou", goals.miou, miou), ("miou_drop", goals.miou_drop, miou_drop)):
        if limit is not None and given.get(goal):
            interval = Interval.from_json(given[goal])
            findings.append(judge_interval(goal, limit, interval, num_frames=num_frames, upper=goal == "miou_drop"))
        elif limit is not None:
            findings.append(_as_measured(goal, limit, got, upper=goal == "miou_drop"))
    for goal, limit, got in (("ap", goals.ap, ap), ("ap50", goals.ap50, ap50), ("ap_drop", goals.ap_drop, ap_drop)):
        if limit is not None:
            findings.append(_as_measured(goal, limit, got, upper=goal == "ap_drop"))
    if goals.class_drop is not None:
        drops = {name: Interval.from_json(one) for name, one in given.get("class_drop", {}).items() if one}
        findings.append(
            worst_of_classes(goals.class_drop, drops, num_frames=num_frames) if drops
            else _as_measured("class_drop", goals.class_drop, worst_class_drop, upper=True)
        )
    return tuple(findings)


def _as_measured(goal: str, limit: float, got: float | None, *, upper: bool) -> Finding:
    judged = (at_most if upper else at_least)(goal, limit, got)
    return Finding(goal=goal, limit=limit, got=got, passed=judged.passed, about="" if got is None else POINT)


def judge_speed(*, p90_ms: float | None, fps: float | None, size_bytes: int | None, goals: GoalsSection) -> tuple[Finding, ...]:
    """Judge the goals of speed and size that were set, for the recommended bundle of a target."""
    findings = []
    if goals.p90_ms is not None:
        findings.append(at_most("p90_ms", goals.p90_ms, p90_ms))
    if goals.fps is not None:
        findings.append(at_least("fps", goals.fps, fps))
    if goals.size_mb is not None:
        findings.append(at_most("size_mb", goals.size_mb, None if size_bytes is None else size_bytes / 1e6))
    return tuple(findings)
