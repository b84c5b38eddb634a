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


def model_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The networks for a terminal of any width: nothing is cut, so everything can be copied."""
    return [
        line
        for row in rows
        for line in (
            f"{row['name']}: {row['parameters']:,} parameters, {row['paper']}",
            f"    {row['about']}",
            f"    compared with {row['compared_with']}",
        )
    ]


def target_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The boards, likewise."""
    return [
        line
        for row in rows
        for line in (
            f"{row['name']}{' (this machine)' if row['this machine'] else ''}: {row['about']}",
            f"    runs {', '.join(row['formats'])} in {', '.join(row['precisions'])}; {row['threads']} threads",
        )
    ]


def doctor_lines(rows: list[dict[str, Any]]) -> list[str]:
    """What was found, likewise, with the command to type below what is missing or a trap."""
    lines = []
    for row in rows:
        lines.append(f"{row['status']:<8}{row['what']}{' ' + row['version'] if row['version'] else ''}: {row['detail']}")
        if row["fix"]:
            lines.append(f"        type: {row['fix']}")
    return lines
