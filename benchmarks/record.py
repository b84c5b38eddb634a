"""Write down what a run reached, small enough to commit: seed, versions, command, accuracy, and each bundle's row.

    python -m benchmarks.record runs/NAME --command "edgeseg run edgeseg.toml" --out benchmarks/results/NAME.json

What is committed below `results/` was written by it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgeseg.core.config import load_config
from edgeseg.core.files import read_json, write_json

_ROW = ("format", "precision", "runtime", "runtime_version", "miou", "agreement", "size_bytes")


def main() -> None:
    """Collect and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--command", required=True, help="the command that made the run, as typed")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    run: Path = args.run
    config = load_config(run / "edgeseg.toml")
    checkpoint, step = read_json(run / "checkpoints/trained/checkpoint.json"), read_json(run / ".steps/train.json")
    history, score = read_json(run / "checkpoints/trained/history.json"), read_json(run / "reference/score.json")
    rows = [{key: row[key] for key in _ROW} for row in read_json(run / "results.json") if row["target"] == "host"]
    write_json(args.out, {
        "command": args.command, "seed": config.train.seed, "network": checkpoint["model"], "epochs": config.train.epochs,
        "precision": history["precision"], "device": history["device"], "training_seconds": step["seconds"], "tools": checkpoint["tools"],
        "dataset": checkpoint["dataset"], "dataset_sha256": checkpoint["dataset_sha256"], "config_sha256": checkpoint["config_sha256"],
        "val_miou": checkpoint["metrics"]["val_miou"], "split": score["split"], "num_frames": score["num_frames"], "miou": score["miou"],
        "iou": dict(zip(checkpoint["classes"], score["iou"], strict=True)), "pixel_accuracy": score["pixel_accuracy"], "bundles": rows,
    })


if __name__ == "__main__":
    main()
