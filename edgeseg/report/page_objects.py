"""The page's pictures of an instance model: frames with the objects labelled and found drawn over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from edgeseg.core.images import Frame
from edgeseg.report.html import Html, el, frame_uri, join
from edgeseg.report.model import ObjectPicture, ResultRow

_MAX_WIDTH: Final = 360


def objects_section(pictures: Sequence[ObjectPicture], rows: Sequence[ResultRow]) -> Html:
    """All pictures in the order given, with what is drawn in them."""
    if not pictures:
        return el("p", "No pictures were kept.", class_="muted")
    about = el("p", "Each object has a colour of its own; its class and score stand at its box.")
    labels = {row.name: row.label for row in rows}
    return join([about, *(_picture(picture, labels) for picture in pictures)])


def _picture(picture: ObjectPicture, labels: Mapping[str, str]) -> Html:
    counts = picture.counts
    figures = [
        _figure("label", counts["label"], picture.label, picture.id),
        _figure("float, torch", counts["float"], picture.float_answer, picture.id),
        *(_figure(labels.get(name, name), counts[name], shown, picture.id) for name, shown in picture.bundle_answers.items()),
    ]
    note = el("p", picture.note, class_="muted small") if picture.note else None
    strip = el("div", *figures, class_="strip", style=f"--columns:{min(6, len(figures))}")
    return el("article", el("h3", picture.id), note, strip, class_="picture")


def _figure(name: str, count: int, shown: Frame, frame_id: str) -> Html:
    words = f"{count} object{'' if count == 1 else 's'}"
    height, width = shown.shape[:2]
    image = el("img", src=frame_uri(shown, max_width=_MAX_WIDTH), alt=f"Frame {frame_id}, {name}: {words}", width=width, height=height)
    return el("figure", el("figcaption", el("b", name), el("span", words)), image)
