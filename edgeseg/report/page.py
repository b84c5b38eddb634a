"""The page of a run: one self-contained HTML file that asks for nothing from anywhere and runs no script."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Final

from edgeseg.report.html import Child, Html, el, join
from edgeseg.report.model import GoalResult, ObjectPicture, Picture, ReportData, ResultRow, main_name
from edgeseg.report.page_calibration import ABOUT as CALIBRATION
from edgeseg.report.page_calibration import calibration_section
from edgeseg.report.page_circumstances import ABOUT as CIRCUMSTANCES
from edgeseg.report.page_circumstances import circumstances_section
from edgeseg.report.page_confusion import confusion_section
from edgeseg.report.page_executed import executed_section
from edgeseg.report.page_ladder import ABOUT as _LADDER
from edgeseg.report.page_ladder import ladder_section
from edgeseg.report.page_objects import objects_section
from edgeseg.report.page_parity import parity_section
from edgeseg.report.page_parts import table, tag
from edgeseg.report.page_pictures import pictures_section
from edgeseg.report.page_results import bundle_tables, class_table, recommended_cards, speed_bars
from edgeseg.report.page_training import dataset_section, pruning_section, training_section
from edgeseg.report.recommend import recommend
from edgeseg.report.words import goal_words, percent, verdict_word

_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The browser itself refuses anything from outside, should a mistake ever ask for it."""

_BUNDLES: Final = ("Latency of the model in milliseconds a frame. Small figures: the change of {name} and of the worst class against "
                   "float, in points, and the interval of the speed-up against fp32 in the same runtime.")
_INTERVALS: Final = ("In brackets the 95 % interval over images (paired bootstrap). A goal is passed where the whole interval keeps the "
                     "limit, missed where none of it does, and else not decided: too few images. Each interval is of its own number; "
                     "that all of them hold at once is less certain.")
_SHORT: Final = {"classes": "Classes", "confusion": "Confusion", "int8": "Int8", "ladder": "Rungs",
                 "calibration": "Calibration", "parity": "Parity", "time": "Time", "circumstances": "Measuring",
                 "pictures": "Frames", "not-verified": "Not verified", "details": "Details"}
"""Titles as the links at the top write them."""


def render_page(data: ReportData) -> str:
    """Give the whole page as HTML text. Everything in `data` is treated as plain text and escaped."""
    measure = "AP" if data.float_reference.task == "instance" else "IoU"
    confusion = [] if measure == "AP" else [
        ("confusion", "What is taken for what", "A row a label, a column an answer; all the rest of a row's share is wrong.",
         confusion_section(data.rows, data.float_reference, data.dataset)),
    ]
    sections = [
        ("bundles", "Bundles", _BUNDLES.format(name=main_name(data.float_reference.task)), bundle_tables(data.rows)),
        ("classes", f"{measure} of each class", f"A fuller cell is a higher {measure}; a loss of one point or more is marked.",
         class_table(data.rows, data.float_reference, data.dataset)),
        *confusion,
        ("int8", "What runs in int8", "Read back from each runtime, not from the file's name; the decision head is not counted.",
         executed_section(data.rows)),
        ("ladder", "How int8 was made, rung by rung", _LADDER, ladder_section(data.ladders)),
        ("parity", "Parity ladder", "The same frames from torch to each bundle, every rung against the one below it.",
         parity_section(data.parity)),
        ("calibration", "Calibration frames", CALIBRATION, calibration_section(data.calibration)),
        ("time", "Where the time goes", "Medians of one frame, from the bytes of its file to the class map at frame size.",
         speed_bars(data.rows)),
        ("circumstances", "How it was measured", CIRCUMSTANCES, circumstances_section(data.rows)),
        ("pictures", "Frames and answers", "The worst ones first.", _pictures(data)),
        ("training", "Training", "", training_section(data.training)),
        ("pruning", "Pruning", "", pruning_section(data.pruning)),
        ("data", "Data", "", dataset_section(data.dataset)),
        ("not-verified", "What is not verified", "", _not_verified(data)),
        ("details", "Versions, settings, configuration", "Everything needed to do it again.", _details(data)),
    ]
    links = [("recommended", "Recommended"), *((key, _SHORT.get(key, title)) for key, title, _, _ in sections)]
    nav = el("nav", el("ul", *(el("li", el("a", title, href=f"#{key}")) for key, title in links)), aria_label="On this page")
    body = el(
        "body", el("a", "Skip to the results", href="#main", class_="skip"),
        el("div", _header(data, nav), el("main", _verdict(data), _recommended(data), *(_section(*s) for s in sections), id="main"),
           _footer(data), class_="wrap"),
    )
    css = files("edgeseg.report").joinpath("page.css").read_text(encoding="utf-8")
    outcome = "passed" if data.passed else "not decided" if data.undecided else "goals missed"
    head = el(
        "head", el("meta", charset="utf-8"), el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"), el("meta", name="color-scheme", content="light dark"),
        el("title", f"{data.run_name}: {outcome} (edgeseg report)"), Html(f"<style>{css}</style>"),
    )
    return "<!DOCTYPE html>\n" + el("html", head, body, lang="en") + "\n"


def _pictures(data: ReportData) -> Html:
    objects = [picture for picture in data.pictures if isinstance(picture, ObjectPicture)]
    if objects:
        return objects_section(objects, data.rows)
    return pictures_section([picture for picture in data.pictures if isinstance(picture, Picture)], data.dataset, data.rows)


