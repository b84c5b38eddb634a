"""The page: well-formed, complete, asking for nothing, and safe with hostile names."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report_example import CLASSES, CONFUSION, FLOAT_IOU, PALETTE, field_pictures, report, row, rows

from edgeseg.report.charts import line_chart, ticks
from edgeseg.report.html import el
from edgeseg.report.model import FloatLayer, GoalResult, ResultRow
from edgeseg.report.page import render_page
from edgeseg.report.page_confusion import largest_confusions
from edgeseg.report.page_pictures import difference_map, worst_first
from edgeseg.report.recommend import mark
from edgeseg.report.words import ms

VOID = {"br", "col", "hr", "img", "link", "meta"}
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=y>&amp;"


class Reader(HTMLParser):
    """Collects what the tests look at; raises where tags do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(report())


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def test_tags_balance_and_ids_are_unique(read: Reader) -> None:
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    targets = {attrs["href"] for attrs in read.all("a")}
    assert targets <= {f"#{i}" for i in ids}


def test_nothing_is_asked_for_from_anywhere(page: str, read: Reader) -> None:
    without_images = re.sub(r'src="data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+"', "", page)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|=\"data:", without_images, re.IGNORECASE)
    for tag, attrs in read.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href"):
            value = attrs.get(name)
            assert value is None or value.startswith(("data:image/", "#")), value
    policy = [a["content"] for a in read.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert "default-src 'none'" in str(policy[0])


def test_hostile_names_stay_text() -> None:
    data = report()
    maps = {HOSTILE: data.pictures[0].float_map}
    hostile = replace(
        data, run_name=HOSTILE, dataset=replace(data.dataset, classes=(HOSTILE, *CLASSES[1:]), name=HOSTILE, warnings=(HOSTILE,)),
        rows=mark([replace(r, bundle=HOSTILE, measured_on=HOSTILE, worst_class=HOSTILE, settings={HOSTILE: HOSTILE})
                   for r in data.rows[:1]]),
        pictures=(replace(data.pictures[0], id=HOSTILE, note=HOSTILE, bundle_maps=maps),), config_toml=HOSTILE, not_verified=(HOSTILE,),
        goals=(GoalResult(goal=HOSTILE, limit=1.0, got=None, passed=False, where=HOSTILE),), versions={HOSTILE: HOSTILE},
        machine={HOSTILE: HOSTILE}, training=replace(data.training, network=HOSTILE), settings={HOSTILE: HOSTILE},
    )
    text = render_page(hostile)
    read = Reader(text)
    assert not read.all("script")
    assert "<script" not in text
    assert all(attrs.get("src", "data:") != "x" for attrs in read.all("img"))
    assert "".join(read.words).count(HOSTILE) >= 15  # it is shown, as text


def test_every_row_and_every_class_is_on_the_page(read: Reader) -> None:
    for r in rows():
        for words in (r.label, ms(r.p50_ms), ms(r.p90_ms), r.bundle_sha256, r.reason):
            assert words in read.text, words
    for name, iou in zip(CLASSES, FLOAT_IOU, strict=True):
        assert name in read.text
        assert (f"{iou * 100:.1f} %" if iou is not None else "not evaluated") in read.text
    for sentence in report().not_verified:
        assert sentence in read.text


def test_dice_outlines_and_confusion_are_on_the_page(read: Reader) -> None:
    for words in ("94.1 %", "94.02 %", "82.3 %", "82.04 %", "Dice of each class", "Boundary F1 of each class", "73.1 %"):
        assert words in read.text, words
    cells = " ".join(read.words)
    assert "crop 5.6 % 93.8 % 0.6 % 0.0 % 16 000" in cells  # 900, 15 000 and 100 of 16 000
    assert "stone - - - - 0" in cells
    assert "onnx int8: share of each label's pixels by answer" in read.text


def test_many_classes_are_listed_by_their_largest_confusions() -> None:
    assert largest_confusions(CONFUSION, 3) == [(0, 1, 1200 / 80_000), (1, 0, 900 / 16_000), (0, 2, 800 / 80_000)]
    assert largest_confusions(((5, 0), (0, 5)), 9) == []
    names = tuple(f"class {i}" for i in range(40))
    matrix = tuple(tuple(1000 if i == j else 7 * (i == 3 and j == 9) for j in range(40)) for i in range(40))
    data = report()
    many = replace(
        data, rows=(), pictures=(), dataset=replace(data.dataset, classes=names, palette=PALETTE * 10, pixel_shares={}),
        float_reference=replace(data.float_reference, iou=(0.9,) * 40, dice=(), boundary_f1=(), confusion=matrix),
    )
    assert "class 3 class 9 0.7 %" in " ".join(Reader(render_page(many)).words)


def test_the_verdict_comes_first_and_is_true() -> None:
    assert Reader(render_page(report())).text.index("All 3 goals passed") < 400
    missed = GoalResult(goal="miou_drop", limit=0.01, got=0.0234, passed=False, where="onnx int8")
    text = Reader(render_page(report(goals=(missed, *report().goals[:1])))).text
    assert "1 of 2 goals missed" in text
    assert "2.34 points, wanted at most 1.00 points (onnx int8)" in text
    assert "passed (edgeseg report)" not in text
    assert "No goals were set" in Reader(render_page(report(goals=()))).text


def test_what_was_measured_elsewhere_or_quickly_is_stamped(read: Reader) -> None:
    assert "Speed was not measured on the board itself for: raspberry-pi-5" in read.text
    plain = Reader(render_page(report(rows=mark([row("onnx", "fp32", 9.0)])))).text
    assert "not the target" in read.text
    assert "not the target" not in plain
    assert "quick" not in plain


def test_none_is_said_where_nothing_can_be_recommended() -> None:
    text = Reader(render_page(report(rows=mark([row("onnx", "fp32", 9.0, failed_goals=("agreement",))])))).text
    assert "no recommendation" in text
    assert "misses its goal agreement" in text


@pytest.mark.parametrize("changes", [{"rows": ()}, {"pictures": ()}, {"pruning": None}, {"goals": (), "not_verified": (), "settings": {}}],
                         ids=["no rows", "no pictures", "no pruning", "nothing set"])
def test_a_page_with_parts_missing_is_still_a_page(changes: dict[str, object]) -> None:
    Reader(render_page(report(**changes)))


def test_a_row_without_measurements_is_shown_as_such() -> None:
    bare = replace(row("onnx", "fp32", 1.0), p50_ms=None, p90_ms=None, p99_ms=None, fps=None, inference_ms=None, miou=None, iou=(),
                   agreement=None, worst_class=None, worst_class_drop=None, peak_rss_bytes=None, load_ms=None)
    text = Reader(render_page(report(rows=mark([bare])))).text
    assert "not verified" in text
    assert "None is recommended" in text


def test_pictures_have_alternatives_and_sizes_and_decode(read: Reader) -> None:
    images = read.all("img")
    assert len(images) == 4 * 10  # frame, label, and answer with difference for float and three bundles
    for attrs in images:
        assert attrs["alt"]
        assert attrs["width"] and attrs["height"]
    source = str(images[1]["src"])
    label = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    assert label.convert("RGB").getpixel((0, 0)) == (214, 214, 214)  # the first rows are not labelled


def test_tables_and_charts_are_accessible(read: Reader) -> None:
    assert all(attrs.get("scope") in {"row", "col"} for attrs in read.all("th"))
    assert all(attrs.get("role") == "img" for attrs in read.all("svg"))
    assert len(read.all("svg")) == sum(name == "title" for name, _ in read.tags) - 1
    assert read.all("html") == [{"lang": "en"}]


def test_the_worst_picture_comes_first() -> None:
    pictures = field_pictures()
    assert [p.id for p in worst_first(pictures, 4)] == ["field_003", "field_002", "field_001", "field_000"]
    blank = replace(pictures[0], id="blank", label=np.full((180, 240), 255, np.uint8))
    assert worst_first((blank, *pictures), 4)[-1].id == "blank"


def test_difference_map_tells_new_errors_from_old_ones() -> None:
    label = np.array([[0, 1, 1, 0, 255]], np.uint8)
    float_map = np.array([[0, 1, 0, 1, 0]], np.uint8)
    answer = np.array([[0, 0, 0, 0, 1]], np.uint8)
    assert difference_map(answer, label, float_map).tolist() == [[0, 2, 1, 3, 255]]
    assert difference_map(answer, label, None).tolist() == [[0, 1, 1, 0, 255]]


def test_text_is_escaped_unless_it_is_html() -> None:
    assert el("p", "a < b & \"c\"", el("b", "<i>"), title='"><x') == (
        '<p title="&quot;&gt;&lt;x">a &lt; b &amp; &quot;c&quot;<b>&lt;i&gt;</b></p>')


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(1, 60) == [20.0, 40.0, 60.0]
    assert ticks(3, 3) == [3]


def test_a_curve_survives_values_that_are_not_finite_and_having_one_point() -> None:
    chart = line_chart([(1, float("nan")), (2, 0.5)], title="loss", x_name="epoch", css="loss")
    assert "nan" not in chart
    Reader(chart)
    assert "nothing was recorded" in line_chart([], title="loss", x_name="epoch", css="loss")


def test_the_same_facts_give_the_same_bytes(page: str) -> None:
    assert render_page(report()) == page


def test_the_page_lists_what_does_not_run_in_int8() -> None:
    layer = FloatLayer(name="conv_7", kind="convolution", precision="f32", share=0.58, reason="int8 in the file, <and> chose f32")
    given = mark([
        row("onnx", "fp32", 8.0), row("onnx", "int8", 4.0, int8_share=0.42, int8_source="the profile", not_int8=(layer,)),
        row("tflite", "int8", 4.0, int8_source="not known: no such runtime"),
    ])
    page = render_page(replace(report(), rows=given))
    assert "conv_7" in page
    assert "58.00 %" in page
    assert "&lt;and&gt; chose f32" in page
    assert "below 90 %" in page
    assert "not known: no such runtime" in page
    assert ResultRow.from_json(given[1].to_json()) == given[1]


def test_the_page_shows_the_parity_ladder_and_whom_it_blames() -> None:
    rung = {
        "name": "torch", "how": "torch on the CPU, f32", "compared_with": "", "logit_sqnr_db": None, "logit_cosine": None,
        "agreement": None, "agreement_with_lowest": None, "boundary_agreement": None, "class_iou": {}, "miou_labels": 0.9,
        "fallen": [], "blame": None,
    }
    fallen = {
        **rung, "name": "onnx int8", "compared_with": "torch", "agreement": 0.91, "agreement_with_lowest": 0.91, "boundary_agreement": 0.8,
        "class_iou": {"soil": 0.99, "weed": 0.5, "stone": None}, "logit_sqnr_db": 8.25, "logit_cosine": 0.93, "fallen": ["pixel agreement"],
        "blame": {"words": "Add #31 '<add>': range clipped"},
    }
    ladder = {"bundle": "field-onnx-int8", "num_frames": 3, "frames": "golden frames", "rungs": [rung, fallen], "notes": ["no fp32 rung"]}
    page = render_page(replace(report(), parity=(ladder,)))
    assert "Add #31 &#x27;&lt;add&gt;&#x27;: range clipped" in page or "Add #31 '&lt;add&gt;': range clipped" in page
    for words in ("weed 50.00 %", "91.000 %", "8.2", "fell off", "no fp32 rung", "the reference"):
        assert words in page
    assert "edgeseg run --ladder" in render_page(report())
