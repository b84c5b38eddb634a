"""What the int8 benchmarks share: a run's bundles and frames, and mIoU with the worst class of a bundle on them."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.config import Config, load_config
from edgeseg.core.errors import InputMissingError
from edgeseg.core.images import ClassMap, Frame, to_frame, to_model
from edgeseg.core.instances import as_class_map
from edgeseg.core.metrics import SegmentationScore, confusion_matrix, score
from edgeseg.core.vendors import versions
from edgeseg.data.dataset import Dataset, load_dataset
from edgeseg.data.store import read_sample
from targets.boards import plan
from targets.machine import describe_machine
from targets.runtimes import open_session

PACKAGES: Final = ("edgeseg", "onnx", "onnxruntime", "openvino", "nncf", "ai-edge-litert", "ai-edge-quantizer", "tflite_runtime", "numpy")


@dataclass(frozen=True)
class Run:
    """A finished run and its data."""

    folder: Path
    config: Config
    dataset: Dataset
    labelled: list[tuple[Frame, ClassMap]]
    """Of the evaluation split, at frame size."""

    def bundle(self, format_: str, precision: str) -> Bundle | None:
        """A bundle of the run; `None` = the run did not make it."""
        folder = self.folder / "bundles" / f"{self.config.name}-{format_}-{precision}"
        return open_bundle(folder) if folder.is_dir() else None


def open_finished(folder: Path, *, frames: int) -> Run:
    """Open a run with at most `frames` frames of its evaluation split, evenly spread (0 = all).

    Raises:
        InputMissingError: there are no bundles.
    """
    if not (folder / "bundles").is_dir():
        raise InputMissingError(f"{folder} holds no bundles; type: edgeseg run in the folder of its edgeseg.toml")
    config = load_config(folder / "edgeseg.toml")
    dataset = load_dataset(config.data, seed=config.train.seed)
    samples = list(dataset.splits[config.data.eval_split])
    if frames and frames < len(samples):
        samples = [samples[index * len(samples) // frames] for index in range(frames)]
    return Run(folder, config, dataset, [read_sample(sample, num_classes=len(dataset.classes)) for sample in samples])


def measure(bundle: Bundle, labelled: Sequence[tuple[Frame, ClassMap]], *, runtime: str = "") -> SegmentationScore:
    """Accuracy of a bundle in this host's runtime for its format, or in another that reads it."""
    manifest = bundle.manifest
    how = plan("host", manifest.format, manifest.precision, num_threads=1)
    contract, num_classes = manifest.contract, len(manifest.classes)
    total = np.zeros((num_classes, num_classes), np.int64)
    session = open_session(bundle, runtime or how.runtime, how.options)
    try:
        for frame, label in labelled:
            placement = contract.place((frame.shape[0], frame.shape[1]))
            answers = [as_class_map(session.run(part)) for part in to_model(frame, placement)]
            total += confusion_matrix(to_frame(answers, placement), label, num_classes=num_classes)
    finally:
        session.close()
    return score(total)


def losses(before: SegmentationScore, after: SegmentationScore, classes: Sequence[str]) -> dict[str, Any]:
    """What `after` lost against `before`."""
    drops = {name: a - b for name, a, b in zip(classes, before.iou, after.iou, strict=True) if a is not None and b is not None}
    worst = max(drops, key=lambda name: drops[name])
    return {
        "miou": round(after.miou, 5), "miou_drop": round(before.miou - after.miou, 5), "retention": round(after.miou / before.miou, 5),
        "worst_class": worst, "worst_class_drop": round(drops[worst], 5),
    }


def facts(runs: Sequence[Run]) -> dict[str, Any]:
    """Command, machine, versions, and what each run is."""
    return {
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *(_shown(argument) for argument in sys.argv[1:])]),
        "machine": asdict(describe_machine()), "python": platform.python_version(), "versions": versions(*PACKAGES),
        "runs": [
            {"name": run.config.name, "network": run.config.model.title, "dataset": run.dataset.name, "dataset_sha256": run.dataset.sha256,
             "seed": run.config.train.seed, "split": run.config.data.eval_split, "num_frames": len(run.labelled)}
            for run in runs
        ],
    }


def _shown(argument: str) -> str:
    """An argument of the command; of a path its end, which says nothing about this machine."""
    path = Path(argument)
    return shlex.quote("/".join(path.parts[-2:]) if path.is_absolute() else argument)
