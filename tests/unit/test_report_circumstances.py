"""How it was measured, on the page: from what a measurement recorded to a table and charts; nothing missing is 0."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from report_example import report, row

from edgeseg.report.circumstances import Circumstances
from edgeseg.report.model import ResultRow
from edgeseg.report.page import render_page
from edgeseg.report.page_circumstances import circumstances_section
from edgeseg.workflow.show.circumstances import circumstances
from edgeseg.workflow.show.reporting import _not_available
from targets.telemetry.base import Column
from targets.telemetry.trace import Trace


def bench_json(**changes: Any) -> dict[str, Any]:
    seconds = tuple(float(second) for second in range(300))
    heat = Column(name="soc_c", role="temperature")
    trace = Trace(start_ns=0, times_s=seconds, columns=(heat,), values={"soc_c": tuple(40 + s / 10 for s in seconds)},
                  sensors={"temperature": ("soc_c",)}, absent={"rapl": "no RAPL here"})
    return {
        "trace": trace.to_json(), "windows": [[float(i), 20.0 + i] for i in range(12)],
        "end_to_end": {"num_frames": 1024, "p90_early_stopping_ms": 31.25, "p99_early_stopping_ms": None},
        "throttling": {"verdict": "slowed", "slowdown": 1.44, "words": "slowed: sustained 29.50 ms, burst 20.50 ms; no sensor saw it"},
        "drift": {"change": 0.448, "step_at_s": 6.0, "step": 1.2}, "energy": None, "energy_absent": "no power sensor answers",
        "load": {"others_before": 0.25, "others_during": None}, "steady": True, **changes,
    }


def row_with(found: Circumstances | None) -> ResultRow:
    return row("onnx", "int8", 20.0, circumstances=found)


def test_a_measurement_of_before_has_no_circumstances() -> None:
    assert circumstances({"end_to_end": {}}) is None
    assert "Nothing was measured, or by an edgeseg that did not record it." in circumstances_section([row_with(None)])


def test_the_report_says_of_each_device_what_it_could_not_see() -> None:
    """Neither that nothing was seen beside rows that show it, nor nothing where a device sees less."""
    nothing = Trace(start_ns=0, times_s=(), columns=(), values={}, sensors={})
    seen, blind = circumstances(bench_json()), circumstances(bench_json(trace=nothing.to_json()))
    assert seen is not None
    assert blind is not None
    power = replace(seen, energy_per_frame_j=0.2)
    unwatched = replace(blind, throttling="not available")
    board = "ssh://pi@pi5"
    assert _not_available([row_with(seen)]) == ["Not available on this machine: energy."]
    assert _not_available([row_with(seen), row_with(power)]) == []
    rows = [row_with(power), replace(row_with(unwatched), device=board), replace(row_with(None), device=board)]
    assert _not_available(rows) == [f"Not available on {board}: energy, temperature, whether it held its speed."]
    assert _not_available([replace(row_with(None), p50_ms=None)]) == []


def test_what_is_not_available_says_so_and_why() -> None:
    found = circumstances(bench_json())
    assert found is not None
    page = circumstances_section([row_with(found)])
    for words in ("31.25 ms", "not available", "no power sensor answers", "slowed: sustained 29.50 ms", "25%", "moved by +44.8%"):
        assert words in page
    assert "latency, ms" in page
    assert "soc, °C" in page
    assert all(len(one.points) <= 120 for one in found.series)


def test_a_measurement_that_began_before_it_was_steady_says_so() -> None:
    found = circumstances(bench_json(steady=False))
    assert found is not None
    assert "NOT STEADY" in circumstances_section([row_with(found)])
    assert "NOT STEADY" not in circumstances_section([row_with(circumstances(bench_json()))])
    old = {name: value for name, value in asdict(found).items() if name != "steady"}
    assert Circumstances.from_json(old).steady, "one of before it was recorded"


def test_energy_says_what_it_covers() -> None:
    energy = {"per_frame_j": 0.1234, "source": "power-rails", "covers": "the whole module"}
    found = circumstances(bench_json(energy=energy, energy_absent=""))
    assert found is not None
    page = circumstances_section([row_with(found)])
    assert "0.123 J" in page
    assert "power-rails: the whole module." in page


def test_rows_keep_their_circumstances_through_json() -> None:
    kept = row_with(circumstances(bench_json()))
    assert ResultRow.from_json(json.loads(json.dumps(kept.to_json(), allow_nan=False))).circumstances == kept.circumstances
    assert kept.circumstances is not None
    assert Circumstances.from_json(json.loads(json.dumps(asdict(kept.circumstances)))) == kept.circumstances


def test_the_page_has_the_section() -> None:
    data = report()
    page = render_page(replace(data, rows=(row_with(circumstances(bench_json())), *data.rows[1:])))
    assert 'id="circumstances"' in page
    assert 'href="#circumstances"' in page
