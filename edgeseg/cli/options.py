"""The options that several commands share, so that the same word means the same thing everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigArg = Annotated[Path, typer.Argument(metavar="[CONFIG]", help="the edgeseg.toml to use", show_default=True)]
SetOpt = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change one value of the config, e.g. train.epochs=50")
]
DataSetOpt = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change one value of [data], e.g. data.resize=letterbox")
]
LayoutOpt = Annotated[
    str, typer.Option("--layout", metavar="LAYOUT", help="folder | voc | coco | cityscapes; auto = recognise it")
]
JsonOpt = Annotated[bool, typer.Option("--json", help="print the result as JSON on stdout")]
BundleArg = Annotated[Path, typer.Argument(metavar="BUNDLE", help="a bundle folder (it holds manifest.json)")]
DataOpt = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="labelled images, in any layout (docs/data.md)")]
TargetOpt = Annotated[
    str, typer.Option("--target", metavar="TARGET", help="the board whose settings are used (edgeseg targets); default: host")
]
DeviceOpt = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="where: a name of `edgeseg devices list`, or ssh://USER@HOST; default: here")
]
QuickOpt = Annotated[bool, typer.Option("--quick", help="measure briefly; the result is stamped 'quick'")]
ThreadsOpt = Annotated[int, typer.Option("--threads", min=0, help="threads of the runtime; 0 = what the target has")]
ArithmeticOpt = Annotated[
    str,
    typer.Option("--arithmetic", metavar="BITS", help="what float parts are computed in: f32 | bf16 | f16; default: f32 where it is there"),
]
UntunedOpt = Annotated[bool, typer.Option("--untuned", help="leave out the settings that `edgeseg tune` found")]
DEFAULT_CONFIG = Path("edgeseg.toml")
