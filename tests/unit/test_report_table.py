"""The terminal's table and results.json."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from report_example import row, rows
from rich.console import Console

from edgeseg.core.files import parse_json
from edgeseg.report.model import Ratio, ResultRow
from edgeseg.report.recommend import mark
from edgeseg.report.table import RowsTable, results_json
from edgeseg.report.words import count, equal_share, ms, number, percent

WANTED = ["target", "format", "precision", "runtime", "device", "measured_on", "miou", "miou_float", "worst_class_drop", "agreement",
          "p50_ms", "p90_ms", "p99_ms", "fps", "size_bytes", "peak_rss_bytes", "recommended", "passed"]


def show(width: int, *, terminal: bool, given: tuple[ResultRow, ...] = ()) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system="standard" if terminal else None)
    console.print(RowsTable(given or rows()))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120, 140, 160])
def test_table_fits_and_is_plain_when_piped(width: int) -> None:
    text = show(width, terminal=False)
    assert max(len(line) for line in text.splitlines()) <= width
    assert text.isascii()
    for words in ("onnx fp32", "openvino int8", "88.73", "99.99 ", "4.60", "NOT THE TARGET", "QUICK", "Recommended: openvino int8"):
        assert words in text, words
    assert "…" not in text


def test_each_number_stands_in_the_line_of_its_bundle() -> None:
    (line,) = [line for line in show(130, terminal=False).splitlines() if "openvino int8" in line and "openvino x2" in line]
    wanted = ["openvino", "int8", "openvino", "x2", "88.73", "0.40", "1.6", "weed", "98.74", "4.60", "4.97", "5.98", "213", "0.48", "91",
              "passed"]
    assert line.split() == ["*", *wanted]


def test_a_wide_terminal_has_dice_and_outlines_too() -> None:
    (line,) = [line for line in show(160, terminal=False).splitlines() if "openvino int8" in line and "openvino x2" in line]
    assert line.split()[8:12] == ["weed", "93.82", "81.64", "98.74"]


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in show(100, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not [part for part in show(100, terminal=True).split("\x1b[")[1:] if part.startswith(("3", "9", "1;3"))]


def test_stamps_appear_only_where_they_belong() -> None:
    text = show(100, terminal=False, given=mark([row("onnx", "fp32", 3.0)]))
    assert "NOT THE TARGET" not in text
    assert "QUICK" not in text


def test_markup_in_names_is_text() -> None:
    assert "[bold]x[/bold]" in show(120, terminal=False, given=mark([row("onnx", "fp32", 3.0, measured_on="[bold]x[/bold]")]))


def test_missed_and_unverified_rows_say_so() -> None:
    given = mark([row("onnx", "fp32", 3.0, failed_goals=("miou", "fps")), row("tflite", "fp32", 3.0, agreement=None)])
    text = show(80, terminal=False, given=given)
    assert "missed" in text
    assert "not verified" in " ".join(text.split())


def test_results_hold_every_field_in_a_stable_order_and_are_strict_json() -> None:
    objects = results_json(rows())
    assert [list(o)[: len(WANTED)] for o in objects] == [WANTED] * len(rows())
    assert {tuple(o) for o in objects} == {tuple(objects[0])}
    text = json.dumps(objects, allow_nan=False)
    assert parse_json(text) == objects


def test_a_number_that_is_not_finite_becomes_null() -> None:
    ratio = Ratio(value=float("nan"), low=1, high=2)
    (one,) = results_json([row("onnx", "fp32", float("nan"), iou=(0.5, float("inf")), speedup_vs_fp32=ratio)])
    assert one["p50_ms"] is None
    assert one["iou"] == [0.5, None]
    assert one["speedup_vs_fp32"] == {"value": None, "low": 1, "high": 2}


def test_rows_come_back_from_json_as_they_were() -> None:
    assert tuple(ResultRow.from_json(o) for o in json.loads(json.dumps(results_json(rows())))) == rows()


@pytest.mark.parametrize(("changes", "passed"), [
    ({}, True), ({"failed_goals": ("fps",)}, False), ({"undecided_goals": ("miou",)}, False), ({"agreement": None}, False),
])
def test_passed_needs_verification_and_every_goal(changes: dict[str, object], passed: bool) -> None:
    assert row("onnx", "fp32", 3.0, **changes).passed is passed


def test_undecided_goals_once_stood_among_the_failed_ones() -> None:
    old = {**row("onnx", "fp32", 3.0).to_json(), "failed_goals": ["miou", "miou_drop"], "undecided_goals": ["miou"]}
    found = ResultRow.from_json(old)
    assert (found.failed_goals, found.undecided_goals) == (("miou_drop",), ("miou",))


def test_rows_of_one_bundle_are_told_apart_by_their_arithmetic() -> None:
    faster = Ratio(value=1.5, low=1.4, high=1.6)
    given = mark([row("openvino", "fp32", 3.0), row("openvino", "fp32", 2.0, arithmetic="bf16", speedup_vs_fp32=faster)])
    assert [one["bundle"] for one in results_json(given)] == ["openvino-fp32", "openvino-fp32"]
    assert [one.name for one in given] == ["openvino-fp32", "openvino-fp32-bf16"]
    starred = [line for line in show(160, terminal=False, given=given).splitlines() if line.startswith("*")]
    assert len(starred) == 1 and "openvino fp32 in bf16" in starred[0]


def test_what_was_not_measured_says_so() -> None:
    text = show(80, terminal=False, given=mark([replace(row("onnx", "fp32", 1.0), p50_ms=None, threads=0, measured_on="")]))
    assert "NOT MEASURED" in text
    assert "NOT THE TARGET" not in text


def test_numbers_in_words() -> None:
    assert [ms(v) for v in (0.314, 4.6, 9.994, 9.996, 99.94, 99.96, None)] == ["0.31", "4.60", "9.99", "10.0", "99.9", "100", "-"]
    assert [number(-0.0001, 2), number(None), number(12345.678, 1)] == ["0.00", "-", "12 345.7"]
    assert [percent(0.98765, 2), percent(None)] == ["98.77 %", "-"]
    assert [count(1_140_000), count(570_000_000), count(999), count(None)] == ["1.14 M", "0.57 G", "999", "-"]


def test_agreement_is_never_rounded_up_to_all() -> None:
    assert [equal_share(v, 2) for v in (0.999999, 1.0, 0.9999, 0.99, None)] == ["99.99", "100.00", "99.99", "99.00", "-"]
    assert "100.00" not in show(80, terminal=False)


def test_large_numbers_and_long_names_do_not_cost_a_digit() -> None:
    given = mark([row("openvino", "int8", 12345.6, size_bytes=123_456_789, worst_class="pedestrian crossing with lights and islands")])
    for width in (80, 100, 130):
        text = show(width, terminal=False, given=given)
        for digits in ("12 346", "13 333", "123.46"):
            assert digits in text


def test_the_share_that_runs_in_int8_has_a_column_and_too_little_is_said() -> None:
    given = [row("onnx", "fp32", 8.0), row("onnx", "int8", 4.0, int8_share=0.421), row("tflite", "int8", 5.0, int8_share=0.987)]
    text = io.StringIO()
    Console(file=text, width=160).print(RowsTable(mark(given)))
    shown = text.getvalue()
    assert "int8 %" in shown
    assert "42.1!" in shown
    assert "98.7" in shown
    assert "onnx int8: only 42.1 % of it runs in int8" in shown
