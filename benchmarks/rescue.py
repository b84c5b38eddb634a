"""What default post-training quantization of each tool loses on a run's fp32 bundles, and what share of it the ladder wins back.

    python -m benchmarks.rescue runs/driving [--frames 0] [--miou-drop 0.005] [--class-drop 0.015] [--json FILE]

For each format, on as many training frames as the run calibrates with, spread evenly: the tool with its defaults (`nncf.quantize`,
onnxruntime's `quantize_static`, ai-edge-quantizer's `static_wi8_ai8`), the same with class layers and decision head left float, and the
ladder's rungs that need no training, climbed here to the limits given. All are measured on the evaluation split, which none of them has
seen. If the run was made with `[quantize] rescue = "qat"`, its own int8 bundle is a row as well. The goal: of more than a point lost, 80
% won back (aim 95).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.int8_accuracy import Run, facts, losses, measure, open_finished
from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import EdgesegError, vendor_errors
from edgeseg.core.files import write_json
from edgeseg.core.images import Frame, read_frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME
from edgeseg.core.vendors import quiet
from edgeseg.data.store import read_sample
from edgeseg.workflow.bundle.pictures import at_model_size
from edgeseg.workflow.compress.climbing import Climb, climb
from edgeseg.workflow.compress.judging import Limits, hold_back, judge_by_labels
from quantization import QUANTIZERS, choose_calibration
from quantization.ladder import as_bundle

Names = Sequence[str]


class Reader:
    """Frames as onnxruntime's CalibrationDataReader wants them."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._inputs = iter({INPUT_NAME: frame[None]} for frame in frames)

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs, `None` after the last."""
        return next(self._inputs, None)


def default_onnx(bundle: Bundle, frames: Sequence[Frame], floats: Names, output: Path) -> str:
    """`quantize_static` with its defaults."""
    quantization = require("onnxruntime.quantization", extra="export")

    quantization.quantize_static(str(bundle.model_path), str(output / "model.onnx"), Reader(frames), nodes_to_exclude=list(floats))
    return "model.onnx"


def default_openvino(bundle: Bundle, frames: Sequence[Frame], floats: Names, output: Path) -> str:
    """`nncf.quantize` with its defaults."""
    ov, nncf = require("openvino", extra="export"), require("nncf", extra="export")
    scope = nncf.IgnoredScope(names=list(floats)) if floats else None
    model = nncf.quantize(ov.Core().read_model(bundle.model_path), nncf.Dataset([frame[None] for frame in frames]), ignored_scope=scope)
    ov.save_model(model, output / "model.xml", compress_to_fp16=False)
    return "model.xml"


def default_tflite(bundle: Bundle, frames: Sequence[Frame], floats: Names, output: Path) -> str:
    """ai-edge-quantizer with its recipe for static int8."""
    module = require("ai_edge_quantizer.quantizer", extra="export")
    recipe = require("ai_edge_quantizer.recipe", extra="export")
    qtyping = require("ai_edge_quantizer.qtyping", extra="export")
    algorithm = require("ai_edge_quantizer.algorithm_manager", extra="export").AlgorithmName
    quantizer = module.Quantizer(str(bundle.model_path))
    quantizer.load_quantization_recipe(recipe.static_wi8_ai8())
    for scope in floats:
        quantizer.update_quantization_recipe(scope, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=algorithm.NO_QUANTIZE)
    ranges = quantizer.calibrate({"serving_default": [{INPUT_NAME: frame[None]} for frame in frames]}, num_threads=1)
    quantizer.quantize(ranges).export_model(str(output / "model.tflite"), overwrite=True)
    return "model.tflite"


DEFAULTS: Final[dict[str, Callable[[Bundle, Sequence[Frame], Names, Path], str]]] = {
    "onnx": default_onnx, "openvino": default_openvino, "tflite": default_tflite,
}


def compare(run: Run, format_: str, limits: Limits) -> list[dict[str, Any]]:
    """All ways for one format: a row each, the tool's defaults first."""
    parent = run.bundle(format_, "fp32")
    if parent is None:
        return []
    manifest, train = parent.manifest, run.dataset.splits["train"]
    ids = [sample.id for sample in train]
    chosen = choose_calibration(ids, run.config.quantize.calibration_frames, seed=run.config.train.seed)
    calibrate, held_back = hold_back(ids, chosen)
    frames = [part for i in calibrate for part in at_model_size(read_frame(train[i].image), manifest.contract)]
    items = (read_sample(train[i], num_classes=len(manifest.classes)) for i in held_back)
    judge = judge_by_labels(parent, items, limits)
    before = measure(parent, run.labelled)
    rows: list[dict[str, Any]] = []

    def row(way: str, bundle: Bundle, **more: Any) -> None:  # noqa: ANN401
        found = {"run": run.config.name, "format": format_, "way": way, "miou_float": round(before.miou, 5), **more}
        try:
            found |= losses(before, measure(bundle, run.labelled), manifest.classes)
        except EdgesegError as error:
            found["why_not"] = str(error)
        rows.append(found)

    with tempfile.TemporaryDirectory() as folder:
        kept, work, plain = Path(folder) / "kept", Path(folder) / "work", Path(folder) / "plain"
        for path in (kept, work, plain):
            path.mkdir()
        first = QUANTIZERS[format_].prepare(parent, frames[:1]).write(QUANTIZERS[format_].offers[0], plain)
        floats: list[str] = list(first.scheme["float_ops"])  # type: ignore[call-overload]
        for way, names in (("the tool's defaults", ()), ("its defaults, class layers and head float", tuple(floats))):
            output = Path(folder) / f"default-{len(names)}"
            output.mkdir()
            with vendor_errors(format_), quiet():
                entry = DEFAULTS[format_](parent, frames, names, output)
            row(way, Bundle(output, replace(manifest, entry=entry, precision="int8", files=(), golden=())))
        climbed = climb(Climb(parent=parent, frames=frames, judge=judge, limits=limits, last="mixed", work=work), kept)
        last = next(rung for rung in climbed.rungs if rung["kept"])
        row("the ladder without training", as_bundle(parent, climbed.model), rung=last["rung"], best=last["best"],
            float_macs_share=last["float_macs_share"], reached_on_held_back=climbed.reached)
    own = run.bundle(format_, "int8") or run.bundle(format_, "mixed")
    if own is not None and run.config.quantize.rescue == "qat":
        ladder = own.manifest.scheme.get("ladder", {})
        kept_rung: dict[str, Any] = next((rung for rung in ladder.get("rungs", []) if rung["kept"]), {})
        row("the run's own bundle", own, rung=kept_rung.get("rung"), best=kept_rung.get("best"))
    for found in rows[2:]:
        for name, default in (("won_back", rows[0]), ("won_back_of_head_float", rows[1])):
            if "miou_drop" in found and default.get("miou_drop", 0) > 0:
                found[name] = round(1 - max(found["miou_drop"], 0.0) / default["miou_drop"], 4)
    return rows


