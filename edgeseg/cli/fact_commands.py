"""What there is to know: data check, models, targets, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.console import Console, print_json
from edgeseg.cli.options import JsonOpt, LayoutOpt, SetOpt

data_app = typer.Typer(name="data", no_args_is_help=True, help="Look at labelled images.", rich_markup_mode=None)


@data_app.callback()
def _data() -> None:
    pass


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder of labelled images, in any layout")],
    classes: Annotated[str, typer.Option("--classes", metavar="A,B,...", help="class names, or a choice among those the data names")] = "",
    layout: LayoutOpt = "auto",
    sheet: Annotated[Path | None, typer.Option("--sheet", metavar="FILE.png", help="write a sheet of overlays to look at")] = None,
    set_: SetOpt = None,
    json: JsonOpt = False,
) -> None:
    """Name every bad file and why; exit code 65 if there is one."""
    from edgeseg.core.errors import DataError
    from edgeseg.workflow import setup

    console = Console(quiet=json)
    names = tuple(c.strip() for c in classes.split(",") if c.strip())
    report = setup.check_data(folder, names, (f"data.layout={layout}", *(set_ or ())), sheet=sheet, ui=console)
    console.close()
    if json:
        print_json(report.to_json())
    else:
        print("\n".join(setup.data_report_lines(report)))
    if report.problems:
        raise typer.Exit(DataError.exit_code)


def models(json: JsonOpt = False) -> None:
    """List the networks."""
    from edgeseg.workflow import facts

    rows = facts.models()
    if json:
        print_json(rows)
    else:
        print("\n".join(facts.model_lines(rows)))


def targets(json: JsonOpt = False) -> None:
    """List the boards: formats, precisions, threads, and whether this machine is one."""
    from edgeseg.workflow import facts

    rows = facts.targets()
    if json:
        print_json(rows)
    else:
        print("\n".join(facts.target_lines(rows)))


def doctor(json: JsonOpt = False) -> None:
    """Say what this machine is, which runtimes it has, what is missing and the command that installs it."""
    from edgeseg.workflow import facts

    rows = facts.doctor()
    if json:
        print_json(rows)
    else:
        print("\n".join(facts.doctor_lines(rows)))


def register(app: typer.Typer) -> None:
    """Add these commands, in the order `--help` lists them."""
    app.add_typer(data_app)
    for command in (models, targets, doctor):
        app.command()(command)
