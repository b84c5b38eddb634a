"""How much of its mIoU each int8 bundle of finished runs keeps, in every runtime that reads it.

    python -m benchmarks.retention runs/driving runs/medical [--frames 0] [--json FILE]

A row a run and runtime: mIoU of the fp32 bundle, of the int8 (or mixed) one, the share kept, the worst class. `--frames N` takes N
frames of the evaluation split, evenly spread. The goal: at least 99.5 % kept (aim 99.8), the worst class at most 1.5 points down (aim 0.8).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from benchmarks.int8_accuracy import facts, losses, measure, open_finished
from edgeseg.core.errors import EdgesegError
from edgeseg.core.files import write_json

RUNTIMES: Final = {"onnx": ("onnxruntime",), "openvino": ("openvino",), "tflite": ("litert", "tflite_runtime")}


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    runs = [open_finished(folder, frames=args.frames) for folder in args.runs]
    rows: list[dict[str, Any]] = []
    print(f"{'run':<14}{'runtime':<16}{'made':<8}{'fp32':>8}{'int8':>8}{'kept':>9}  worst class")
    for run in runs:
        for format_, runtimes in RUNTIMES.items():
            parent = run.bundle(format_, "fp32")
            made = run.bundle(format_, "int8") or run.bundle(format_, "mixed")
            if parent is None or made is None:
                continue
            for runtime in runtimes:
                try:
                    before, after = (measure(bundle, run.labelled, runtime=runtime) for bundle in (parent, made))
                except EdgesegError as error:  # a runtime that is not installed here
                    print(f"{run.config.name:<14}{runtime:<16}not measured: {error}")
                    continue
                lost = losses(before, after, made.manifest.classes)
                rows.append({"run": run.config.name, "format": format_, "runtime": runtime, "precision": made.manifest.precision,
                             "miou_float": round(before.miou, 5), "size_bytes": made.size_bytes, **lost})
                print(f"{run.config.name:<14}{runtime:<16}{made.manifest.precision:<8}{before.miou:8.4f}{after.miou:8.4f}"
                      f"{lost['retention']:9.2%}  {lost['worst_class']} {100 * lost['worst_class_drop']:+.2f}", flush=True)
    if rows:
        least, worst = min(row["retention"] for row in rows), max(row["worst_class_drop"] for row in rows)
        print(f"least kept {least:.2%}; worst class {100 * worst:+.2f}")
    if args.json:
        write_json(args.json, {**facts(runs), "rows": rows})


if __name__ == "__main__":
    main()
