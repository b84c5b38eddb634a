"""Small data sets in every layout, written from the same few frames; nothing of a real data set is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HW = (48, 64)
COUNTS = {"train": 3, "val": 2, "test": 1}


def frame(seed: int, hw: tuple[int, int] = HW) -> NDArray[np.uint8]:
    """A frame like no other: noise at two scales."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8)).resize(hw[::-1], Image.Resampling.BICUBIC)
    return (np.asarray(coarse).astype(np.uint16) * 3 // 4 + rng.integers(0, 64, (*hw, 3), dtype=np.uint16)).astype(np.uint8)


def save(path: Path, array: NDArray[Any], *, palette: list[int] | None = None) -> Path:
    """Write an image, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette is not None:
        image = image.convert("L")
        image.putpalette(palette)
    image.save(path)
    return path


def boxes_of(number: int) -> list[tuple[int, int, int, int, int]]:
    """Objects of frame `number`: x0, y0, x1, y1, class 1 or 2; the second lies partly on the first and is smaller."""
    return [(4 + number, 6, 40, 40, 1), (30, 20, 50 - number, 34, 2)]


def painted(number: int, hw: tuple[int, int] = HW) -> NDArray[np.uint8]:
    """Class map of `boxes_of`."""
    label = np.zeros(hw, dtype=np.uint8)
    for x0, y0, x1, y1, index in boxes_of(number):
        label[y0:y1, x0:x1] = index
    return label


def rectangle(x0: int, y0: int, x1: int, y1: int) -> list[float]:
    """Polygon whose pixels, drawn by pycocotools, are exactly the columns x0..x1-1 of the rows y0..y1-1."""
    return [float(value) for value in (x0, y0, x1, y0, x1, y1, x0, y1)]


def coco_index(numbers: list[int], *, ids: tuple[int, int] = (3, 7), names: tuple[str, str] = ("leaf", "stone")) -> dict[str, Any]:
    """Annotation file of frames `numbers`; category ids have gaps."""
    annotations = [
        {"id": 10 * number + k, "image_id": number, "category_id": ids[index - 1], "iscrowd": 0,
         "segmentation": [rectangle(x0, y0, x1, y1)], "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
        for number in numbers for k, (x0, y0, x1, y1, index) in enumerate(boxes_of(number))
    ]
    return {
        "images": [{"id": number, "file_name": f"{number:04}.png", "height": HW[0], "width": HW[1]} for number in numbers],
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in zip(ids, names, strict=True)][::-1],
    }


def numbers_of() -> dict[str, list[int]]:
    """Frame numbers of every split."""
    first = 0
    numbers = {}
    for split, count in COUNTS.items():
        numbers[split] = list(range(first, first + count))
        first += count
    return numbers


def write_coco(root: Path) -> None:
    """Two categories, polygons, three splits."""
    for split, numbers in numbers_of().items():
        for number in numbers:
            save(root / f"{split}2017" / f"{number:04}.png", frame(number))
        write_json(root / "annotations" / f"instances_{split}2017.json", coco_index(numbers))


def write_voc(root: Path, *, palette: bool = True) -> None:
    """Palette masks with void around the first object, and numbered objects."""
    base = root / "VOCdevkit" / "VOC2012"
    colours = [(index * 37) % 256 for index in range(768)]
    for split, numbers in numbers_of().items():
        for number in numbers:
            label, objects = painted(number), np.zeros(HW, dtype=np.uint8)
            for k, (x0, y0, x1, y1, _) in enumerate(boxes_of(number), start=1):
                objects[y0:y1, x0:x1] = k
            label[5] = objects[5] = 255
            save(base / "JPEGImages" / f"f_{number}.png", frame(number))
            save(base / "SegmentationClass" / f"f_{number}.png", label, palette=colours if palette else None)
            save(base / "SegmentationObject" / f"f_{number}.png", objects, palette=colours if palette else None)
        lists = base / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("".join(f"f_{number}\n" for number in numbers), encoding="utf-8")


def write_cityscapes(root: Path) -> None:
    """Road below, sky above, a car and a region of persons."""
    for split, numbers in numbers_of().items():
        for number in numbers:
            ids, objects = cityscapes_ids(number)
            name = f"{split}_000000_{number:06}"
            save(root / "leftImg8bit" / split / "town" / f"{name}_leftImg8bit.png", frame(number))
            save(root / "gtFine" / split / "town" / f"{name}_gtFine_labelIds.png", ids)
            save(root / "gtFine" / split / "town" / f"{name}_gtFine_instanceIds.png", objects)


def cityscapes_ids(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Label ids and instance ids: sky 23, road 7, ego vehicle 1, two cars 26 (one beside the other), a crowd of persons 24."""
    ids = np.full(HW, 23, dtype=np.uint8)
    ids[24:] = 7
    ids[44:] = 1
    objects = ids.astype(np.uint16)
    ids[26:32, 4:20] = 26
    objects[26:32, 4:12] = 26000
    objects[26:32, 12:20] = 26001
    ids[20:30, 40 : 50 + number] = 24
    objects[20:30, 40 : 50 + number] = 24
    return ids, objects


def write_json(path: Path, value: object) -> None:
    """Write JSON (NaN allowed, as careless tools do), with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
