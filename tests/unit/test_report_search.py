"""The page of a search: complete in itself, well formed, and true to its rows."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET

import pytest

from edgeseg.report.page_search import SearchReport, SearchRow, render_search_page
from edgeseg.report.scatter import Dot, scatter


def row(trial: int, **changes: object) -> SearchRow:
    plain = SearchRow(trial=trial, state="complete", network="fast_scnn", width=0.5, size_hw=(192, 256), macs_share=0.7, precision="int8")
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


ROWS = (
    row(0, miou=0.61, p90_ms=31.2, low_ms=30.0, high_ms=33.0, size_bytes=1_200_000, meets_goals=False, on_front=True),
    row(1, miou=0.58, p90_ms=12.5, low_ms=12.0, high_ms=13.0, size_bytes=400_000, meets_goals=True, on_front=True, chosen=True),
    row(2, miou=0.40, p90_ms=20.0, low_ms=19.0, high_ms=21.0, size_bytes=400_000, meets_goals=True),
    row(3, state="failed", note="<b>macs_share</b> would empty a layer"),
    row(4, state="too slow", note="not trained"),
)
REPORT = SearchReport(
    run_name="field & <row>", created_utc="2026-01-02T03:04:05+00:00", edgeseg_version="0", dataset="field", epochs=30,
    measured=("host: onnx",), p90_limit_ms=25.0, miou_limit=0.5, verdict="Chosen: trial 1", passed=True, rows=ROWS,
    config_toml="name = 1\n",
)


def test_the_page_is_complete_and_escapes_what_it_shows() -> None:
    page = render_search_page(REPORT)
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "&lt;b&gt;macs_share&lt;/b&gt; would empty a layer" in page
    assert "<h1>field &amp; &lt;row&gt;</h1>" in page
    for trial in range(5):
        assert f'<th scope="row">{trial}</th>' in page
    for words in ("chosen", "on the front", "misses a goal", "too slow", "58.00 %", "12.5", "0.40 MB", "name = 1"):
        assert words in page, words


@pytest.mark.parametrize(("passed", "words"), [(None, "No goals were set"), (False, "No point meets the goals")])
def test_the_head_says_whether_goals_are_met(passed: bool | None, words: str) -> None:
    assert f"<h2>{words}</h2>" in render_search_page(dataclasses.replace(REPORT, passed=passed))


def test_a_search_without_a_value_still_has_a_page() -> None:
    assert "nothing was measured" in render_search_page(dataclasses.replace(REPORT, rows=ROWS[3:], config_toml=""))


def test_dots_stand_where_their_values_are() -> None:
    places = ((10, 0.5, "front"), (20, 0.6, "chosen"), (20, 0.4, "behind"), (0, 0.9, "front"))
    dots = [Dot(x=x, y=y, css=css, said="s") for x, y, css in places]
    figure = ET.fromstring(scatter(dots, title="t", x_name="ms", x_limit=15, y_limit=0.45))
    circles = {c.get("class"): (float(c.get("cx", "")), float(c.get("cy", ""))) for c in figure.iter("circle")}
    assert len(circles) == 3, "a point at 0 has no place on a logarithmic axis"
    assert circles["dot front"][0] < circles["dot chosen"][0] == circles["dot behind"][0]
    assert circles["dot chosen"][1] < circles["dot front"][1] < circles["dot behind"][1]
    assert len([line for line in figure.iter("line") if line.get("class") == "limit"]) == 2
    (steps,) = figure.iter("polyline")
    assert len(str(steps.get("points")).split()) == 4
