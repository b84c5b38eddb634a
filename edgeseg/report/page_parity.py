"""The page's parity ladders: each bundle rung by rung from torch, and the operation to blame where one fell off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeseg.report.html import Child, Html, el, join
from edgeseg.report.page_parts import table, tag
from edgeseg.report.words import MISSING, equal_share, no_operation, number, percent

_HEADS = ("Rung", ">As the rung below", ">As the lowest", ">Outlines", "Lowest class IoU", ">Scores, dB", ">Cosine", ">mIoU", "Result")


def parity_section(ladders: Sequence[Mapping[str, Any]]) -> Html:
    """A table a ladder; `ladders` as `edgeseg.workflow.parity.ladder` writes them."""
    if not ladders:
        return el("p", "Not climbed; type: edgeseg run --ladder", class_="muted")
    return join(_ladder(ladder) for ladder in ladders)


def _ladder(ladder: Mapping[str, Any]) -> Html:
    about = f"{ladder['num_frames']} frames: {ladder['frames']}."
    body = [_rung(rung) for rung in ladder["rungs"]]
    blames = [
        el("p", el("b", f"{rung['name']} fell off"), f" ({', '.join(rung['fallen'])}). First to diverge: ",
           rung["blame"]["words"] if rung["blame"] else f"{no_operation(rung.get('elsewhere', ''))}.")
        for rung in ladder["rungs"] if rung["fallen"]
    ]
    notes = el("ul", *(el("li", note) for note in ladder["notes"])) if ladder["notes"] else None
    return join([el("h3", ladder["bundle"]), table(_HEADS, body, name=f"Rungs of {ladder['bundle']}", about=about), *blames, notes])


def _rung(rung: Mapping[str, Any]) -> Html:
    present = {name: iou for name, iou in rung["class_iou"].items() if iou is not None}
    worst = min(present, key=lambda name: present[name]) if present else None
    cells: list[Child] = [
        _share(rung["agreement"]), _share(rung["agreement_with_lowest"]), percent(rung["boundary_agreement"], 2),
        MISSING if worst is None else f"{worst} {percent(present[worst], 2)}", number(rung["logit_sqnr_db"], 1),
        number(rung["logit_cosine"], 5), percent(rung["miou_labels"], 2),
    ]
    result: Child = tag("fell off", "bad") if rung["fallen"] else tag("held", "good")
    name = el("th", rung["name"], el("br"), el("span", rung["how"], class_="sub"), scope="row")
    return el("tr", name, *(el("td", cell, class_="keep" if i == 3 else "n") for i, cell in enumerate(cells)),
              el("td", result if rung["compared_with"] else "the reference"))


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{equal_share(value, 3)} %"
