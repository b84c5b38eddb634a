"""The page shows which frames calibrated, and results that are not decided are neither passed nor missed."""

from __future__ import annotations

import io
from dataclasses import replace

from report_example import report, row
from rich.console import Console

from edgeseg.report.model import GoalResult, ResultRow
from edgeseg.report.page import render_page
from edgeseg.report.recommend import mark
from edgeseg.report.table import RowsTable

CALIBRATION = {
    "num_frames": 24, "ids_sha256": "ab" * 32, "way": "cover", "refused": 3,
    "covers": {
        "chosen": {"class_frames": {"soil": 24, "weed<b>": 5}, "brightness": [31.2, 200.6], "contrast": [10.0, 61.0]},
        "of": {"num_frames": 360, "class_frames": {"soil": 360, "weed<b>": 7}, "brightness": [30.0, 210.0], "contrast": [9.0, 70.0]},
    },
}
OPEN = GoalResult(
    goal="class_drop", limit=0.03, got=0.012, passed=False, where="onnx-int8", low=-0.02, high=0.05, undecided=True, more_frames=210,
    about="weed, in 9 of 60 images; about 210 more images needed",
)


def test_calibration_frames_are_shown() -> None:
    page = render_page(report(calibration=CALIBRATION))
    assert "24 of 360 training frames, chosen to cover; 3 refused as look-alikes of val or test" in page
    assert "weed&lt;b&gt;" in page and "weed<b>" not in page
    assert "31 to 201" in page and "30 to 210" in page
    assert "No int8 bundle was made" in render_page(report())


def test_a_goal_that_is_not_decided_is_shown_as_that() -> None:
    passed = GoalResult(goal="miou", limit=0.5, got=0.6, passed=True, where="onnx-int8", low=0.55, high=0.65)
    missed = GoalResult(goal="miou_drop", limit=0.01, got=0.02, passed=False, where="onnx-int8", low=0.015, high=0.025)
    data = report(goals=(passed, OPEN))
    assert data.undecided and not data.passed
    page = render_page(data)
    assert "1 of 2 goals not decided" in page and "goals missed" not in page
    assert "about 210 more images needed" in page and "1.20 points (-2.00 points to 5.00 points)" in page
    both = report(goals=(passed, OPEN, missed))
    assert not both.undecided
    assert "1 of 3 goals missed, 1 not decided" in render_page(both)


def test_a_bundle_that_is_not_decided_is_not_recommended_and_says_why() -> None:
    open_ = row("onnx", "int8", 5.0, undecided_goals=("miou_drop",), drop_interval=(-0.01, 0.03),
                class_drop_intervals=((0.0, 0.1), None))
    assert ResultRow.from_json(open_.to_json()) == open_
    rows = mark([row("onnx", "fp32", 10.0), open_])
    assert rows[0].recommended and not rows[1].recommended
    assert "is not decided on its goal miou_drop: too few images" in rows[1].reason
    missed = replace(open_, failed_goals=("class_drop",))
    assert "misses its goal class_drop" in mark([missed])[0].reason
    console = Console(width=160, file=io.StringIO())
    with console.capture() as shown:
        console.print(RowsTable(rows))
    assert "not decided: miou_drop" in shown.get()
