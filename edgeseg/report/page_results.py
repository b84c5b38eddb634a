"""The page's results: recommended bundles, the table of bundles, IoU per class, where the time goes."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.report.charts import part_bar
from edgeseg.report.html import Child, Html, el, join
from edgeseg.report.model import SPEED_PARTS, DatasetFacts, FloatReference, ResultRow
from edgeseg.report.page_parts import facts, swatch, table, tag
from edgeseg.report.recommend import Recommendation
from edgeseg.report.words import MISSING, equal_share, megabytes, ms, number, percent, points_between, threads

PART_NAMES = {"decode_ms": "decode", "resize_ms": "resize", "inference_ms": "inference", "resize_back_ms": "resize back"}
_PART_CSS = dict(zip(SPEED_PARTS, ("p1", "p2", "p3", "p4"), strict=True))
_LOST = 0.01
"""A class that lost this much IoU against float is marked."""


def stamps(row: ResultRow) -> Html:
    """What a reader must know about a measurement before believing it: quick, not the target."""
    quick = tag("quick", "warn") if row.quick else None
    if row.p50_ms is None:
        return tag("not measured", "warn")
    elsewhere = None if row.is_target_machine else tag("not the target", "warn")
    return join([quick, elsewhere])


def recommended_cards(recommendations: Sequence[Recommendation]) -> Html:
    """One card a target: the bundle, three numbers, why."""
    return el("div", *(_card(rec) for rec in recommendations), class_="cards")


def _card(rec: Recommendation) -> Html:
    row = rec.row
    if row is None:
        return el("article", el("h3", rec.target), el("p", "none", class_="pick"), tag("no recommendation", "bad"), el("p", rec.reason),
                  class_="card")
    numbers = facts([("median", f"{ms(row.p50_ms)} ms"), (row.main_name, percent(row.main)), ("size", megabytes(row.size_bytes))])
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
    more = [">AP50"] if first.task == "instance" else [">Dice", ">Boundary F1"]
    heads = ["Bundle", f">{first.main_name}", "Worst class", *more, ">Equal to torch", ">Int8", ">p50", ">p90", ">p99", ">Frames / s",
             ">Speed-up", ">MB", ">Peak MB", "Goals"]
    about = "" if first.p50_ms is None else f"Measured on {first.measured_on} ({first.device}). "
    whys = el("ul", *(el("li", el("b", row.label), f": {row.reason}") for row in rows if row.reason and not row.recommended))
    return join([el("h3", first.target),
                 table(heads, [_bundle_row(row) for row in rows], name=f"Bundles for {first.target}", about=join([about, stamps(first)]),
                       css="bundles"),
                 el("details", el("summary", "Why not the others"), whys) if "<li" in whys else None])


def _bundle_row(row: ResultRow) -> Html:
    ratio = row.speedup_vs_fp32
    speedup: Child = "-"
    if ratio is not None and row.reduced:
        speedup = _two(f"{ratio.value:.2f}×", f"{ratio.low:.2f} to {ratio.high:.2f}")
    worst: Child = "-"
    if row.worst_class is not None and row.worst_class_drop is not None:
        worst = _two(row.worst_class, _change(-row.worst_class_drop), points_between(row.worst_class_interval))
    if row.failed_goals or row.undecided_goals:
        parts = [tag("missed", "bad"), el("span", ", ".join(row.failed_goals), class_="sub")] if row.failed_goals else []
        open_ = [tag("not decided", "warn"), el("span", ", ".join(row.undecided_goals), class_="sub")] if row.undecided_goals else []
        goals = join([*parts, *open_])
    else:
        goals = tag("passed", "good") if row.verified else tag("not verified", "warn")
    name = el("th", row.label, tag("recommended", "good") if row.recommended else None, el("br"),
              el("span", f"{row.runtime} {row.runtime_version}, {threads(row)}", class_="sub"), scope="row")
    agreement = MISSING if row.agreement is None else f"{equal_share(row.agreement, 3)} %"
    regions = [percent(row.ap50, 2)] if row.task == "instance" else [percent(row.mean_dice, 2), percent(row.mean_boundary_f1, 2)]
    int8 = join([percent(row.int8_share), tag("below 90 %", "warn") if row.int8_in_name_only else None])
    change = "" if row.main_drop is None else _change(-row.main_drop)
    accuracy = [_two(percent(row.main, 2), change, points_between(row.drop_interval)), worst, *regions, agreement, int8]
    speed = [ms(row.p50_ms), ms(row.p90_ms), ms(row.p99_ms), number(row.fps), speedup]
    rest = [number(row.size_bytes, 2, scale=1e-6), number(row.peak_rss_bytes, 0, scale=1e-6)]
    cells = [el("td", cell, class_="keep" if cell is worst else "n") for cell in (*accuracy, *speed, *rest)]
    return el("tr", name, *cells, el("td", goals), class_="best" if row.recommended else None)


def _two(above: str, *below: str) -> Html:
    return join([above, *(el("span", line, class_="sub") for line in below if line)])


def _change(value: float) -> str:
    """Write a change of a fraction in points, signed."""
    words = number(value, 2, scale=100)
    return f"{words if words.startswith('-') or words == '0.00' else '+' + words}"


def class_table(rows: Sequence[ResultRow], reference: FloatReference, dataset: DatasetFacts) -> Html:
    """IoU (or AP) per class, float against each bundle; the fuller the cell, the higher the IoU; a loss of a point or more is marked.

    Dice and boundary F1 of each class are folded away below.
    """
    bundles = unique_bundles(rows, len(dataset.classes))
    about = f"{reference.num_frames} frames of the {reference.split} split. Small: change against float, in points."
    columns = [(reference.main_of_classes, reference.main), *((row.main_of_classes, row.main) for row in bundles)]
    parts = [_class_table(f"{'AP' if reference.task == 'instance' else 'IoU'} of each class", columns, bundles, dataset, about)]
    outlines = "F1 of outlines; a pixel counts as found where one of the same class's outline lies within 0.75 % of the frame's diagonal."
    networks: list[FloatReference | ResultRow] = [reference, *bundles]
    more = [("Dice of each class", "The F1 of pixels.", [(one.dice, one.mean_dice) for one in networks]),
            ("Boundary F1 of each class", outlines, [(one.boundary_f1, one.mean_boundary_f1) for one in networks])]
    for name, said, values in more:
        if all(len(value) == len(dataset.classes) for value, _ in values):
            parts.append(el("details", el("summary", name), _class_table(name, values, bundles, dataset, said)))
    return join(parts)


def unique_bundles(rows: Sequence[ResultRow], num_classes: int) -> list[ResultRow]:
    """One row a bundle and arithmetic, in order; those that were evaluated class by class."""
    return list({row.name: row for row in reversed(rows) if len(row.main_of_classes) == num_classes}.values())[::-1]


def _class_table(
    name: str, columns: Sequence[tuple[Sequence[float | None], float | None]], bundles: Sequence[ResultRow], dataset: DatasetFacts,
    about: str,
) -> Html:
    """A row a class and a column a network, the first being float; `columns` = (value of each class, mean)."""
    heads = ["Class", ">float, torch", *(f">{row.label}" for row in bundles)]
    (base, base_mean), *others = columns
    lines = []
    for index, class_name in enumerate(dataset.classes):
        cells = [_share_cell(base[index], None), *(_share_cell(values[index], base[index]) for values, _ in others)]
        lines.append(el("tr", el("th", swatch(index, dataset.palette), class_name, scope="row"), *cells))
    means = [_share_cell(base_mean, None), *(_share_cell(mean, base_mean) for _, mean in others)]
    return table(heads, lines, name=name, about=about, css="heat", foot=el("tr", el("th", "Mean", scope="row"), *means))


def _share_cell(value: float | None, base: float | None) -> Html:
    if value is None:
        return el("td", el("span", "not evaluated", class_="muted small"), class_="n")
    change: Child = None
    if base is not None:
        words = f"{100 * (value - base):+.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")
        change = el("span", el("span", words, class_="lost" if base - value >= _LOST else None), class_="sub")
    return el("td", percent(value), change, class_="n", style=f"--v:{min(1.0, max(0.0, value)):.3f}")


def speed_bars(rows: Sequence[ResultRow]) -> Html:
    """Where the time of one frame goes, from the file's bytes to the class map at frame size; all bars to one scale."""
    timed = [(row, _parts(row)) for row in rows]
    timed = [(row, parts) for row, parts in timed if parts]
    if not timed:
        return el("p", "No times were measured.", class_="muted")
    full = max(sum(parts.values()) for _, parts in timed)
    keys = [el("li", el("i", class_=f"swatch {_PART_CSS[part]}", aria_hidden="true"), PART_NAMES[part]) for part in SPEED_PARTS]
    legend = el("ul", *keys, el("li", el("b", "*"), " recommended"), class_="legend")
    groups: list[Child] = [legend]
    for place in dict.fromkeys((row.target, row.measured_on) for row, _ in timed):
        here = [(row, parts) for row, parts in timed if (row.target, row.measured_on) == place]
        groups.append(el("h3", f"{place[0]} ", stamps(here[0][0])))
        cells: list[Child] = []
        for row, parts in here:
            words = ", ".join(f"{PART_NAMES[part]} {ms(value)} ms" for part, value in parts.items())
            bar = part_bar([(_PART_CSS[part], value) for part, value in parts.items()], full=full, said=f"{row.label}: {words}")
            cells.append(el("li", el("span", row.label, el("b", " *") if row.recommended else None), bar,
                            el("span", f"{ms(sum(parts.values()))} ms", class_="ms")))
        groups.append(el("ul", *cells, class_="bars"))
    groups.append(el("details", el("summary", "The same in numbers"), _speed_table(timed)))
    return join(groups)


def _parts(row: ResultRow) -> dict[str, float]:
    values = {part: getattr(row, part) for part in SPEED_PARTS}
    return {part: value for part, value in values.items() if value is not None} if values["inference_ms"] is not None else {}


def _speed_table(timed: Sequence[tuple[ResultRow, dict[str, float]]]) -> Html:
    heads = ["Target", "Bundle", *(f">{PART_NAMES[part]}, ms" for part in SPEED_PARTS), ">end to end, ms", ">loading, ms"]
    body = [el("tr", el("td", row.target), el("th", row.label, scope="row"),
               *(el("td", number(value, 2), class_="n")
                 for value in (*(parts.get(part) for part in SPEED_PARTS), row.end_to_end_ms, row.load_ms)))
            for row, parts in timed]
    about = "Medians; the median of the whole need not be the sum of the parts' medians."
    return table(heads, body, name="Where the time goes, in numbers", about=about)
