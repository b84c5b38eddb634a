"""`edgeseg tune`: the fastest settings of a bundle on a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.console import Console, print_json
from edgeseg.cli.options import BundleArg, DeviceOpt, JsonOpt, QuickOpt, TargetOpt


def tune(
    bundle: BundleArg,
    target: TargetOpt = "",
    device: DeviceOpt = "",
    purpose: Annotated[
        str, typer.Option("--for", metavar="PURPOSE", help="latency: p90 of a call | throughput: frames a second")
    ] = "latency",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="measure on these images; default: the bundle's golden frames")
    ] = None,
    quick: QuickOpt = False,
    allow_arithmetic: Annotated[
        bool, typer.Option("--allow-arithmetic", help="take settings that change answers by more than the golden limit, too")
    ] = False,
    json: JsonOpt = False,
) -> None:
    """Find the fastest settings of a bundle on a board by measuring; bench and predict then use them."""
    from edgeseg.workflow.measure import tuning

    console = Console(quiet=json)
    outcome = tuning.tune(
        bundle, target=target, device=device, purpose=purpose, data=data, quick=quick, allow_arithmetic=allow_arithmetic, ui=console
    )
    console.close()
    if json:
        print_json(outcome.to_json())
    else:
        print("\n".join(outcome.lines))


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(tune)
