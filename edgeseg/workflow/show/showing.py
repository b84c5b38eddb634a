"""A finished run, shown again: which one is meant, its rows, its table and goals, its page."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

from edgeseg.core.config import load_config
from edgeseg.core.errors import InputMissingError
from edgeseg.core.files import read_json
from edgeseg.report.model import GoalResult, ResultRow
from edgeseg.report.table import RowsTable
from edgeseg.report.words import goal_words, verdict_word


def find_run(name: str) -> Path:
    """The folder of a run: a path, a name under runs/, or with no name that of ./edgeseg.toml, else the newest under runs/.

    Raises:
        InputMissingError: there is none, or it has no results yet.
    """
    if name:
        candidates = [Path(name), Path("runs") / name]
    elif Path("edgeseg.toml").is_file():
        candidates = [Path("runs") / load_config(Path("edgeseg.toml")).name]
    else:
        candidates = sorted(
            (p.parent for p in Path("runs").glob("*/results.json")), key=lambda p: (p / "results.json").stat().st_mtime, reverse=True
        )
    for folder in candidates:
        if (folder / "results.json").is_file():
            return folder
    what = f"no results for run '{name}'" if name else "no run with results here"
    raise InputMissingError(f"{what}; type: edgeseg run, or name a run folder")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The list of `results.json`."""
    rows: list[dict[str, Any]] = read_json(folder / "results.json")
    return rows


def print_report(folder: Path) -> None:
    """Print the table, the goals and where the page is."""
    from rich.console import Console

    console = Console()
    summary = read_json(folder / "summary.json")
    console.print(RowsTable([ResultRow.from_json(row) for row in read_rows(folder)]))
    console.print()
    if summary["pruning"]:
        console.print(summary["pruning"], markup=False, highlight=False)
    for note in summary["not_verified"]:
        console.print(f"Not verified: {note}", markup=False, highlight=False)
    for goal in (GoalResult(**goal) for goal in summary["goals"]):
        name, wanted, got = goal_words(goal)
        said = verdict_word(goal) if goal.passed else verdict_word(goal).upper()
        about = f"; {goal.about}" if goal.about else ""
        console.print(f"{said}: {name}: {wanted}, got {got} ({goal.where}){about}", markup=False, highlight=False)
    console.print(f"Page: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def open_page(folder: Path) -> None:
    """Open report.html in the user's browser."""
    webbrowser.open((folder / "report.html").resolve().as_uri())
