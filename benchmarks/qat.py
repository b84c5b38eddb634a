"""Int8 of one run in every format: each tool's own defaults, our default plan, and after fine-tuning for int8; beside float.

    python -m benchmarks.qat edgeseg.toml [--set quantize.qat_epochs=10 ...] [--formats onnx openvino tflite] [--json result.json]

The run is trained first where it is not yet (`edgeseg train`); what is done already is found. Scores are taken on the eval split, in the
real runtimes. The tools' defaults are those of `onnxruntime.quantization.quantize_static`, `nncf.quantize` and ai-edge-quantizer's
`static_wi8_ai8`, given the same calibration frames and nothing else: no layer is named that should stay float.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from edgeseg.cli.console import Console
from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.files import write_json
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME
from edgeseg.core.metrics import score
from edgeseg.core.vendors import quiet, versions
from edgeseg.workflow.bundle import bundling
from edgeseg.workflow.compress import pruning
from edgeseg.workflow.compress.qat import quantization_aware
from edgeseg.workflow.compress.rescue import choose_frames
from edgeseg.workflow.context import RunContext, open_run
from edgeseg.workflow.learn import learning
from edgeseg.workflow.learn.reference import evaluate_float, model_inputs
from quantization import QUANTIZERS, Int8Plan
from quantization.carry import carry, load_ranges
from quantization.ladder import as_bundle


def onnx_default(bundle: Bundle, frames: Sequence[Frame], path: Path) -> str:
    """`quantize_static` with a data reader and nothing else."""
    ort = require("onnxruntime.quantization", extra="export")

    class Reader:
        """Gives the inputs one by one, then None."""

        inputs = iter([{INPUT_NAME: frame[None]} for frame in frames])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.inputs, None)

        def __iter__(self) -> Iterator[dict[str, Any]]:
            return self.inputs

    ort.quantize_static(str(bundle.model_path), str(path / "model.onnx"), Reader())
    return "model.onnx"


def openvino_default(bundle: Bundle, frames: Sequence[Frame], path: Path) -> str:
    """`nncf.quantize` with a data set and nothing else."""
    ov, nncf = require("openvino", extra="export"), require("nncf", extra="export")
    model = nncf.quantize(ov.Core().read_model(bundle.model_path), nncf.Dataset([frame[None] for frame in frames]))
    ov.save_model(model, path / "model.xml")
    return "model.xml"


def tflite_default(bundle: Bundle, frames: Sequence[Frame], path: Path) -> str:
    """The recipe `static_wi8_ai8` on the whole model."""
    quantizer = require("ai_edge_quantizer.quantizer", extra="export").Quantizer(str(bundle.model_path))
    quantizer.load_quantization_recipe(require("ai_edge_quantizer.recipe", extra="export").static_wi8_ai8())
    ranges = quantizer.calibrate({"serving_default": [{INPUT_NAME: frame[None]} for frame in frames]})
    quantizer.quantize(ranges).export_model(str(path / "model.tflite"))
    return "model.tflite"


DEFAULTS: Final[dict[str, Callable[[Bundle, Sequence[Frame], Path], str]]] = {
    "onnx": onnx_default, "openvino": openvino_default, "tflite": tflite_default,
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--formats", nargs="+", default=list(DEFAULTS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with open_run(given.config, tuple(given.set), ui=Console()) as ctx, tempfile.TemporaryDirectory() as folder:
        result = measure(ctx, given.formats, Path(folder))
    print_table(result)
    if given.json is not None:
        write_json(given.json, result)


def measure(ctx: RunContext, formats: Sequence[str], work: Path) -> dict[str, Any]:
    """Score every way of every format."""
    data = learning.prepare_data(ctx)
    final = pruning.prune(ctx, data, learning.train(ctx, data))
    reference = evaluate_float(ctx, data, final, learning.decide(ctx, data, final))
    tuned = quantization_aware(ctx, data, final)
    store, chosen = data.store(data.eval_split), choose_frames(ctx, data)
    frames = model_inputs(data, "train", reference.contract, list(chosen.calibrate))

    def miou(bundle: Bundle) -> dict[str, Any]:
        from edgeseg.training.evaluate import evaluate

        _, answer = bundling.own_answer(bundle)
        result = score(evaluate(answer, store, reference.contract, len(data.dataset.classes)).sum(axis=0))  # type: ignore[arg-type]
        return {"miou": result.miou, "iou": list(result.iou)}

    found = reference.reference
    rows: list[dict[str, Any]] = [{"format": "torch", "way": "float", "miou": found.miou, "iou": list(found.iou)}]
    parents = {sealed.bundle.manifest.format: sealed.bundle for sealed in bundling.export_all(ctx, data, final, reference)}
    for format_ in [name for name in parents if name in formats]:
        parent = parents[format_]
        folders = {way: work / f"{format_}-{way}" for way in ("tool", "ours", "tuned-float", "tuned")}
        for folder in folders.values():
            folder.mkdir()
        with quiet():
            entry = DEFAULTS[format_](parent, frames, folders["tool"])
            tool = ModelFiles(folder=folders["tool"], files=(entry,), entry=entry, format=format_, precision="int8", scheme={}, tools={})
            ours = QUANTIZERS[format_](parent, frames, folders["ours"])
            model = bundling.export_model(tuned.output, reference.contract, format_, folders["tuned-float"])
            float_tuned = as_bundle(parent, model)
            carried = carry(load_ranges(tuned.output), float_tuned)
            learnt = QUANTIZERS[format_](float_tuned, frames, folders["tuned"], plan=Int8Plan(ranges=carried.ranges))
        ways = {"the tool's defaults": as_bundle(parent, tool), "default plan": as_bundle(parent, ours),
                "fine-tuned, in float": float_tuned, "fine-tuned, learnt ranges": as_bundle(parent, learnt)}
        for way, bundle in ways.items():
            rows.append({"format": format_, "way": way, **miou(bundle)})
            print(format_, way, f"{rows[-1]['miou']:.4f}", flush=True)
        rows[-1]["carried"] = carried.facts()
    return {
        "command": " ".join(["python -m benchmarks.qat", *sys.argv[1:]]), "seed": ctx.config.train.seed, "network": ctx.config.model.title,
        "dataset": data.dataset.name, "dataset_sha256": data.dataset.sha256, "split": data.eval_split, "num_frames": len(store),
        "qat_epochs": ctx.config.quantize.qat_epochs, "qat_lr": ctx.config.quantize.qat_lr, "calibration": dict(chosen.facts), "rows": rows,
        "tools": versions("torch", "onnxruntime", "openvino", "nncf", "ai-edge-quantizer", "ai-edge-litert"),
        "python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count(),
    }


def print_table(result: dict[str, Any]) -> None:
    """Print each way's mIoU with what it loses against float, and the class that loses most."""
    reference = result["rows"][0]
    for row in result["rows"]:
        lost = [a - b for a, b in zip(reference["iou"], row["iou"], strict=True) if a is not None and b is not None]
        print(f"{row['format']:9} {row['way']:26} {row['miou']:.4f}  {100 * (row['miou'] - reference['miou']):+6.2f}  "
              f"worst class {-100 * max(lost):+6.2f}")


if __name__ == "__main__":
    main()
