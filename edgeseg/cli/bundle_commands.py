"""What is done with one bundle: verify, bench, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.console import Console, print_json
from edgeseg.cli.options import ArithmeticOpt, BundleArg, DataOpt, DeviceOpt, JsonOpt, QuickOpt, TargetOpt, ThreadsOpt, UntunedOpt
from edgeseg.cli.stopping import asked_to_stop
from edgeseg.core.errors import goals_exit_code


def verify(
    bundle: BundleArg,
    data: DataOpt = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="CONFIG", help="take data and [goals] from this edgeseg.toml")] = None,
    target: TargetOpt = "",
    device: DeviceOpt = "",
    split: Annotated[
        str, typer.Option("--split", metavar="SPLIT", help="train, val, test or all; default: the one the float checkpoint was measured on")
    ] = "",
    arithmetic: ArithmeticOpt = "",
    ladder: Annotated[
        bool,
        typer.Option("--ladder", help="compare torch, onnx, fp32, this bundle and --device rung by rung; BUNDLE may be a run's folder"),
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="DIR", help="with --ladder: the checkpoint it was made from, if not in its run")
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Check a bundle: its bytes, its golden frames, and with --data or --config its mIoU and goals; exit 1: one missed, 3: undecided."""
    from edgeseg.workflow import bundles
    from edgeseg.workflow.parity.ladder import verify_ladder

    console = Console(quiet=json)
    if ladder:
        outcome = verify_ladder(
            bundle, data=data, config=config, checkpoint=checkpoint, target=target, split=split, arithmetic=arithmetic, device=device,
            ui=console,
        )
    else:
        bundles.refuse_without_ladder(bundle, checkpoint)
        outcome = bundles.verify(
            bundle, data=data, config=config, target=target, split=split, arithmetic=arithmetic, device=device, ui=console
        )
    console.close()
    if json:
        print_json(outcome.to_json())
    else:
        print("\n".join(outcome.lines))
    code = goals_exit_code(passed=outcome.passed, undecided=outcome.undecided)
    if code:
        raise typer.Exit(code)


def bench(
    bundle: BundleArg,
    target: TargetOpt = "",
    device: DeviceOpt = "",
    quick: QuickOpt = False,
    threads: ThreadsOpt = 0,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="measure on these images; default: the bundle's golden frames")
    ] = None,
    arithmetic: ArithmeticOpt = "",
    untuned: UntunedOpt = False,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", metavar="N", help="measure at least this long, and 1024 frames: does the machine hold its speed?"),
    ] = None,
    power_command: Annotated[
        str, typer.Option("--power-command", metavar="COMMAND", help="a meter: a command that prints watts, one number a line")
    ] = "",
    offline: Annotated[bool, typer.Option("--offline", help="also throughput: as many frames at once as there are streams")] = False,
    streams: Annotated[int, typer.Option("--streams", min=0, help="with --offline: frames at once; 0 = the tuned ones, else 1")] = 0,
    fps: Annotated[float | None, typer.Option("--fps", metavar="RATE", help="also: is this rate held? exit 1 where it is not")] = None,
    cold: Annotated[bool, typer.Option("--cold", help="also starts from nothing, with caches and without")] = False,
    vs: Annotated[Path | None, typer.Option("--vs", metavar="BUNDLE", help="compare with this one, in turns; exit 3: no verdict")] = None,
    vs_arithmetic: Annotated[str, typer.Option("--vs-arithmetic", metavar="BITS", help="compare with the same in f32, bf16 or f16")] = "",
    vs_threads: Annotated[int, typer.Option("--vs-threads", min=0, metavar="N", help="compare with the same on N threads")] = 0,
    json: JsonOpt = False,
) -> None:
    """Measure a bundle on this machine or on a device: latency percentiles by part, start, memory, power; or two against each other."""
    from edgeseg.workflow.measure import benching

    scenarios = benching.Scenarios(offline=offline, streams=streams, fps=fps, cold=cold)
    request = benching.BenchRequest(
        folder=bundle, target=target, device=device, quick=quick, minutes=minutes, threads=threads, arithmetic=arithmetic,
        untuned=untuned, data=data, meter=power_command, scenarios=scenarios,
    )
    against = benching.Against(folder=vs, arithmetic=vs_arithmetic, threads=vs_threads)
    console = Console(quiet=json)
    outcome = benching.versus(request, against, console) if against.asked else benching.bench(request, console)
    console.close()
    if json:
        print_json(outcome.to_json())
    else:
        print("\n".join(outcome.lines))
    if outcome.lost is not None:
        raise outcome.lost
    code = goals_exit_code(passed=outcome.passed, undecided=outcome.undecided)
    if code:
        raise typer.Exit(code)


def predict(
    bundle: BundleArg,
    source: Annotated[str, typer.Argument(
        metavar="SOURCE", help="an image, a folder of images, a video, a camera (camera:0, /dev/video0) or a stream (rtsp://...)"
    )],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder for masks and overlays")],
    target: TargetOpt = "host",
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", help="write the picture with the mask drawn over it")] = True,
    min_score: Annotated[
        float | None, typer.Option("--min-score", min=0, max=1, help="instances: leave out objects below this; default 0.5")
    ] = None,
    drop: Annotated[
        str, typer.Option("--drop", metavar="POLICY", help="cameras and streams: never | oldest | newest frame goes; default oldest")
    ] = "",
    frames: Annotated[int | None, typer.Option("--frames", min=1, metavar="N", help="stop after N frames")] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="S", help="cameras and streams: seconds without a frame until it has ended")
    ] = 10.0,
    fast_jpeg: Annotated[
        bool, typer.Option("--fast-jpeg", help="decode JPEG at reduced scale where that is enough; a few pixels are answered otherwise")
    ] = False,
    arithmetic: ArithmeticOpt = "",
    untuned: UntunedOpt = False,
    force: Annotated[bool, typer.Option("--force", help="replace files that are already there")] = False,
    json: JsonOpt = False,
) -> None:
    """Run a bundle on images, a video, a camera or a stream; write class maps (PNG at frame size) or objects (and JSON), and overlays."""
    from edgeseg.workflow import bundles

    console = Console(quiet=json)
    with asked_to_stop() as stopping:
        outcome = bundles.predict(
            bundle, source, out, target=target, overlay=overlay, force=force, min_score=min_score, arithmetic=arithmetic, untuned=untuned,
            drop=drop, max_frames=frames, timeout_s=timeout, fast_jpeg=fast_jpeg, asked_to_stop=stopping, ui=console,
        )
    console.close()
    if json:
        print_json(outcome.to_json())
    else:
        print("\n".join(outcome.lines))
    if outcome.lost is not None:
        raise outcome.lost
    if stopping.number and not outcome.facts["live"]:  # a live source has no other end
        raise typer.Exit(128 + stopping.number)


def register(app: typer.Typer) -> None:
    """Add these commands, in the order `--help` lists them."""
    for command in (verify, bench, predict):
        app.command()(command)
