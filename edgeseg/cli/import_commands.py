"""`edgeseg import`: a model that was trained elsewhere becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.console import Console, print_json
from edgeseg.cli.options import JsonOpt


def import_(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=".onnx, .xml (OpenVINO), .tflite, a SavedModel folder, .keras or .h5")],
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="folder of the bundle to write")],
    classes: Annotated[str, typer.Option("--classes", metavar="A,B,...", help="class names in index order, or a file of them")] = "",
    input_: Annotated[str, typer.Option("--input", metavar="NAME", help="the model's input; default: the only one")] = "",
    output: Annotated[str, typer.Option("--output", metavar="NAME", help="the output to use; default: the only one")] = "",
    mean: Annotated[str, typer.Option("--mean", metavar="M[,M,M]", help="taken from 0..255, in the model's channel order")] = "",
    scale: Annotated[str, typer.Option("--scale", metavar="S[,S,S]", help="what the difference is divided by")] = "",
    order: Annotated[str, typer.Option("--order", metavar="rgb|bgr|gray", help="channel order of the model; default rgb")] = "",
    layout: Annotated[str, typer.Option("--layout", metavar="NCHW|NHWC", help="where the input's channels are, if it is not clear")] = "",
    output_layout: Annotated[str, typer.Option("--output-layout", metavar="NCHW|NHWC", help="the same for the output")] = "",
    size: Annotated[str, typer.Option("--size", metavar="HxW", help="model size, where the model leaves it open")] = "",
    resize: Annotated[str, typer.Option("--resize", help="how a frame comes to model size: stretch, letterbox or tile")] = "stretch",
    resizer: Annotated[str, typer.Option("--resizer", help="by whose filter: pillow, or opencv as it was trained with")] = "pillow",
    decision: Annotated[
        str, typer.Option("--decision", metavar="argmax|threshold|class-map", help="how a class is chosen; class-map = by the model")
    ] = "",
    threshold: Annotated[float | None, typer.Option("--threshold", help="probability above which a pixel is the second class")] = None,
    scores: Annotated[str, typer.Option("--scores", metavar="logits|probabilities", help="for a threshold, where it cannot be found")] = "",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="CONFIG|DIR", help="labelled data set or images to compare and to measure on")
    ] = None,
    format_: Annotated[str, typer.Option("--format", metavar="FORMAT", help="onnx, openvino or tflite; default: the model's own")] = "",
    min_agreement: Annotated[
        float, typer.Option("--min-agreement", min=0, max=1, help="share of pixels that must be as the original's")
    ] = 0.999,
    force: Annotated[bool, typer.Option("--force", help="replace a bundle that is already there")] = False,
    json: JsonOpt = False,
) -> None:
    """Make a bundle of a model that was trained elsewhere: the contract goes into its graph, and its answers are compared."""
    from edgeseg.workflow.bundle.import_options import request_of
    from edgeseg.workflow.bundle.importing import import_model

    request = request_of(
        model=model, out=out, data=data, classes=classes, input=input_, output=output, mean=mean, scale=scale, order=order, layout=layout,
        output_layout=output_layout, size=size, resize=resize, resizer=resizer, decision=decision, threshold=threshold, scores=scores,
        format=format_, min_agreement=min_agreement, force=force,
    )
    console = Console(quiet=json)
    outcome = import_model(request, ui=console)
    console.close()
    if json:
        print_json(outcome.to_json())
    else:
        print("\n".join(outcome.lines))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_)
