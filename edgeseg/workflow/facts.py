"""What there is to know: the networks, the boards, this machine."""

from __future__ import annotations

from typing import Any

from edgeseg.core.lazy import require


def models() -> list[dict[str, Any]]:
    """One object a network of the registry, then one an encoder."""
    require("torch", extra="train")
    from edgeseg.core.encoders import DEFAULT_ENCODERS, PACKAGES
    from edgeseg.models import ENCODERS, MODELS

    networks: list[dict[str, Any]] = [
        {
            "kind": "network",
            "name": name,
            "parameters": spec.num_params,
            "paper": spec.paper,
            "about": spec.about,
            "compared_with": spec.compared_with,
            "task": spec.task,
            "encoder": DEFAULT_ENCODERS.get(name, ""),
            "encoders": list(spec.encoders),
        }
        for name, spec in MODELS.items()
    ]
    encoders: list[dict[str, Any]] = [
        {
            "kind": "encoder",
            "name": name,
            "parameters": spec.num_params,
            "paper": spec.paper,
            "about": f"{', '.join(map(str, spec.channels))} channels at strides {', '.join(map(str, spec.strides))}",
            "compared_with": f"{spec.reference_params:,} in {spec.reference}, {spec.left_out_params:,} of them only its classifier's",
            "weights": PACKAGES.get(name, ""),
            "smallest_side": spec.smallest_side,
        }
        for name, spec in ENCODERS.items()
    ]
    return networks + encoders


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
    """The networks and encoders for a terminal of any width: nothing is cut, so everything can be copied."""
    every = [row["name"] for row in rows if row["kind"] == "encoder"]
    lines = []
    for kind, title in (("network", "Networks ([model] name)"), ("encoder", "Encoders ([model] encoder)")):
        lines.append(title)
        for row in rows:
            if row["kind"] == kind:
                lines.append(f"{row['name']}: {row['parameters']:,} parameters, {row['paper']}")
                lines += [f"    {row['about']}", f"    compared with {row['compared_with']}", *_about_encoders(row, every)]
    return lines


def _about_encoders(row: dict[str, Any], every: list[str]) -> list[str]:
    if row["kind"] == "encoder":
        weights = "encoder_weights = \"imagenet\" or a file" if row["weights"] else "encoder_weights = a file with torchvision's key names"
        smallest = f"; frames of at least {row['smallest_side']} pixels a side" if row["smallest_side"] > 1 else ""
        return [f"    {weights}{smallest}"]
    if not row["encoders"]:
        return []
    own = f"; {row['encoder']} where none is named" if row["encoder"] else "; its own where none is named"
    return [f"    encoder: {'any below' if row['encoders'] == every else ', '.join(row['encoders'])}{own}"]


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
