"""Which bundle is recommended, and that the words say so plainly."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_example import row, rows

from edgeseg.report.model import Ratio, ResultRow
from edgeseg.report.recommend import mark, recommend

FASTER = Ratio(value=1.5, low=1.4, high=1.6)
SLOWER = Ratio(value=0.8, low=0.75, high=0.85)
UNCLEAR = Ratio(value=1.02, low=0.97, high=1.06)


def only(*given: ResultRow) -> tuple[str | None, str]:
    (rec,) = recommend(given)
    return (rec.row.bundle if rec.row else None), rec.reason


def test_int8_that_is_faster_beyond_doubt_is_recommended() -> None:
    name, reason = only(row("onnx", "fp32", 10.0), row("onnx", "int8", 6.6, speedup_vs_fp32=FASTER))
    assert name == "onnx-int8"
    assert "1.50 times as fast as its own fp32" in reason
    assert "loses 0.40 points of mIoU" in reason


@pytest.mark.parametrize(("p50_ms", "ratio", "words"), [
    (16.0, SLOWER, "its int8 is not faster than its fp32 here: 16.0 ms against 10.0 ms"),
    (9.8, UNCLEAR, "its int8 is not clearly faster than its fp32 here: 9.80 ms against 10.0 ms"),
    (6.6, None, "its int8 is not shown to be faster than its fp32 here"),
    (10.4, None, "its int8 is not faster than its fp32 here: 10.4 ms against 10.0 ms"),
])
def test_int8_that_is_not_shown_to_be_faster_gives_way_to_fp32_in_plain_words(p50_ms: float, ratio: Ratio | None, words: str) -> None:
    name, reason = only(row("onnx", "fp32", 10.0), row("onnx", "int8", p50_ms, speedup_vs_fp32=ratio))
    assert name == "onnx-fp32"
    assert words in reason


@pytest.mark.parametrize("goal", ["golden", "agreement", "miou", "miou_drop", "class_drop"])
def test_a_bundle_that_misses_an_accuracy_goal_is_never_recommended(goal: str) -> None:
    name, reason = only(row("onnx", "fp32", 10.0), row("onnx", "int8", 1.0, speedup_vs_fp32=FASTER, failed_goals=(goal,)))
    assert name == "onnx-fp32"
    assert goal in reason


def test_a_missed_speed_goal_does_not_stop_a_recommendation() -> None:
    name, _ = only(row("onnx", "fp32", 10.0, failed_goals=("p90_ms",)))
    assert name == "onnx-fp32"


def test_none_is_recommended_when_none_is_accurate_verified_and_measured() -> None:
    name, reason = only(
        row("onnx", "fp32", 10.0, failed_goals=("agreement",)), row("openvino", "fp32", 5.0, agreement=None),
        replace(row("tflite", "fp32", 1.0), p50_ms=None),
    )
    assert name is None
    for words in ("onnx fp32 misses its goal agreement", "openvino fp32 was not compared with torch", "tflite fp32 was not measured"):
        assert words in reason


def test_int8_without_its_fp32_is_not_recommended() -> None:
    assert only(row("onnx", "int8", 3.0))[0] is None


def test_int8_is_compared_with_the_fp32_of_its_own_runtime_not_of_another() -> None:
    # onnx int8 beats onnx fp32 but openvino fp32 beats both
    name, reason = only(row("onnx", "fp32", 10.0), row("onnx", "int8", 7.0, speedup_vs_fp32=FASTER), row("openvino", "fp32", 5.0))
    assert name == "openvino-fp32"
    assert "there is no int8 of it" in reason


def test_nothing_measured_is_said_once() -> None:
    given = [replace(row("onnx", precision, 1.0), p50_ms=None) for precision in ("fp32", "int8")]
    assert only(*given) == (None, "None is recommended: nothing was measured for this target.")


def test_a_median_more_than_one_percent_lower_beats_a_smaller_file() -> None:
    assert only(row("onnx", "fp32", 0.50, size_bytes=900), row("tflite", "fp32", 0.51, size_bytes=800))[0] == "onnx-fp32"


def test_ties_to_one_percent_go_to_the_smaller_file() -> None:
    large, small = row("onnx", "fp32", 5.01, size_bytes=900), row("tflite", "fp32", 5.04, size_bytes=800)
    assert only(large, small)[0] == "tflite-fp32"
    assert only(small, large)[0] == "tflite-fp32"


def test_what_was_measured_on_the_target_counts_more_than_what_was_measured_elsewhere() -> None:
    name, _ = only(row("onnx", "fp32", 1.0, is_target_machine=False), row("tflite", "fp32", 30.0, device="ssh://pi@field"))
    assert name == "tflite-fp32"


def test_the_reason_says_where_it_was_measured_when_that_is_not_the_target() -> None:
    assert "Intel Xeon 2.10 GHz, which is not the target" in only(row("onnx", "fp32", 1.0, is_target_machine=False))[1]


def test_mark_recommends_one_row_a_target_and_gives_every_row_a_sentence() -> None:
    marked = mark(rows())
    assert [(r.target, r.bundle) for r in marked if r.recommended] == [("host", "openvino-int8"), ("raspberry-pi-5", "tflite-fp32")]
    assert all(r.reason.endswith(".") for r in marked)
    assert mark(marked) == marked


def test_mark_is_blind_to_the_order_of_rows() -> None:
    forward = {(r.target, r.bundle): r for r in mark(rows())}
    backward = {(r.target, r.bundle): r for r in mark(rows()[::-1])}
    assert forward == backward


def test_a_gain_of_miou_is_called_a_gain() -> None:
    assert "gains 0.30 points" in only(replace(row("onnx", "fp32", 5.0), miou=0.8943))[1]


def own_float_rows(*, ratio: Ratio, p50_ms: float) -> list[ResultRow]:
    """OpenVINO's fp32, the same in the bf16 it chooses by itself, and an int8 that is faster than fp32."""
    return [
        row("openvino", "fp32", 8.0),
        row("openvino", "fp32", 4.0, arithmetic="bf16", speedup_vs_fp32=Ratio(value=2.0, low=1.9, high=2.1)),
        row("openvino", "int8", p50_ms, speedup_vs_fp32=Ratio(value=8.0 / p50_ms, low=1.5, high=2.5), speedup_vs_own_float=ratio),
    ]


