"""Learn eight images of every native layout by heart: readers, loader, losses, training and scoring agree, or this does not get there.

    python -m benchmarks.overfit [--datasets DIR] [--layout NAME ...] [--json benchmarks/results/overfit.json]

Frames come through the ordinary readers and `fit`; val is train, and scores are taken at the frames' own size. The limits are 0.9 mIoU, and
AP50 of 0.8 for objects. `ceiling` is the mIoU of the labels themselves at model size: no network of that size can do better. One thread.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from edgeseg.core.config import AugmentSection, Config, DataSection, ModelSection, TrainSection
from edgeseg.core.errors import DataError
from edgeseg.core.files import read_json, write_json
from edgeseg.core.images import IGNORE_INDEX, place, to_frame
from edgeseg.core.metrics import confusion_matrix, score
from edgeseg.data.base import Dataset, Sample
from edgeseg.data.dataset import load_dataset, placeholders
from edgeseg.data.instance_store import InstanceStore
from edgeseg.data.store import FrameStore, read_sample
from edgeseg.models.start import start
from edgeseg.training.loop import fit
from edgeseg.workflow.learn.learning import contract_of

NUM_IMAGES: Final = 8
LIMITS: Final = {"semantic": ("mIoU", 0.9), "instance": ("AP50", 0.8)}
EFFNET: Final = ModelSection(name="effnet_lite", encoder="efficientnet_lite0", encoder_weights="imagenet")
UNET: Final = ModelSection(name="unet", width=0.125)
MASK_RCNN: Final = ModelSection(
    name="mask_rcnn", encoder="efficientnet_lite0", encoder_weights="imagenet", width=0.25, max_instances=20
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Which images of a layout, and how they are learnt."""

    folder: str
    """Below `native/`."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Keys of `[data]`."""
    splits: tuple[str, ...] = ("train", "val", "test")
    """Images are taken from these, in order."""
    min_class_share: float = 0.0
    """Images with a class on fewer of their pixels are passed over."""
    min_share: float = 0.0
    """Classes on fewer of the labelled pixels of all images are ignored."""
    min_side: int = 0
    """Images with an object of fewer pixels at model size, with more than five, or with a crowd are passed over."""
    size: tuple[int, int] = (128, 160)
    crop: tuple[int, int] = (0, 0)
    epochs: int = 80
    lr: float = 2e-3
    batch_size: int = 8
    class_weights: str = "sqrt_median_frequency"
    model: ModelSection = EFFNET


RECIPES: Final[dict[str, Recipe]] = {
    "coco, polygons and RLE": Recipe(folder="coco", min_class_share=0.02),
    "coco, panoptic": Recipe(folder="coco/extra-panoptic2/sample_data", data={"annotations": ("panoptic_examples.json",)},
                             size=(192, 256), epochs=120),
    "coco, labelme with category id 0": Recipe(folder="coco/extra-labelme3", size=(192, 256)),
    "voc, palette": Recipe(folder="voc/coco128-as-voc", min_class_share=0.02),
    "voc, palette and void (labelme)": Recipe(folder="voc/labelme-voc2011", size=(192, 256)),
    "voc, mode L": Recipe(folder="voc/rock-L-mode", size=(256, 256), crop=(128, 128), batch_size=4, epochs=240, lr=8e-3,
                           class_weights="none", model=UNET),
    "cityscapes 2048x1024": Recipe(folder="cityscapes", splits=("train",), min_share=0.01, size=(192, 384), epochs=100),
    "cityscapes 256x128": Recipe(folder="cityscapes", splits=("val",), min_share=0.01, size=(128, 256), epochs=120),
    "folder, JPEG masks (kvasir)": Recipe(folder="kvasir-jpeg-masks", size=(96, 128), lr=4e-3, model=UNET),
    "coco, objects": Recipe(folder="coco", min_side=24, size=(192, 256), epochs=25, batch_size=4, model=MASK_RCNN),
}


def chosen(recipe: Recipe, root: Path) -> Dataset:
    """The images of a recipe, as train and as val; classes are those they show.

    Raises:
        DataError: no image fits the recipe.
    """
    section = DataSection(dir=str(root / recipe.folder), size=recipe.size, **recipe.data)
    data = load_dataset(section, seed=0, need=())
    samples = [sample for split in recipe.splits for sample in data.splits.get(split, ())]
    if recipe.model.task == "instance":
        fitting = [sample for sample in samples if _objects_fit(sample, recipe)]
    else:
        fitting = [sample for sample in samples if _shares(sample, data)[1].min(initial=1) >= recipe.min_class_share]
    if not fitting:
        raise DataError(f"{section.dir}: none of {len(samples)} images fits the recipe")
    ids = {sample.id for sample in fitting[:NUM_IMAGES]}
    if recipe.model.task == "semantic" and data.classes != placeholders(len(data.classes)):
        shown = _classes_shown([sample for sample in fitting if sample.id in ids], data, recipe.min_share)
        if len(shown) < len(data.classes):
            data = load_dataset(replace(section, classes=shown), seed=0, need=())
    kept = tuple(sample for samples in data.splits.values() for sample in samples if sample.id in ids)
    return replace(data, splits={"train": kept, "val": kept})


