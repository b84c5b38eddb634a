"""Frames of discs and boxes with their objects, written as images, and the stores that read them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from edgeseg.core.images import Frame, write_frame
from edgeseg.core.instances import InstanceLabel
from edgeseg.data.base import Dataset, Sample
from edgeseg.data.instance_store import InstanceStore
from edgeseg.data.objects import ObjectMask, instance_label

CLASSES = ("ground", "disc", "box")
PALETTE = ((40, 40, 40), (220, 60, 60), (60, 120, 220))


def draw_shapes(seed: int, hw: tuple[int, int]) -> tuple[Frame, InstanceLabel]:
    """Two to four discs and boxes that do not touch, on noisy ground; both kinds have all colours, so that shape alone tells them apart."""
    rng = np.random.default_rng(seed)
    height, width = hw
    y_HW, x_HW = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 60.0) + rng.normal(0, 8, (height, width, 3))
    taken, objects, wanted = np.zeros(hw, dtype=bool), [], int(rng.integers(2, 5))
    for _ in range(60):
        if len(objects) == wanted:
            break
        kind, radius = 1 + int(rng.integers(0, 2)), float(rng.uniform(8, 13))
        y, x = rng.uniform(radius, height - radius), rng.uniform(radius, width - radius)
        if kind == 1:
            mask = (y_HW + 0.5 - y) ** 2 + (x_HW + 0.5 - x) ** 2 < radius**2
        else:
            mask = (abs(y_HW + 0.5 - y) < radius * 0.8) & (abs(x_HW + 0.5 - x) < radius)
        around = (abs(y_HW + 0.5 - y) < radius + 2) & (abs(x_HW + 0.5 - x) < radius + 2)
        if not (around & taken).any():
            taken |= around
            image[mask] = rng.uniform(90, 255, 3) + rng.normal(0, 8, (int(mask.sum()), 3))
            objects.append(ObjectMask(mask, kind))
    return np.clip(image, 0, 255).astype(np.uint8), instance_label(hw, objects)


def shapes_samples(folder: Path, split: str, count: int, hw: tuple[int, int], *, first: int = 0) -> tuple[Sample, ...]:
    """Write `count` frames into `folder`; their labels are drawn again when they are read."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for seed in range(first, first + count):
        path = folder / f"{split}{seed}.png"
        write_frame(path, draw_shapes(seed, hw)[0])
        samples.append(Sample(id=path.stem, split=split, image=path, label=path, read_instances=partial(_label, seed, hw)))
    return tuple(samples)


def _label(seed: int, hw: tuple[int, int]) -> InstanceLabel:
    return draw_shapes(seed, hw)[1]


def shapes_data(
    folder: Path, hw: tuple[int, int], count: int = 8, *, same: bool = True
) -> tuple[Dataset, tuple[InstanceStore, InstanceStore]]:
    """Train and val of `count` frames each; with `same` val is train, which is what overfitting is measured on."""
    train = shapes_samples(folder, "train", count, hw)
    val = train if same else shapes_samples(folder, "val", count, hw, first=1000)
    data = Dataset(root=folder, name="shapes", layout="drawn", classes=CLASSES, palette=PALETTE, splits={"train": train, "val": val},
                   sha256="5" * 64, split_rule="drawn")
    stores = [InstanceStore(samples, num_classes=len(CLASSES), memory_limit_mb=100) for samples in (train, val)]
    return data, (stores[0], stores[1])
