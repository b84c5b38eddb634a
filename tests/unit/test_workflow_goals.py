"""Goals: accuracy binds every bundle, speed and size the recommended one; nothing to recommend is nothing reached."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_example import report

from edgeseg.core.config import GoalsSection
from edgeseg.core.errors import goals_exit_code
from edgeseg.report.model import ResultRow
from edgeseg.report.recommend import mark
from edgeseg.report.words import verdict_word
from edgeseg.workflow.measure.measuring import gain_words
from edgeseg.workflow.show.goals import judge_rows
from targets.judging import Finding, judge_accuracy

ROW = ResultRow(
    target="host",
    bundle="r-onnx-fp32",
    bundle_sha256="0" * 64,
    format="onnx",
    precision="fp32",
    runtime="onnxruntime",
    runtime_version="1",
    device="local",
    measured_on="cpu",
    is_target_machine=True,
    quick=False,
    threads=1,
    size_bytes=3_000_000,
    p50_ms=8.0,
    p90_ms=12.0,
    p99_ms=20.0,
    fps=120.0,
    agreement=1.0,
    miou=0.7,
    recommended=True,
)


def _accuracy(miou: float, goals: GoalsSection, precision: str = "fp32") -> tuple[object, ...]:
    return judge_accuracy(
        precision=precision, golden_agreement=1.0, agreement=0.99, miou=miou, miou_drop=0.0, worst_class_drop=None, goals=goals
    )


def test_speed_goals_bind_the_recommended_row_only() -> None:
    slow = replace(ROW, bundle="r-onnx-int8", precision="int8", p90_ms=50.0, recommended=False)
    rows, goals = judge_rows([ROW, slow], {}, GoalsSection(p90_ms=10.0, size_mb=4.0, fps=100.0))
    assert rows[0].failed_goals == ("p90_ms",)
    assert rows[1].failed_goals == ()
    assert {g.goal: g.passed for g in goals} == {"p90_ms": False, "size_mb": True, "fps": True}


def test_nothing_recommended_reaches_no_speed_goal() -> None:
    _, goals = judge_rows([replace(ROW, recommended=False)], {}, GoalsSection(p90_ms=1000.0))
    assert [(g.goal, g.got, g.passed) for g in goals] == [("p90_ms", None, False)]


@pytest.mark.parametrize(("p90_ms", "code"), [(12.0, 3), (40.0, 1)])
def test_where_accuracy_is_not_decided_speed_is_missed_only_if_no_bundle_could_reach_it(p90_ms: float, code: int) -> None:
    section = GoalsSection(miou=0.7, p90_ms=25.0, size_mb=4.0)
    findings = _by_interval(0.0, 0.0, 0.0, section)
    open_ = replace(ROW, p90_ms=p90_ms, recommended=False, undecided_goals=tuple(f.goal for f in findings if f.undecided))
    missed = replace(open_, bundle="r-onnx-int8", precision="int8", undecided_goals=(), failed_goals=("golden",))
    assert open_.undecided_goals == ("miou",)
    rows, goals = judge_rows(mark([open_, missed]), {ROW.bundle: findings}, section)
    assert not any(row.recommended for row in rows)
    data = report(rows=tuple(rows), goals=tuple(goals))
    assert goals_exit_code(passed=data.passed, undecided=data.undecided) == code
    by_name = {goal.goal: goal for goal in goals}
    assert by_name["size_mb"].undecided and by_name["size_mb"].about == "no bundle is recommended: its accuracy is not decided"
    assert by_name["p90_ms"].undecided == (code == 3)


def test_a_bundle_without_a_time_leaves_nothing_undecided() -> None:
    open_ = replace(ROW, p50_ms=None, p90_ms=None, recommended=False, undecided_goals=("miou",))
    _, goals = judge_rows([open_], {}, GoalsSection(size_mb=4.0))
    assert [(goal.passed, goal.undecided) for goal in goals] == [(False, False)]


def test_each_goal_is_shown_where_it_turned_out_worst() -> None:
    section = GoalsSection(miou=0.65, agreement=0.999)
    accuracy = {"a": _accuracy(0.7, section), "b": _accuracy(0.6, section, "int8"), "c": _accuracy(0.68, section)}
    _, goals = judge_rows([ROW], accuracy, section)  # type: ignore[arg-type]
    by_name = {g.goal: g for g in goals}
    assert (by_name["miou"].where, by_name["miou"].got, by_name["miou"].passed) == ("b", 0.6, False)
    assert by_name["agreement"].where in ("a", "c")  # binds fp32 only
    assert not by_name["agreement"].passed


def _drops(low: float, value: float, high: float) -> dict[str, Any]:
    one = {"value": value, "low": low, "high": high, "num_frames": 60, "reason": None}
    return {"miou": {**one, "value": 0.7, "low": 0.65, "high": 0.75}, "miou_drop": one, "class_drop": {"weed": {**one, "num_frames": 9}}}


def _by_interval(low: float, value: float, high: float, section: GoalsSection) -> tuple[Finding, ...]:
    return judge_accuracy(
        precision="int8", golden_agreement=1.0, agreement=0.99, miou=0.7, miou_drop=value, worst_class_drop=value, goals=section,
        intervals=_drops(low, value, high),
    )


def test_a_goal_that_is_missed_is_worse_than_one_not_decided() -> None:
    section = GoalsSection(miou_drop=0.01)
    accuracy = {
        "kept": _by_interval(0.001, 0.002, 0.003, section),
        "open": _by_interval(-0.05, 0.005, 0.06, section),
        "missed": _by_interval(0.011, 0.012, 0.013, section),
    }
    found = {}
    for names in (("kept",), ("kept", "open"), ("kept", "open", "missed")):
        _, goals = judge_rows([ROW], {name: accuracy[name] for name in names}, section)
        found[names[-1]] = next(goal for goal in goals if goal.goal == "miou_drop")
    assert {name: goal.where for name, goal in found.items()} == {"kept": "kept", "open": "open", "missed": "missed"}
    assert [(goal.passed, goal.undecided) for goal in found.values()] == [(True, False), (False, True), (False, False)]
    assert found["open"].more_frames is not None and "more images needed" in found["open"].about
    assert verdict_word(found["open"]) == "not decided"


def test_a_class_in_few_images_is_named_with_how_many() -> None:
    finding = _by_interval(-0.05, 0.005, 0.06, GoalsSection(class_drop=0.03))[-1]
    assert finding.undecided and not finding.passed
    assert finding.about.startswith("weed, in 9 of 60 images; about ")


@pytest.mark.parametrize(("passed", "undecided", "code"), [(True, False, 0), (False, False, 1), (False, True, 3)])
def test_exit_codes(passed: bool, undecided: bool, code: int) -> None:
    assert goals_exit_code(passed=passed, undecided=undecided) == code


def test_pruning_pays_only_if_the_whole_interval_is_above_one() -> None:
    cut = {"macs_before": 200, "macs_after": 100}
    assert gain_words({"ratio": 1.4, "low": 1.2, "high": 1.5}, cut).startswith("Pruning paid off: 1.40 times as fast")
    assert gain_words({"ratio": 1.1, "low": 0.9, "high": 1.3}, cut).startswith("Pruning did not make it faster")
