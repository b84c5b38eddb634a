"""The page's pictures: frames beside label and answers, the worst ones first, and where the answers differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgeseg.core.images import IGNORE_INDEX, ClassMap
from edgeseg.core.metrics import confusion_matrix, score
from edgeseg.report.html import IGNORE_COLOUR, Child, Html, class_map_uri, el, frame_uri, join
from edgeseg.report.model import DatasetFacts, Picture, ResultRow
from edgeseg.report.page_parts import swatch
from edgeseg.report.words import percent

_MAX_WIDTH: Final = 360
_RIGHT, _WRONG, _LOST, _GAINED = range(4)
DIFFERENCE_COLOURS: Final = ((244, 246, 248), (96, 96, 104), (213, 70, 0), (0, 114, 178))
"""Right; wrong in both; wrong here though float is right; right here though float is wrong. Told apart also without red or green."""
_DIFFERENCE_NAMES: Final = ("right", "wrong", "wrong, float was right", "right, float was wrong", "not labelled")


def frame_miou(answer: ClassMap, label: ClassMap, num_classes: int) -> float | None:
    """Give the mIoU of one frame; `None` where it has no labelled pixel."""
    confusion = confusion_matrix(answer, label, num_classes=num_classes)
    return score(confusion).miou if confusion.sum() else None


def worst_first(pictures: Sequence[Picture], num_classes: int) -> list[Picture]:
    """Order pictures by the mIoU of their worst answer, lowest first; frames with no labelled pixel last."""

    def worst(picture: Picture) -> float:
        values = [frame_miou(m, picture.label, num_classes) for m in (picture.float_map, *picture.bundle_maps.values())]
        return min((v for v in values if v is not None), default=2.0)

    return sorted(pictures, key=worst)


def difference_map(answer: ClassMap, label: ClassMap, float_map: ClassMap | None) -> ClassMap:
    """Give uint8 [H, W] of indices into `DIFFERENCE_COLOURS`; 255 where the label says ignore. Without `float_map` right or wrong."""
    right = answer == label
    base = right if float_map is None else float_map == label
    kinds = np.where(right, np.where(base, _RIGHT, _GAINED), np.where(base, _LOST, _WRONG)).astype(np.uint8)
    if float_map is None:
        kinds = np.where(right, _RIGHT, _WRONG).astype(np.uint8)
    kinds[label == IGNORE_INDEX] = IGNORE_INDEX
    return kinds


def pictures_section(pictures: Sequence[Picture], dataset: DatasetFacts, rows: Sequence[ResultRow]) -> Html:
    """All pictures, the worst first, with the legends they need."""
    if not pictures:
        return el("p", "No pictures were kept.", class_="muted")
    labels = {row.name: row.label for row in rows}
    classes = el("ul", *(el("li", swatch(i, dataset.palette), name) for i, name in enumerate(dataset.classes)), class_="legend")
    kinds = el("ul", *(el("li", swatch(i, (*DIFFERENCE_COLOURS, IGNORE_COLOUR)), name) for i, name in enumerate(_DIFFERENCE_NAMES)),
               class_="legend")
    figures = [_picture(p, dataset, labels) for p in worst_first(pictures, len(dataset.classes))]
    about = el("p", "Below each answer stands its difference from the label. Percentages are the mIoU of that one frame.")
    return join([about, classes, kinds, *figures])


def _picture(picture: Picture, dataset: DatasetFacts, labels: dict[str, str]) -> Html:
    figures = [
        _figure("frame", "label below", [
            (frame_uri(picture.frame, max_width=_MAX_WIDTH), f"Frame {picture.id}"),
            (class_map_uri(picture.label, dataset.palette, max_width=_MAX_WIDTH), f"Label: {_content(picture.label, dataset)}"),
        ], picture),
        _answer("float, torch", picture.float_map, None, picture, dataset),
    ]
    for bundle, class_map in picture.bundle_maps.items():
        figures.append(_answer(labels.get(bundle, bundle), class_map, picture.float_map, picture, dataset))
    note = el("p", picture.note, class_="muted small") if picture.note else None
    strip = el("div", *figures, class_="strip", style=f"--columns:{min(6, len(figures))}")
    return el("article", el("h3", picture.id), note, strip, class_="picture")


def _answer(name: str, answer: ClassMap, float_map: ClassMap | None, picture: Picture, dataset: DatasetFacts) -> Html:
    difference = difference_map(answer, picture.label, float_map)
    labelled = int((difference != IGNORE_INDEX).sum())
    wrong = int(((difference == _WRONG) | (difference == _LOST)).sum())
    images = [
        (class_map_uri(answer, dataset.palette, max_width=_MAX_WIDTH), f"Answer of {name}: {_content(answer, dataset)}"),
        (class_map_uri(difference, DIFFERENCE_COLOURS, max_width=_MAX_WIDTH),
         f"Difference of {name} from the label: {percent(wrong / labelled if labelled else None)} of the labelled pixels are wrong"),
    ]
    return _figure(name, percent(frame_miou(answer, picture.label, len(dataset.classes))), images, picture)


def _figure(name: str, value: str | None, images: Sequence[tuple[str, str]], picture: Picture) -> Html:
    height, width = picture.label.shape
    caption: list[Child] = [el("b", name), None if value is None else el("span", value)]
    return el("figure", el("figcaption", *caption), *(el("img", src=src, alt=alt, width=width, height=height) for src, alt in images))


def _content(class_map: ClassMap, dataset: DatasetFacts) -> str:
    """What a class map shows, for who cannot see it: the classes by share, the largest three."""
    known = class_map[class_map != IGNORE_INDEX]
    if known.size == 0:
        return "nothing labelled"
    counts = np.bincount(known.ravel(), minlength=len(dataset.classes))
    order = [int(i) for i in np.argsort(-counts, kind="stable")[:3] if counts[i]]
    return ", ".join(f"{dataset.classes[i] if i < len(dataset.classes) else i} {percent(counts[i] / known.size, 0)}" for i in order)
