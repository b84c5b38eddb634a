"""The zoo's table: no empty cell without a reason, failures are counted, JSON holds what the table shows."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from edgeseg.report.model import Ratio
from edgeseg.report.zoo import ZooRow, ZooSide, ZooTable

GOOD = ZooSide(precision="fp32", size_bytes=4_560_000, agreement=0.99999, p50_ms=2.5, ratio=Ratio(value=1.25, low=1.2, high=1.3))
GOOD_INT8 = ZooSide(precision="int8", size_bytes=1_300_000, agreement=0.91, p50_ms=1.5, ratio=Ratio(value=1.5, low=1.4, high=1.6))
LOST = dict.fromkeys(("agreement", "size_bytes", "p50_ms"), "the process was killed by SIGSEGV")
ROWS = (
    ZooRow(network="good_net", format="onnx", num_params=1_140_000, macs=570_000_000, fp32=GOOD, int8=GOOD_INT8),
    ZooRow(network="crashed_net", format="tflite", num_params=2_000_000, macs=10_000_000, fp32=GOOD,
           int8=ZooSide(precision="int8", notes=LOST)),
    ZooRow(network="no_net", format="onnx", num_params=None, macs=None, note="it cannot be built",
           fp32=ZooSide(precision="fp32", notes=LOST), int8=ZooSide(precision="int8", notes=LOST)),
)


def show(width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(ZooTable(ROWS, (128, 192)))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_fits_is_plain_and_leaves_no_cell_empty(width: int) -> None:
    lines = show(width).splitlines()
    assert max(len(line) for line in lines) <= width
    assert show(width).isascii()
    (row,) = [line for line in lines if line.startswith("good_net")]
    assert {"1.14", "0.57", "99.99", "91.00", "1.25", "1.50"} <= set(row.split())
    assert ({"4.56", "1.30", "2.50"} <= set(row.split())) == (width >= 110)
    (row,) = [line for line in lines if line.startswith("no_net")]
    assert row.count("-[") == len(row.split()) - 2, "every missing number points at its reason"
    assert "1 of 3 work" in show(width)


def test_each_reason_stands_once_in_words() -> None:
    text = show(140)
    assert text.count("the process was killed by SIGSEGV") == 1
    assert "[1] the process was killed by SIGSEGV" in text
    assert "[2] it cannot be built" in text


def test_int8_and_fp32_pass_from_their_own_limits() -> None:
    assert ROWS[0].passed
    assert not ROWS[1].passed
    assert not ZooSide(precision="fp32", agreement=0.91).passed
    assert ZooSide(precision="int8", agreement=0.91).passed
    assert not ZooSide(precision="int8").passed


def test_a_line_says_how_a_row_came_out() -> None:
    assert ROWS[0].line() == "good_net onnx: works; fp32 99.99 % as torch, 2.50 ms; int8 91.00 % as torch, 1.50 ms"
    assert ROWS[1].line() == "crashed_net tflite: DOES NOT WORK; fp32 99.99 % as torch, 2.50 ms; int8 the process was killed by SIGSEGV"


def test_json_gives_a_reason_for_every_null() -> None:
    for row in ROWS:
        raw = json.loads(json.dumps(row.to_json(), allow_nan=False))
        assert raw["num_params"] is not None or raw["note"]
        for precision in ("fp32", "int8"):
            side = raw[precision]
            for key in ("size_bytes", "agreement", "p50_ms"):
                assert side[key] is not None or side["notes"][key]
