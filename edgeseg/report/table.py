"""The table for the terminal and `results.json`. The table fits 80 columns and reads as plain text where it is piped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from edgeseg.report.model import ResultRow
from edgeseg.report.recommend import recommend
from edgeseg.report.words import equal_share, ms, number

_COLUMNS: Final = {
    "bundle": 0, "runtime": 100, "mIoU": 0, "drop": 0, "worst class": 128, "Dice": 160, "outline F1": 160, "agree %": 0, "int8 %": 100,
    "p50 ms": 0, "p90 ms": 0, "p99 ms": 100, "fps": 0, "MB": 0, "peak MB": 128,
}
"""Columns, and the width of the terminal from which on each is shown."""
_WORDS: Final = ("bundle", "runtime", "worst class")
_ROOMY: Final = 128
"""Width from which on columns stand two blanks apart."""


def results_json(rows: Sequence[ResultRow]) -> list[dict[str, Any]]:
    """Give `results.json`: one object a row, keys in a stable order, no NaN (see `ResultRow.to_json`)."""
    return [row.to_json() for row in rows]


@dataclass(frozen=True)
class RowsTable:
    """A Rich renderable: for each target its rows, the recommendation and the stamps. Print it with any `Console`."""

    rows: Sequence[ResultRow]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render by width: fewer columns on a narrow terminal. No lines are drawn, so that a pipe gets plain text."""
        for i, rec in enumerate(recommend(self.rows)):
            rows = [row for row in self.rows if row.target == rec.target]
            if i:
                yield Text()
            for place in dict.fromkeys((row.device, row.measured_on) for row in rows):
                here = [row for row in rows if (row.device, row.measured_on) == place]
                yield _place(here[0])
                yield _table(here, best=rec.row, width=options.max_width)
                for row in (row for row in here if row.int8_in_name_only):
                    yield Text(f"{row.label}: only {number(row.int8_share, 1, scale=100)} % of it runs in int8", "yellow")
            yield Text.assemble(("Recommended: " if rec.row else "", "bold green"), (rec.reason, "" if rec.row else "bold red"))


def _place(row: ResultRow) -> Text:
    if row.p50_ms is None:
        return Text.assemble((row.target, "bold"), ("  NOT MEASURED", "bold yellow"))
    text = Text.assemble((row.target, "bold"), f"  measured on {row.measured_on} ({row.device})")
    if not row.is_target_machine:
        text.append("  NOT THE TARGET", "bold yellow")
    if row.quick:
        text.append("  QUICK", "bold yellow")
    return text


def _table(rows: Sequence[ResultRow], *, best: ResultRow | None, width: int) -> Table:
    proven = any(row.int8_share is not None for row in rows)
    wanted = [key for key, least in _COLUMNS.items() if width >= least and (key != "int8 %" or proven)]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0) if width >= _ROOMY else (0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for key in wanted:
        shown = rows[0].main_name if key == "mIoU" else key
        table.add_column(shown, justify="left" if key in _WORDS else "right", no_wrap=True, max_width=22 if key in _WORDS else None)
    table.add_column("goals", overflow="fold", min_width=6)
    for row in rows:
        is_best = best is not None and (row.name, row.device, row.threads) == (best.name, best.device, best.threads)
        cells = _cells(row)
        table.add_row("*" if is_best else "", *(Text(cells[key]) for key in wanted), _goals(row), style="bold green" if is_best else "")
    return table


def _cells(row: ResultRow) -> dict[str, str]:
    return {
        "bundle": row.label,
        "runtime": f"{row.runtime} x{row.threads}" if row.threads else row.runtime,
        "mIoU": number(row.main, 2, scale=100),
        "drop": number(row.main_drop, 2, scale=100),
        "worst class": "-" if row.worst_class is None else f"{number(row.worst_class_drop, 1, scale=100)} {row.worst_class}",
        "Dice": number(row.mean_dice, 2, scale=100),
        "outline F1": number(row.mean_boundary_f1, 2, scale=100),
        "agree %": equal_share(row.agreement, 2),
        "int8 %": number(row.int8_share, 1, scale=100) + ("!" if row.int8_in_name_only else ""),
        "p50 ms": ms(row.p50_ms),
        "p90 ms": ms(row.p90_ms),
        "p99 ms": ms(row.p99_ms),
        "fps": number(row.fps, 0),
        "MB": number(row.size_bytes, 2, scale=1e-6),
        "peak MB": number(row.peak_rss_bytes, 0, scale=1e-6),
    }


def _goals(row: ResultRow) -> Text:
    if not row.verified:
        return Text("not verified", "yellow")
    open_ = "not decided: " + ", ".join(row.undecided_goals)
    if row.failed_goals:
        return Text("missed: " + ", ".join(row.failed_goals) + (f"; {open_}" if row.undecided_goals else ""), "red")
    return Text(open_, "yellow") if row.undecided_goals else Text("passed", "green")
