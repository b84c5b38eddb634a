"""A COCO data set small enough to train on in seconds: discs and bars in bright colours on a dark, noisy ground."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

CATEGORIES: Final = ({"id": 3, "name": "disc"}, {"id": 7, "name": "bar"})
COUNTS: Final = {"train": 8, "val": 4, "test": 3}


def write_objects(folder: Path, *, counts: Mapping[str, int] = COUNTS, size_hw: tuple[int, int] = (96, 128), seed: int = 0) -> Path:
    """Write images and `annotations/instances_SPLIT.json`, two to four objects an image."""
    rng = np.random.Generator(np.random.Philox(seed))
    for split, count in counts.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        (folder / split).mkdir(parents=True, exist_ok=True)
        for number in range(1, count + 1):
            image = Image.fromarray(rng.integers(0, 60, (*size_hw, 3), dtype=np.uint8))
            pen = ImageDraw.Draw(image)
            for place in rng.permutation(4)[: rng.integers(2, 5)]:
                polygon, category = _shape(rng, size_hw, int(place))
                pen.polygon([tuple(point) for point in polygon], fill=(250, 200, 40) if category == 3 else (60, 120, 250))
                xs, ys = zip(*polygon, strict=True)
                box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
                annotations.append({
                    "id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0, "bbox": box,
                    "area": box[2] * box[3], "segmentation": [[value for point in polygon for value in point]],
                })
            name = f"{split}_{number:03}.png"
            image.save(folder / split / name)
            images.append({"id": number, "file_name": name, "height": size_hw[0], "width": size_hw[1]})
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": list(CATEGORIES)})
        )
    return folder


def _shape(rng: np.random.Generator, size_hw: tuple[int, int], place: int) -> tuple[list[tuple[float, float]], int]:
    """Corners of an object in one quarter of the frame, and its category."""
    height, width = size_hw[0] / 2, size_hw[1] / 2
    x, y = (place % 2 + 0.5) * width, (place // 2 + 0.5) * height
    if rng.integers(2):
        radius = 0.4 * min(height, width) * rng.uniform(0.7, 1.0)
        turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        return [(round(x + radius * np.cos(t), 1), round(y + radius * np.sin(t), 1)) for t in turns], 3
    half_w, half_h = 0.42 * width * rng.uniform(0.8, 1.0), 0.2 * height * rng.uniform(0.8, 1.2)
    return [(round(x + a * half_w, 1), round(y + b * half_h, 1)) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))], 7