def main() -> None:
    """Compare, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--formats", default="onnx,openvino,tflite")
    parser.add_argument("--frames", type=int, default=0)
    parser.add_argument("--miou-drop", type=float, default=0.005)
    parser.add_argument("--class-drop", type=float, default=0.015)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    runs, rows = [open_finished(folder, frames=args.frames) for folder in args.runs], list[dict[str, Any]]()
    for run in runs:
        for format_ in args.formats.split(","):
            for found in compare(run, format_, Limits(miou_drop=args.miou_drop, class_drop=args.class_drop)):
                rows.append(found)
                print(_words(found), flush=True)
    if args.json:
        write_json(args.json, {**facts(runs), "limits": {"miou_drop": args.miou_drop, "class_drop": args.class_drop}, "rows": rows})


def _words(row: dict[str, Any]) -> str:
    text = f"{row['run']:<12}{row['format']:<10}{row['way']:<44}"
    if "miou_drop" not in row:
        return text + f"not measured: {row['why_not']}"
    text += f"mIoU {row['miou']:.4f}  lost {100 * row['miou_drop']:+6.2f}  {row['worst_class']} {100 * row['worst_class_drop']:+.2f}"
    if row.get("won_back") is not None:
        text += f"  won back {row['won_back']:.0%} ({row.get('won_back_of_head_float', 0):.0%} of the second)"
    return text + (f"  [{row['rung']}: {row['best']}]" if row.get("rung") else "")


if __name__ == "__main__":
    main()