def _shares(sample: Sample, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Classes of an image but for class 0, and their shares of its pixels."""
    counts = np.bincount(sample.read_label(sample.label).reshape(-1), minlength=256)
    shown = np.flatnonzero(counts[1 : len(data.classes)]) + 1
    return shown, counts[shown] / counts.sum()


def _classes_shown(samples: list[Sample], data: Dataset, min_share: float) -> tuple[str, ...]:
    counts = sum(np.bincount(sample.read_label(sample.label).reshape(-1), minlength=256)[: len(data.classes)] for sample in samples)
    shares = np.asarray(counts) / np.sum(counts)
    background = data.layout in ("coco", "voc")
    return tuple(name for i, name in enumerate(data.classes) if (i == 0 and background) or (shares[i] > 0 and shares[i] >= min_share))


def _objects_fit(sample: Sample, recipe: Recipe) -> bool:
    if sample.read_instances is None:
        return False
    label = sample.read_instances()
    height, width = label.masks_NHW.shape[1:]
    sides = (label.boxes_N4[:, 2:] - label.boxes_N4[:, :2]) * np.array([recipe.size[1] / width, recipe.size[0] / height])
    return 1 <= len(sides) <= 5 and not label.crowd_N.any() and bool(sides.min() >= recipe.min_side)


def ceiling(data: Dataset, size_hw: tuple[int, int]) -> float:
    """Mean IoU of the labels themselves, brought to model size and back; ignored pixels count as class 0 there."""
    total = np.zeros((len(data.classes), len(data.classes)), dtype=np.int64)
    for sample in data.splits["train"]:
        _, label = read_sample(sample, num_classes=len(data.classes))
        small = np.asarray(Image.fromarray(label).resize(size_hw[::-1], Image.Resampling.NEAREST))
        back = to_frame([np.where(small == IGNORE_INDEX, 0, small).astype(np.uint8)], place(label.shape, size_hw, "stretch"))
        total += confusion_matrix(back, label, num_classes=len(data.classes))
    return score(total).miou


def learn(recipe: Recipe, root: Path, seed: int) -> dict[str, Any]:
    """Train as the recipe says and give the row of the table."""
    started, data = time.perf_counter(), chosen(recipe, root)
    samples, task = data.splits["train"], recipe.model.task
    config = Config(
        data=DataSection(dir=str(data.root), size=recipe.size),
        model=recipe.model,
        augment=AugmentSection(scale=(1.0, 1.0), flip=0, brightness=0, contrast=0, saturation=0, hue=0, blur=0),
        train=TrainSection(
            epochs=recipe.epochs, batch_size=min(recipe.batch_size, len(samples)), lr=recipe.lr, ema=0.0, device="cpu", eval_every=20,
            crop=recipe.crop,
            class_weights=recipe.class_weights,
            warmup_epochs=min(5.0, recipe.epochs / 10), weight_decay=0.0, clip_norm=5.0, precision="fp32", seed=seed,
        ),
    )
    kind: Any = InstanceStore if task == "instance" else FrameStore
    store = kind(samples, num_classes=len(data.classes), memory_limit_mb=500)
    net = start(recipe.model, len(data.classes), seed=seed, size_hw=recipe.size, crop_hw=recipe.crop)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(net, data, config, Path(folder) / "fit", stores=(store, store), contract=contract_of(config))
        metrics = result.best.meta.metrics
    metric, limit = LIMITS[task]
    reached = metrics["val_miou" if task == "semantic" else "val_ap50"]
    steps = recipe.epochs * max(1, len(samples) // config.train.batch_size)
    return {
        "images": [sample.id for sample in samples], "classes": len(data.classes), "network": recipe.model.title,
        "width": recipe.model.width, "size_hw": list(recipe.size), "steps": steps, "best_epoch": result.best_epoch, "metric": metric,
        "limit": limit, "reached": round(reached, 4), "passed": reached >= limit,
        "ceiling": round(ceiling(data, recipe.size), 4) if task == "semantic" else None,
        "seed": seed, "seconds": round(time.perf_counter() - started),
    }


def main() -> int:
    """Learn, print the table; exit code 1 where a layout stays below its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).parents[2] / "shared" / "datasets"
    parser.add_argument("--datasets", type=Path, default=Path(os.environ.get("EDGESEG_DATASETS", shared)), help="folder that holds native/")
    parser.add_argument("--layout", action="append", choices=RECIPES, metavar="NAME", help=f"one of: {'; '.join(RECIPES)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there; rows of other layouts stay")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Any] = read_json(given.json)["layouts"] if given.json is not None and given.json.is_file() else {}
    done = []
    for name in given.layout or RECIPES:
        row = learn(RECIPES[name], given.datasets / "native", given.seed)
        rows[name] = row
        done.append(row)
        top = "" if row["ceiling"] is None else f" (ceiling {row['ceiling']:.3f})"
        height, width = row["size_hw"]
        print(f"{'ok  ' if row['passed'] else 'FAIL'} {name:36} {len(row['images'])} images, {row['classes']:2} classes, "
              f"{row['network']} {row['width']:g} at {height}x{width}, {row['steps']} steps: {row['metric']} {row['reached']:.3f}{top}, "
              f"{row['seconds']} s", flush=True)
        if given.json is not None:
            write_json(given.json, {
                "command": "python -m benchmarks.overfit --json benchmarks/results/overfit.json",
                "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine(),
                "system": platform.system(), "threads": torch.get_num_threads(),
                "layouts": {key: rows[key] for key in RECIPES if key in rows},
            })
    return 0 if all(row["passed"] for row in done) else 1


if __name__ == "__main__":
    sys.exit(main())
