"""What there is to know: data check, models, targets, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.console import Console, print_json
from edgeseg.cli.options import DataSetOpt, JsonOpt, LayoutOpt

data_app = typer.Typer(name="data", no_args_is_help=True, help="Look at labelled images, or fetch public ones.", rich_markup_mode=None)


@data_app.callback()
def _data() -> None:
    pass


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder of labelled images, in any layout")],
    classes: Annotated[str, typer.Option("--classes", metavar="A,B,...", help="class names, or a choice among those the data names")] = "",
    layout: LayoutOpt = "auto",
    sheet: Annotated[Path | None, typer.Option("--sheet", metavar="FILE.png", help="write a sheet of overlays to look at")] = None,
    set_: DataSetOpt = None,
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


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="camvid, cwfid, isbi2012, nuclei or coco-sample")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="folder to make; default: NAME")] = None,
    accept_license: Annotated[bool, typer.Option("--accept-license", help="you have read the terms and accept them")] = False,
    json: JsonOpt = False,
) -> None:
    """Download a public data set, check it, and leave it in a layout edgeseg reads; interrupted, it goes on."""
    from edgeseg.workflow import setup

    console = Console(quiet=json)
    found = setup.get_data(name, out or Path(name), accept_license=accept_license, ui=console)
    console.close()
    if json:
        print_json(found)
    else:
        print(f"{found['folder']}: {found['title']}; type: edgeseg init --data {found['folder']}")


def models(
    check: Annotated[bool, typer.Option("--check", help="export, quantize and measure every network in every format")] = False,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME[:ENCODER]", help="with --check: only this one (repeatable)")
    ] = None,
    size: Annotated[tuple[int, int], typer.Option("--size", metavar="H W", help="with --check: model size")] = (128, 192),
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, metavar="S", help="with --check: limit for one network in one format")
    ] = 900.0,
    json: JsonOpt = False,
) -> None:
    """List the networks, or check all of them; exit code 1 if one does not work."""
    if check:
        _check_models(tuple(model or ()), size, timeout, json)
        return
    from edgeseg.workflow import facts

    rows = facts.models()
    if json:
        print_json(rows)
    else:
        print("\n".join(facts.model_lines(rows)))


def _check_models(names: tuple[str, ...], size_hw: tuple[int, int], timeout_s: float, json: bool) -> None:
    from edgeseg.workflow import zoo

    console = Console(quiet=json)
    report = zoo.check(names, size_hw=size_hw, timeout_s=timeout_s, ui=console)
    console.close()
    if json:
        print_json(report.to_json())
    else:
        zoo.show(report)
    if not report.passed:
        raise typer.Exit(1)


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
