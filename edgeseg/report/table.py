"""The table for the terminal and `results.json`. The table fits 80 columns and reads as plain text where it is piped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from edgeseg.report.model import ResultRow
from edgeseg.report.recommend import recommend
from edgeseg.report.words import number

_WIDE = 104
"""From this many columns on, the table also shows p99, the worst class and peak memory."""


def results_json(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    """Give `results.json`: one object a row, keys in a stable order, no NaN (see `ResultRow.to_json`)."""
    return [row.to_json() for row in rows]


@dataclass(frozen=True)
class RowsTable:
    """A Rich renderable: for each target its rows, the recommendation and the stamps. Print it with any `Console`."""

    rows: Sequence[ResultRow]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render by width: fewer columns on a narrow terminal, no lines drawn where the output is piped."""
        wide, plain = options.max_width >= _WIDE, not console.is_terminal
        for i, rec in enumerate(recommend(self.rows)):
            rows = [row for row in self.rows if row.target == rec.target]
            if i:
                yield Text()
            for place in dict.fromkeys(_place(row) for row in rows):
                yield place.copy()
                yield _table([row for row in rows if _place(row) == place], best=rec.row, wide=wide, plain=plain)
            yield Text.assemble(("Recommended: " if rec.row else "", "bold green"), (rec.reason, "" if rec.row else "bold red"))


def _place(row: ResultRow) -> Text:
    text = Text.assemble((row.target, "bold"), f"  measured on {row.measured_on} ({row.device})")
    if not row.is_target_machine:
        text.append("  NOT THE TARGET", "bold yellow")
    if row.quick:
        text.append("  QUICK", "bold yellow")
    return text


def _table(rows: Sequence[ResultRow], *, best: ResultRow | None, wide: bool, plain: bool) -> Table:
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1) if wide else (0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("bundle", no_wrap=True)
    table.add_column("runtime", overflow="ellipsis", no_wrap=True)
    heads = ["mIoU", "drop", "agree %", "p50 ms", "p90 ms", "fps", "MB"]
    if wide:
        heads = ["mIoU", "drop", "worst class", "agree %", "p50 ms", "p90 ms", "p99 ms", "fps", "MB", "peak MB"]
    for head in heads:
        table.add_column(head, justify="left" if head == "worst class" else "right", no_wrap=True)
    table.add_column("goals", overflow="fold")
    for row in rows:
        cells = {
            "mIoU": number(row.miou, 2, scale=100),
            "drop": number(row.miou_drop, 2, scale=100),
            "worst class": "-" if row.worst_class is None else f"{row.worst_class} {number(row.worst_class_drop, 1, scale=100)}",
            "agree %": number(row.agreement, 2, scale=100),
            "p50 ms": number(row.p50_ms), "p90 ms": number(row.p90_ms), "p99 ms": number(row.p99_ms), "fps": number(row.fps, 0),
            "MB": number(row.size_bytes, 2, scale=1e-6), "peak MB": number(row.peak_rss_bytes, 0, scale=1e-6),
        }
        is_best = best is not None and (row.bundle, row.device, row.threads) == (best.bundle, best.device, best.threads)
        numbers = [Text(cells[head]) for head in heads]
        table.add_row("*" if is_best else "", Text(row.label), Text(f"{row.runtime} x{row.threads}"), *numbers, _goals(row),
                      style="bold green" if is_best else "")
    return table


def _goals(row: ResultRow) -> Text:
    if not row.verified:
        return Text("not verified", "yellow")
    return Text("missed: " + ", ".join(row.failed_goals), "red") if row.failed_goals else Text("passed", "green")
