"""The boards a person has: devices add, list, check, setup, remove."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.console import Console, print_json
from edgeseg.cli.options import JsonOpt

if TYPE_CHECKING:
    from edgeseg.workflow.bundles import Outcome

devices_app = typer.Typer(name="devices", no_args_is_help=True, help="Boards that are reached over SSH.", rich_markup_mode=None)
DeviceArg = Annotated[str, typer.Argument(metavar="DEVICE", help="a name of `edgeseg devices list`, or ssh://USER@HOST[:PORT]")]
NameArg = Annotated[str, typer.Argument(metavar="NAME", help="what you call the board")]


@devices_app.callback()
def _devices() -> None:
    pass


@devices_app.command("add")
def add(
    name: NameArg,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="ssh://USER@HOST[:PORT]")],
    target: Annotated[str, typer.Option("--target", metavar="TARGET", help="what it is (edgeseg targets)")] = "",
    python: Annotated[
        str, typer.Option("--python", metavar="PATH", help="Python there that has edgeseg; default: what `devices setup` makes")
    ] = "",
    identity: Annotated[
        Path | None, typer.Option("--identity", metavar="FILE", help="private key; default: the agent's and the usual ones")
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Remember a board; nothing is contacted."""
    from edgeseg.workflow import devices

    _show(devices.add(name, address, target=target, python=python, identity=identity), json)


@devices_app.command("list")
def list_(json: JsonOpt = False) -> None:
    """List the boards; nothing is contacted."""
    from edgeseg.workflow import devices

    _show(devices.listed(), json)


@devices_app.command("check")
def check(device: DeviceArg, json: JsonOpt = False) -> None:
    """Say what a board is: Python, edgeseg, runtimes, target, sensors, free disk.

    Exit code 72 = it cannot be used, 75 = somebody uses it, 13 = it is another target than the inventory says.
    """
    from edgeseg.workflow import devices

    console = Console(quiet=json)
    outcome = devices.look_at(device, console)
    console.close()
    _show(outcome, json)
    if outcome.lost is not None:
        raise outcome.lost


@devices_app.command("setup")
def setup(
    device: DeviceArg,
    extra: Annotated[
        list[str] | None,
        typer.Option("--extra", metavar="EXTRA", help="pi | intel | jetson | onnx | pi-legacy, by default as fits it; opencv beside it "
                                                      "(repeatable)"),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="collect all wheels here: for a board without network")] = False,
    python: Annotated[str, typer.Option("--python", metavar="PATH", help="Python there that the environment is made with")] = "python3",
    json: JsonOpt = False,
) -> None:
    """Put this edgeseg on a board, into an environment of its own; one that is there already stays until the new one works."""
    from edgeseg.workflow import devices

    console = Console(quiet=json)
    outcome = devices.prepare(device, extras=tuple(extra or ()), offline=offline, python=python, ui=console)
    console.close()
    _show(outcome, json)


@devices_app.command("remove")
def remove(name: NameArg, json: JsonOpt = False) -> None:
    """Forget a board; what is on it stays there."""
    from edgeseg.workflow import devices

    _show(devices.remove(name), json)


def _show(outcome: Outcome, json: bool) -> None:
    if json:
        print_json(outcome.to_json())
    else:
        print("\n".join(outcome.lines))


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(devices_app)
