"""What there is to know: the networks, the boards, this machine."""

from __future__ import annotations

from typing import Any

from edgeseg.core.lazy import require


def models() -> list[dict[str, Any]]:
    """One object a network of the registry."""
    require("torch", extra="train")
    from edgeseg.models import MODELS

    return [
        {"name": name, "parameters": spec.num_params, "paper": spec.paper, "about": spec.about, "compared_with": spec.compared_with}
        for name, spec in MODELS.items()
    ]


def targets() -> list[dict[str, Any]]:
    """One object a board: what it runs, and whether this machine is one."""
    from targets.boards import TARGETS
    from targets.machine import describe_machine

    machine = describe_machine()
    return [
        {
            "name": target.name,
            "formats": list(target.formats),
            "precisions": list(target.precisions),
            "threads": target.num_threads or "all",
            "this machine": target.detect(machine),
            "about": target.about,
        }
        for target in TARGETS.values()
    ]


def doctor() -> list[dict[str, Any]]:
    """One object a finding about this machine."""
    from targets.doctor import examine

    rows: list[dict[str, Any]] = examine().to_json()
    return rows


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print objects as a table on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=False)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table, markup=False, highlight=False)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
