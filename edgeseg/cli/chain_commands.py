"""The chain: demo, init, run and its single steps, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.console import Console, print_json
from edgeseg.cli.options import DEFAULT_CONFIG, ConfigArg, DataOpt, JsonOpt, LayoutOpt, SetOpt
from edgeseg.core.errors import goals_exit_code

if TYPE_CHECKING:
    from edgeseg.workflow.chain import StepSummary

InitSetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="change one value of [data] or [model], e.g. model.name=mask_rcnn"),
]
RestartOpt = Annotated[bool, typer.Option("--restart", help="drop a training that was interrupted and begin again")]


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder for data, config and results")] = Path("edgeseg-demo"),
    json: JsonOpt = False,
) -> None:
    """Run the whole chain on synthetic data: data, train, prune, quantize, export, verify, measure, report."""
    from edgeseg.workflow.demo import write_demo

    config = write_demo(out, ui=Console(quiet=json))
    run(config, None, json)


def init(
    data: DataOpt = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="config file to write")] = DEFAULT_CONFIG,
    all_keys: Annotated[bool, typer.Option("--all", help="write every key with its default; without --data, print them")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an existing config file")] = False,
    layout: LayoutOpt = "auto",
    set_: InitSetOpt = None,
    json: JsonOpt = False,
) -> None:
    """Look at a folder of labelled images, say what is there, write edgeseg.toml."""
    from edgeseg.core.errors import DataError
    from edgeseg.workflow import setup

    if data is None:
        if not all_keys:
            raise typer.BadParameter("give --data DIR, or --all to print every key with its default.")
        print(setup.all_defaults(), end="")
        return
    overrides = (f"data.layout={layout}", *(set_ or ()))
    found = setup.init(data, out, every_key=all_keys, force=force, overrides=overrides)
    if json:
        print_json(found.to_json())
    else:
        print("\n".join(found.lines))
    if not found.ok:
        raise typer.Exit(DataError.exit_code)


def run(
    config: ConfigArg = DEFAULT_CONFIG,
    set_: SetOpt = None,
    ladder: Annotated[bool, typer.Option("--ladder", help="compare every bundle with torch rung by rung; exit 1: one fell off")] = False,
    json: JsonOpt = False,
) -> None:
    """Run the whole chain: cached step by step, resumable, exit code 1 if a goal is missed, 3 if one is not decided."""
    from edgeseg.workflow import chain

    console = Console(quiet=json)
    summary = chain.run(config, tuple(set_ or ()), ladder=ladder, ui=console)
    console.close()
    _show(summary.folder, json)
    code = goals_exit_code(passed=summary.passed, undecided=summary.undecided)
    if code:
        raise typer.Exit(code)


def _step(verb: str, config: Path, overrides: Sequence[str] | None, json: bool, **options: bool) -> None:
    from edgeseg.workflow import chain

    console = Console(quiet=json)
    made = chain.step(verb, config, tuple(overrides or ()), ui=console, **options)
    console.close()
    _say(made, json)


def _say(made: StepSummary, json: bool) -> None:
    if json:
        print_json(made.to_json())
    else:
        print("\n".join(made.lines))


def train(
    config: ConfigArg = DEFAULT_CONFIG,
    set_: SetOpt = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a training that was interrupted")] = False,
    restart: RestartOpt = False,
    devices: Annotated[int, typer.Option("--devices", min=1, metavar="N", help="processes on this machine, one a GPU")] = 1,
    max_restarts: Annotated[
        int | None, typer.Option("--max-restarts", min=0, metavar="N", help="of --devices: restarts if a process dies; default 3")
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Train the network of the config; the checkpoint with the best validation score is kept."""
    console, overrides = Console(quiet=json), tuple(set_ or ())
    if devices > 1:
        from edgeseg.workflow.learn.together import launch

        code = launch(
            config, overrides, devices=devices, max_restarts=3 if max_restarts is None else max_restarts,
            resume=resume, restart=restart, json=json, ui=console,
        )
        raise typer.Exit(code)
    if max_restarts is not None:
        raise typer.BadParameter("--max-restarts goes with --devices N, N > 1; one process goes on with --resume.")
    from edgeseg.workflow import chain

    made = chain.train(config, overrides, ui=console, resume=resume, restart=restart)
    console.close()
    if made is not None:
        _say(made, json)


def prune(config: ConfigArg = DEFAULT_CONFIG, set_: SetOpt = None, restart: RestartOpt = False, json: JsonOpt = False) -> None:
    """Cut channels of the trained network to a share of its MACs or to a latency, fine-tune, and measure what it gained."""
    _step("prune", config, set_, json, restart=restart)


def export(config: ConfigArg = DEFAULT_CONFIG, set_: SetOpt = None, json: JsonOpt = False) -> None:
    """Export the network to fp32 bundles and verify each at once against torch."""
    _step("export", config, set_, json)


def quantize(
    source: Annotated[Path, typer.Argument(metavar="[CONFIG|BUNDLE]", help="a run's edgeseg.toml, or one fp32 bundle")] = DEFAULT_CONFIG,
    set_: SetOpt = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="CONFIG|DIR", help="of a BUNDLE: training frames, labelled or not")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="BUNDLE", help="of a BUNDLE: where int8 goes; default BUNDLE-int8")] = None,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="of a BUNDLE: how many frames calibrate; default 128")] = None,
    force: Annotated[bool, typer.Option("--force", help="of a BUNDLE: replace an int8 bundle that is already there")] = False,
    json: JsonOpt = False,
) -> None:
    """Quantize to int8 (the fp32 bundles of a run, or one BUNDLE), calibrated on training frames, with per-class IoU before and after."""
    if not (source / "manifest.json").is_file():
        if data is not None or out is not None or frames is not None or force:
            hint = "" if frames is None else f": --set quantize.calibration_frames={frames}"
            raise typer.BadParameter(
                f"--data, --out, --frames and --force go with a bundle, and {source} is none; a run takes all from its config{hint}."
            )
        _step("quantize", source, set_, json)
        return
    from edgeseg.workflow.compress.quantizing import quantize_bundle

    if set_:
        raise typer.BadParameter("--set changes a run's config; with a bundle use --frames, --data and --out.")
    console = Console(quiet=json)
    outcome = quantize_bundle(source, data=data, out=out, num_frames=128 if frames is None else frames, force=force, ui=console)
    console.close()
    if json:
        print_json(outcome.to_json())
    else:
        print("\n".join(outcome.lines))


def report(
    run_: Annotated[str, typer.Argument(metavar="[RUN]", help="name or folder of a run; default: that of edgeseg.toml")] = "",
    open_: Annotated[bool, typer.Option("--open", help="open the page in a browser")] = False,
    json: JsonOpt = False,
) -> None:
    """Show a run's results: a table here, results.json and report.html in its folder."""
    from edgeseg.workflow.show import showing

    folder = showing.find_run(run_)
    _show(folder, json)
    if open_:
        showing.open_page(folder)


def _show(folder: Path, json: bool) -> None:
    from edgeseg.workflow.show import showing

    if json:
        print_json(showing.read_rows(folder))
    else:
        showing.print_report(folder)


def register(app: typer.Typer) -> None:
    """Add these commands, in the order `--help` lists them."""
    for command in (demo, init, run, train, prune, export, quantize, report):
        app.command()(command)