def _section(key: str, title: str, about: str, content: Html) -> Html:
    return el("section", el("h2", title, id=f"{key}-title"), el("p", about, class_="muted") if about else None, content, id=key,
              aria_labelledby=f"{key}-title", class_="open" if key == "not-verified" else None)


def _header(data: ReportData, nav: Html) -> Html:
    when = data.created_utc.replace("T", " ").replace("Z", " UTC").replace("+00:00", " UTC")
    ran = el("p", f"{data.training.network} on {data.dataset.name}, ", el("time", when, datetime=data.created_utc), class_="muted")
    return el("header", el("p", "edgeseg report", class_="brand"), el("h1", data.run_name), ran, nav)


def _verdict(data: ReportData) -> Html:
    missed = [goal for goal in data.goals if not goal.passed and not goal.undecided]
    undecided = [goal for goal in data.goals if goal.undecided]
    count = len(data.goals)
    if not data.goals:
        return el("div", el("h2", "No goals were set"), el("p", "Numbers below are measured, but nothing said what they had to be. "
                  "Set some under [goals] in edgeseg.toml."), class_="verdict")
    if missed or undecided:
        lines = [el("li", *_goal_line(goal)) for goal in (*missed, *undecided)]
        return el("div", el("h2", _not_reached(len(missed), len(undecided), count)), el("ul", *lines),
                  class_="verdict bad" if missed else "verdict open")
    caveats = _caveats(data.rows)
    reference = data.float_reference
    measured = f"{percent(reference.main, 2)} {main_name(reference.task)}"
    reached = f"Float reference: {measured} on {reference.num_frames} {reference.split} frames."
    return el("div", el("h2", f"All {count} goals passed" if count > 1 else "The goal was passed"), el("p", reached),
              el("p", caveats) if caveats else None, class_="verdict good")


def _not_reached(missed: int, undecided: int, count: int) -> str:
    if count == 1:
        return "The goal was missed" if missed else "The goal is not decided"
    parts = [f"{missed} of {count} goals missed"] if missed else []
    parts += [f"{undecided} not decided" if missed else f"{undecided} of {count} goals not decided"] if undecided else []
    return ", ".join(parts)


def _goal_line(goal: GoalResult) -> list[Child]:
    name, wanted, got = goal_words(goal)
    said = f"; not decided: {goal.about}" if goal.undecided else f"; {goal.about}" if goal.about else ""
    return [el("b", name), f": {got}, wanted {wanted}", f" ({goal.where})" if goal.where else None, said or None]


def _caveats(rows: tuple[ResultRow, ...]) -> str:
    elsewhere = [target for target in dict.fromkeys(r.target for r in rows)
                 if not any(r.is_target_machine and r.p50_ms is not None for r in rows if r.target == target)]
    parts = [f"Speed was not measured on the board itself for: {', '.join(elsewhere)}."] if elsewhere else []
    parts += ["Speeds were measured quickly."] if any(row.quick for row in rows) else []
    return " ".join(parts)


def _recommended(data: ReportData) -> Html:
    recommendations = recommend(data.rows)
    content: list[Child] = [recommended_cards(recommendations) if recommendations else el("p", "There are no bundles.", class_="muted")]
    if data.goals:
        content += [el("h3", "Goals"), _goal_table(data)]
    return _section("recommended", "Recommended", "The bundle to put on each target, and why.", join(content))


def _goal_table(data: ReportData) -> Html:
    body = []
    for goal in data.goals:
        name, wanted, got = goal_words(goal)
        result = join([tag(verdict_word(goal), "good" if goal.passed else "warn" if goal.undecided else "bad"),
                       el("span", goal.about, class_="sub") if goal.about else None])
        body.append(el("tr", el("th", name, scope="row"), *(el("td", cell, class_="keep") for cell in (wanted, got, goal.where, result))))
    about = _INTERVALS if any(goal.low is not None for goal in data.goals) else ""
    return table(["Goal", "Wanted", "Got, at its worst", "Where", "Result"], body, name="Goals", about=about)


def _not_verified(data: ReportData) -> Html:
    if not data.not_verified:
        return el("p", "Nothing is known to be open.")
    return el("ul", *(el("li", sentence) for sentence in data.not_verified))


def _details(data: ReportData) -> Html:
    bundles = []
    seen: dict[str, ResultRow] = {}
    for row in data.rows:
        seen.setdefault(row.name, row)
    for row in seen.values():
        pairs = {"bundle": row.bundle, "SHA-256": row.bundle_sha256, "runtime": f"{row.runtime} {row.runtime_version}", **row.settings}
        bundles += [el("h3", row.label), _pairs(pairs)]
    parts = [("Versions", _pairs(data.versions)), ("Machine", _pairs(data.machine)), ("Bundles and runtime settings", join(bundles)),
             ("edgeseg.toml", el("pre", el("code", data.config_toml), tabindex=0))]
    if data.settings:
        parts.insert(2, ("This run", _pairs(data.settings)))
    return join(el("details", el("summary", name), content) for name, content in parts)


def _pairs(values: Mapping[str, str]) -> Html:
    lines = [el("tr", el("th", key, scope="row"), el("td", value)) for key, value in values.items()]
    return el("table", el("tbody", *lines), class_="kv")


def _footer(data: ReportData) -> Html:
    return el("footer", f"Made by edgeseg {data.edgeseg_version}. This file is complete in itself: it loads nothing and runs no script.")
