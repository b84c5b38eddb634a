"""The page's results: recommended bundles, the table of bundles, IoU per class, where the time goes."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.report.charts import part_bar
from edgeseg.report.html import Child, Html, Palette, el, join
from edgeseg.report.model import SPEED_PARTS, DatasetFacts, FloatReference, ResultRow
from edgeseg.report.recommend import Recommendation
from edgeseg.report.words import goal_name, megabytes, number, percent, threads

PART_NAMES = {"decode_ms": "decode", "resize_ms": "resize", "inference_ms": "inference", "resize_back_ms": "resize back"}
_PART_CSS = dict(zip(SPEED_PARTS, ("p1", "p2", "p3", "p4"), strict=True))
_LOST = 0.01
"""A class that lost this much IoU against float is marked."""


def tag(words: str, kind: str) -> Html:
    """Give a small label; `kind` is good, bad or warn."""
    return el("span", words, class_=f"tag {kind}")


def stamps(row: ResultRow) -> Html:
    """What a reader must know about a measurement before believing it: quick, not the target."""
    quick = tag("quick", "warn") if row.quick else None
    elsewhere = None if row.is_target_machine else tag("not the target", "warn")
    return join([quick, elsewhere])


def facts(pairs: Sequence[tuple[str, Child]]) -> Html:
    """Give facts as name over value."""
    return el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in pairs), class_="facts")


def scrollable(table: Html, *, name: str) -> Html:
    """Let a wide table scroll by itself, also by keyboard."""
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label=name)


def recommended_cards(recommendations: Sequence[Recommendation]) -> Html:
    """One card a target: the bundle, three numbers, why."""
    return el("div", *(_card(rec) for rec in recommendations), class_="cards")


def _card(rec: Recommendation) -> Html:
    row = rec.row
    if row is None:
        return el("article", el("h3", rec.target), el("p", "none", class_="pick"), tag("no recommendation", "bad"), el("p", rec.reason),
                  class_="card")
    numbers = facts([("median", f"{number(row.p50_ms)} ms"), ("mIoU", percent(row.miou)), ("size", megabytes(row.size_bytes))])
    goals = tag("goals passed", "good") if row.passed else tag("goals missed", "bad")
    return el(
        "article", el("h3", rec.target), el("p", row.label, class_="pick"),
        el("p", f"{row.runtime} {row.runtime_version}, {threads(row)}", class_="muted small"), goals, stamps(row), numbers,
        el("p", rec.reason), class_="card",
    )


def bundle_tables(rows: Sequence[ResultRow]) -> Html:
    """One table a target and place of measurement."""
    places = dict.fromkeys((row.target, row.device, row.measured_on) for row in rows)
    return join(_bundle_table([r for r in rows if (r.target, r.device, r.measured_on) == place]) for place in places)


def _bundle_table(rows: Sequence[ResultRow]) -> Html:
    first = rows[0]
    heads = [("Bundle", ""), ("mIoU", "n"), ("Loss against float", "n"), ("Worst class", ""), ("Equal to torch", "n"),
             ("p50", "n"), ("p90", "n"), ("p99", "n"),
             ("Frames / s", "n"), ("Against its fp32", "n"), ("Size", "n"), ("Peak memory", "n"), ("Load", "n"),
             ("Goals", ""), ("Verdict", "why")]
    head = el("thead", el("tr", *(el("th", name, scope="col", class_=css or None) for name, css in heads)))
    caption = el("caption", f"Measured on {first.measured_on} ({first.device}). Latency in milliseconds a frame. ",
                 *(stamps(row) for row in rows[:1]))
    table = el("table", caption, head, el("tbody", *(_bundle_row(row) for row in rows)), class_="bundles")
    return join([el("h3", first.target), scrollable(table, name=f"Bundles for {first.target}")])


def _bundle_row(row: ResultRow) -> Html:
    ratio = row.speedup_vs_fp32
    speedup: Child = "-"
    if ratio is not None and row.precision != "fp32":
        speedup = join([f"{ratio.value:.2f}×", el("span", f"{ratio.low:.2f} to {ratio.high:.2f}", class_="sub")])
    worst: Child = "-"
    if row.worst_class is not None and row.worst_class_drop is not None:
        worst = join([row.worst_class, el("span", f"{number(-row.worst_class_drop, 1, scale=100)} points", class_="sub")])
    if row.failed_goals:
        goals = join(tag(f"missed: {goal_name(goal)}", "bad") for goal in row.failed_goals)
    else:
        goals = tag("passed", "good") if row.verified else tag("not verified", "warn")
    name = el("th", row.label, tag("recommended", "good") if row.recommended else None, el("br"),
              el("span", f"{row.runtime} {row.runtime_version}, {threads(row)}", class_="sub"), scope="row")
    cells = [percent(row.miou, 2), number(row.miou_drop, 2, scale=100), worst, percent(row.agreement, 3),
             number(row.p50_ms), number(row.p90_ms), number(row.p99_ms), number(row.fps), speedup,
             megabytes(row.size_bytes), megabytes(row.peak_rss_bytes, 0),
             f"{number(row.load_ms, 0)} ms"]
    numbers = [el("td", cell, class_=None if i == 2 else "n") for i, cell in enumerate(cells)]
    return el("tr", name, *numbers, el("td", goals), el("td", row.reason, class_="why"), class_="best" if row.recommended else None)


def class_table(rows: Sequence[ResultRow], reference: FloatReference, dataset: DatasetFacts) -> Html:
    """IoU per class, float against each bundle; the fuller the cell, the higher the IoU; a loss of a point or more is marked."""
    bundles = list({row.bundle: row for row in reversed(rows) if len(row.iou) == len(dataset.classes)}.values())[::-1]
    head = el("thead", el("tr", el("th", "Class", scope="col"), el("th", "float, torch", scope="col", class_="n"),
                          *(el("th", row.label, scope="col", class_="n") for row in bundles)))
    lines = []
    for index, name in enumerate(dataset.classes):
        base = reference.iou[index]
        cells = [_iou_cell(base, None), *(_iou_cell(row.iou[index], base) for row in bundles)]
        lines.append(el("tr", el("th", swatch(index, dataset.palette), name, scope="row"), *cells))
    means = [_iou_cell(reference.miou, None), *(_iou_cell(row.miou, reference.miou) for row in bundles)]
    foot = el("tfoot", el("tr", el("th", "Mean", scope="row"), *means))
    caption = el("caption", f"{reference.num_frames} frames of the {reference.split} split. Small: change against float, in points.")
    return scrollable(el("table", caption, head, el("tbody", *lines), foot, class_="heat"), name="IoU of each class")


def _iou_cell(value: float | None, base: float | None) -> Html:
    if value is None:
        return el("td", el("span", "not evaluated", class_="muted small"), class_="n")
    change: Child = None
    if base is not None:
        words = f"{100 * (value - base):+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")
        change = el("span", el("span", words, class_="lost" if base - value >= _LOST else None), class_="sub")
    return el("td", percent(value), change, class_="n", style=f"--v:{min(1.0, max(0.0, value)):.3f}")


def swatch(index: int, palette: Palette) -> Html:
    """Give the colour of a class as a small square."""
    red, green, blue = palette[index]
    return el("span", class_="swatch", style=f"background:rgb({int(red)},{int(green)},{int(blue)})", aria_hidden="true")


def speed_bars(rows: Sequence[ResultRow]) -> Html:
    """Where the time of one frame goes, from the file's bytes to the class map at frame size; all bars to one scale."""
    timed = [(row, _parts(row)) for row in rows]
    timed = [(row, parts) for row, parts in timed if parts]
    if not timed:
        return el("p", "No times were measured.", class_="muted")
    full = max(sum(parts.values()) for _, parts in timed)
    keys = [el("li", el("i", class_=f"swatch {_PART_CSS[part]}", aria_hidden="true"), PART_NAMES[part]) for part in SPEED_PARTS]
    legend = el("ul", *keys, class_="legend")
    groups: list[Child] = [legend]
    for place in dict.fromkeys((row.target, row.measured_on) for row, _ in timed):
        here = [(row, parts) for row, parts in timed if (row.target, row.measured_on) == place]
        groups.append(el("h3", f"{place[0]} ", stamps(here[0][0])))
        cells: list[Child] = []
        for row, parts in here:
            words = ", ".join(f"{PART_NAMES[part]} {number(value, 2)} ms" for part, value in parts.items())
            cells += [el("span", row.label, el("b", " *") if row.recommended else None),
                      part_bar([(_PART_CSS[part], value) for part, value in parts.items()], full=full, said=f"{row.label}: {words}"),
                      el("span", f"{number(sum(parts.values()), 1)} ms", class_="ms")]
        groups.append(el("div", *cells, class_="bars"))
    groups.append(el("details", el("summary", "The same in numbers"), _speed_table(timed)))
    return join(groups)


def _parts(row: ResultRow) -> dict[str, float]:
    values = {part: getattr(row, part) for part in SPEED_PARTS}
    return {part: value for part, value in values.items() if value is not None} if values["inference_ms"] is not None else {}


def _speed_table(timed: Sequence[tuple[ResultRow, dict[str, float]]]) -> Html:
    names = ["Target", "Bundle", *(f"{PART_NAMES[part]}, ms" for part in SPEED_PARTS), "end to end, ms"]
    head = el("thead", el("tr", *(el("th", name, scope="col", class_="n" if i > 1 else None) for i, name in enumerate(names))))
    body = [el("tr", el("td", row.target), el("th", row.label, scope="row"),
               *(el("td", number(value, 2), class_="n") for value in (*(parts.get(p) for p in SPEED_PARTS), row.end_to_end_ms)))
            for row, parts in timed]
    caption = el("caption", "Medians; the median of the whole need not be the sum of the parts' medians.")
    return scrollable(el("table", caption, head, el("tbody", *body)), name="Where the time goes, in numbers")