def test_int8_slower_than_the_runtimes_own_float_is_not_recommended() -> None:
    """Even where a single median says otherwise: the interleaved ratio decides."""
    (found,) = recommend(own_float_rows(ratio=Ratio(value=0.97, low=0.95, high=0.99), p50_ms=3.9))
    assert found.row is not None
    assert found.row.label == "openvino fp32 in bf16"
    assert "golden answers and agreement were not judged in bf16; run it with --arithmetic bf16" in found.reason
    assert "not faster than its fp32 in bf16" in found.reason


def test_int8_faster_than_the_runtimes_own_float_is_recommended() -> None:
    (found,) = recommend(own_float_rows(ratio=Ratio(value=1.6, low=1.5, high=1.7), p50_ms=2.5))
    assert found.row is not None
    assert found.row.label == "openvino int8"


def test_own_float_that_misses_an_accuracy_goal_does_not_hold_int8_back() -> None:
    rows = own_float_rows(ratio=Ratio(value=0.9, low=0.85, high=0.95), p50_ms=4.4)
    rows[1] = replace(rows[1], failed_goals=("miou_drop",))
    (found,) = recommend(rows)
    assert found.row is not None
    assert found.row.label == "openvino int8"


def test_int8_in_name_only_is_said() -> None:
    rows = [row("onnx", "fp32", 8.0), row("onnx", "int8", 4.0, speedup_vs_fp32=Ratio(value=2.0, low=1.9, high=2.1), int8_share=0.42)]
    (found,) = recommend(rows)
    assert "only 42 % of its multiply-accumulates run in int8" in found.reason
    assert rows[1].int8_in_name_only
    assert not replace(rows[1], precision="mixed").int8_in_name_only
    assert not replace(rows[1], int8_share=0.93).int8_in_name_only
