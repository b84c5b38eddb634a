"""What a teacher is worth to a small student: twins of the same seed, trained with and without it.

    python -m benchmarks.distillation [--json result.json]
    python -m benchmarks.distillation --config edgeseg.toml --teacher runs/NAME --student lraspp_mobilenet_v3_small --width 0.5 --epochs 60

Without `--config` frames are of the synthetic field, and a U-Net is trained first as the teacher. Twins start from the same weights and see
the same crops in the same order; what differs is the teacher's part of the loss. Scores are taken on the eval split.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from edgeseg.core.config import Config, load_config
from edgeseg.core.files import write_json
from edgeseg.core.metrics import score
from edgeseg.data.dataset import Dataset, load_dataset
from edgeseg.data.store import FrameStore
from edgeseg.data.synthetic import write_field
from edgeseg.models import build, count_parameters
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.evaluate import evaluate, torch_predictor
from edgeseg.training.loop import fit
from edgeseg.workflow.learn.learning import contract_of
from edgeseg.workflow.learn.teaching import load_teacher

FIELD: Final = """
[data]
dir = "data"
size = [96, 128]
[train]
epochs = {epochs}
batch_size = 8
eval_every = 10
"""
COUNTS: Final = {"train": 64, "val": 16, "test": 32}


@dataclasses.dataclass(frozen=True)
class Bench:
    """Data, opened once, and what every training shares."""

    config: Config
    data: Dataset
    stores: dict[str, FrameStore]
    folder: Path

    def learn(self, name: str, config: Config, teacher: nn.Module | None = None) -> tuple[nn.Module, float]:
        """Train the network of `config`; give it and its mIoU on the eval split."""
        net = build(config.model, len(self.data.classes), seed=config.train.seed)
        stores, contract = (self.stores["train"], self.stores["val"]), contract_of(config)
        result = fit(net, self.data, config, self.folder / name, stores=stores, contract=contract, teacher=teacher)
        net = load_checkpoint(result.best.folder)[0]
        return net, self.score(net)

    def score(self, net: nn.Module) -> float:
        """Give the mIoU on the eval split."""
        contract, split = contract_of(self.config), self.config.data.eval_split
        confusions = evaluate(torch_predictor(net, contract), self.stores[split], contract, len(self.data.classes))
        return score(confusions.sum(axis=0)).miou


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--teacher", type=Path, help="a run or a checkpoint; without --config a U-Net of width 0.25 is trained")
    parser.add_argument("--teacher-epochs", type=int, default=60)
    parser.add_argument("--student", default="lraspp_mobilenet_v3_small")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=40, help="of each student")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--distillers", nargs="+", default=["cwd", "kd"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = prepare(given, Path(folder))
        result = run(bench, given)
    print_table(result)
    if given.json is not None:
        write_json(given.json, result)


def prepare(given: argparse.Namespace, folder: Path) -> Bench:
    """Open the data."""
    if given.config is None:
        write_field(folder / "data", seed=0, counts=COUNTS, size_hw=(96, 128))
        (folder / "edgeseg.toml").write_text(FIELD.format(epochs=given.epochs), encoding="utf-8")
    config = load_config(given.config or folder / "edgeseg.toml", (f"train.epochs={given.epochs}", *given.set))
    data = load_dataset(config.data, seed=config.train.seed)
    stores = {
        split: FrameStore(data.splits[split], num_classes=len(data.classes), memory_limit_mb=config.data.memory_limit_mb)
        for split in {"train", "val", config.data.eval_split}
    }
    return Bench(config, data, stores, folder)


def run(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    """Train the teacher where there is none, then the twins of each seed."""
    started = time.monotonic()
    config = bench.config
    if given.teacher is not None:
        section = dataclasses.replace(config.train, teacher=str(given.teacher.resolve()))
        teacher, name = load_teacher(section, bench.data.classes), str(given.teacher.name)
        assert teacher is not None
        teacher_miou = bench.score(teacher)
    else:
        model = dataclasses.replace(config.model, name="unet", width=0.25, depth=3)
        learning = dataclasses.replace(config.train, epochs=given.teacher_epochs)
        teacher, teacher_miou = bench.learn("teacher", dataclasses.replace(config, model=model, train=learning))
        name = f"unet, width 0.25, depth 3, {given.teacher_epochs} epochs"
    student = dataclasses.replace(config.model, name=given.student, width=given.width, encoder="", encoder_weights="")
    rows: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        row: dict[str, Any] = {"seed": seed}
        for way in ("alone", *given.distillers):
            distilled = {} if way == "alone" else {"distiller": way}
            learning = dataclasses.replace(config.train, seed=seed, teacher="", **distilled)
            own = dataclasses.replace(config, model=student, train=learning)
            row[way] = bench.learn(f"{way}-{seed}", own, None if way == "alone" else teacher)[1]
        rows.append(row)
        print(row, flush=True)
    gains = {way: [row[way] - row["alone"] for row in rows] for way in given.distillers}
    net = build(student, len(bench.data.classes))
    return {
        "command": " ".join(["python -m benchmarks.distillation", *sys.argv[1:]]),
        "data": bench.data.name, "data_sha256": bench.data.sha256, "split": config.data.eval_split,
        "teacher": name, "teacher_miou": teacher_miou, "teacher_parameters": count_parameters(teacher),
        "student": given.student, "width": given.width, "student_parameters": count_parameters(net), "epochs": config.train.epochs,
        "distill_weight": config.train.distill_weight, "distill_temperature": config.train.distill_temperature, "rows": rows,
        "gain_mean": {way: statistics.mean(values) for way, values in gains.items()},
        "gain_lowest": {way: min(values) for way, values in gains.items()},
        "torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count(),
        "threads": given.threads, "seconds": round(time.monotonic() - started),
    }


def print_table(result: dict[str, Any]) -> None:
    """Print what a person wants to see."""
    ways = list(result["gain_mean"])
    print(f"teacher {result['teacher']}: mIoU {result['teacher_miou']:.4f}; student {result['student']} x {result['width']}")
    print("seed   alone   " + "".join(f"{way:>18}" for way in ways))
    for row in result["rows"]:
        cells = (f"{row[way]:9.4f} ({100 * (row[way] - row['alone']):+5.2f})" for way in ways)
        print(f"{row['seed']:4}   {row['alone']:.4f}  " + "".join(cells))
    for way in ways:
        print(f"{way}: {100 * result['gain_mean'][way]:+.2f} points of mIoU in the mean, {100 * result['gain_lowest'][way]:+.2f} at least")


if __name__ == "__main__":
    main()
