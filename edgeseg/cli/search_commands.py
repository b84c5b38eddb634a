"""`edgeseg search`: the network, size, pruning and precision that a device can afford."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeseg.cli.console import Console, print_json
from edgeseg.cli.options import DEFAULT_CONFIG, ConfigArg, JsonOpt, SetOpt


def search(
    config: ConfigArg = DEFAULT_CONFIG,
    set_: SetOpt = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, metavar="N", help="points to try, earlier calls counted; default: [search] trials")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, metavar="N", help="processes on this machine")] = 1,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, metavar="S", help="begin no trial after so many seconds")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="forget what was tried; finished trainings are kept")] = False,
    json: JsonOpt = False,
) -> None:
    """Search network, width, size, pruning and precision for the best mIoU within [goals]; write its config. The same command goes on."""
    from edgeseg.workflow.search.command import SearchRequest
    from edgeseg.workflow.search.command import search as run_search

    request = SearchRequest(config, tuple(set_ or ()), trials, workers, timeout, restart)
    console = Console(quiet=json)
    outcome = run_search(request, ui=console)
    console.close()
    if json:
        print_json(outcome.to_json())
    else:
        print("\n".join(outcome.lines))
    if not outcome.passed:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(search)
