"""The page's proof: what share of each reduced bundle the runtime executes in int8, and each layer that it does not, with why."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.report.html import Html, el, join
from edgeseg.report.model import ResultRow
from edgeseg.report.page_parts import table, tag
from edgeseg.report.words import percent


def executed_section(rows: Sequence[ResultRow]) -> Html:
    """A line a reduced bundle and runtime, and below it a table of the layers that are not int8."""
    shown: dict[tuple[str, str, int], ResultRow] = {}
    for row in rows:
        if row.int8_source:
            shown.setdefault((row.name, row.runtime, row.threads), row)
    if not shown:
        return el("p", "No bundle with int8 layers was measured.", class_="muted")
    return join(_bundle(row) for row in shown.values())


def _bundle(row: ResultRow) -> Html:
    if row.int8_share is None:
        return join([el("h3", f"{row.label} in {row.runtime}"), el("p", row.int8_source)])
    said = f"{percent(row.int8_share)} of the network's multiply-accumulates run in int8. Read from {row.int8_source}."
    head = el("h3", f"{row.label} in {row.runtime} ", tag("below 90 %", "warn") if row.int8_in_name_only else None)
    body = [
        el("tr", el("th", layer.name, scope="row"), el("td", layer.kind), el("td", layer.precision),
           el("td", percent(layer.share, 2), class_="n"), el("td", layer.reason, class_="keep"))
        for layer in sorted(row.not_int8, key=lambda layer: -layer.share)
    ]
    heads = ["Layer", "Kind", "Executed in", ">Share", "Why"]
    layers = table(heads, body, name=f"Layers of {row.label} that are not int8") if body else None
    return join([head, el("p", said), layers])
