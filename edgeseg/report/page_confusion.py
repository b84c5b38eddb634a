"""The page's confusion matrices: what each class is answered as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgeseg.report.html import Html, el, join
from edgeseg.report.model import DatasetFacts, FloatReference, ResultRow
from edgeseg.report.page_parts import swatch, table
from edgeseg.report.page_results import unique_bundles
from edgeseg.report.words import percent

MAX_CLASSES: Final = 32
"""A matrix of more classes than this is no longer read; its largest confusions are listed instead."""
NUM_LISTED: Final = 20

Matrix = Sequence[Sequence[int]]
"""Pixels, rows = label, columns = answer."""


def confusion_section(rows: Sequence[ResultRow], reference: FloatReference, dataset: DatasetFacts) -> Html:
    """The float network's matrix, and those of the bundles folded away below."""
    if not reference.confusion:
        return el("p", "No confusion matrix was kept.", class_="muted")
    parts = [_matrix("float, torch", reference.confusion, dataset)]
    for row in unique_bundles(rows, len(dataset.classes)):
        if row.confusion:
            parts.append(el("details", el("summary", row.label), _matrix(row.label, row.confusion, dataset)))
    return join(parts)


def largest_confusions(matrix: Matrix, count: int) -> list[tuple[int, int, float]]:
    """Give (label, answer, share of the label's pixels) of the `count` cells off the diagonal that hold most pixels, most first."""
    cells = [(pixels, label, answer) for label, line in enumerate(matrix) for answer, pixels in enumerate(line)
             if pixels and label != answer]
    cells.sort(key=lambda cell: (-cell[0], cell[1], cell[2]))
    return [(label, answer, pixels / sum(matrix[label])) for pixels, label, answer in cells[:count]]


def _matrix(name: str, matrix: Matrix, dataset: DatasetFacts) -> Html:
    if len(dataset.classes) > MAX_CLASSES:
        return _list(name, matrix, dataset)
    lines = []
    for label, line in enumerate(matrix):
        total = sum(line)
        cells = [_cell(pixels / total if total else None) for pixels in line]
        head = el("th", swatch(label, dataset.palette), dataset.classes[label], scope="row")
        lines.append(el("tr", head, *cells, el("td", f"{total:,}".replace(",", " "), class_="n")))
    heads = ["Label", *(f">{name}" for name in dataset.classes), ">Pixels"]
    return table(heads, lines, name=f"Confusion matrix: {name}", about=f"{name}: share of each label's pixels by answer.", css="heat")


def _cell(share: float | None) -> Html:
    if share is None:
        return el("td", "-", class_="n muted")
    return el("td", percent(share), class_="n", style=f"--v:{share:.3f}")


def _list(name: str, matrix: Matrix, dataset: DatasetFacts) -> Html:
    lines = [
        el("tr", *(el("td", swatch(index, dataset.palette), dataset.classes[index]) for index in (label, answer)), _cell(share))
        for label, answer, share in largest_confusions(matrix, NUM_LISTED)
    ]
    about = f"{name}: the confusions of most pixels; of {len(dataset.classes)} classes a matrix would not be read."
    return table(["Label", "Answered as", ">Share of the label's pixels"], lines, name=f"Confusions: {name}", about=about, css="heat")
