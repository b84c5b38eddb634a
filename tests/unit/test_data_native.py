"""Every native layout at hand: images, objects and class pixels equal an independent count (pycocotools, plain numpy)."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeseg.core.config import AugmentSection, DataSection
from edgeseg.core.errors import DataError
from edgeseg.data.base import Dataset, Sample
from edgeseg.data.check import check_dataset
from edgeseg.data.dataset import load_dataset
from edgeseg.data.instance_loader import instance_batches
from edgeseg.data.instance_store import InstanceStore
from edgeseg.data.store import read_sample

ROOT = Path(os.environ.get("EDGESEG_DATASETS", Path(__file__).parents[2] / "../shared/datasets")).resolve() / "native"


def native(name: str) -> Path:
    if not (ROOT / name).is_dir():
        pytest.skip(f"{ROOT / name} is absent; set EDGESEG_DATASETS to the folder that holds native/")
    return ROOT / name


def load(root: Path, **changes: Any) -> Dataset:
    return load_dataset(DataSection(dir=str(root), **changes), seed=0, need=())


def samples_of(data: Dataset) -> list[Sample]:
    return [sample for samples in data.splits.values() for sample in samples]


def ours(data: Dataset) -> tuple[Counter[int], Counter[int]]:
    """Pixels by class, and objects by class without crowds, as the data room sees them."""
    pixels: Counter[int] = Counter()
    objects: Counter[int] = Counter()
    for sample in samples_of(data):
        _, label = read_sample(sample, num_classes=len(data.classes))
        values, counts = np.unique(label, return_counts=True)
        pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        if sample.read_instances is not None:
            found = sample.read_instances()
            objects.update(found.classes_N[~found.crowd_N].tolist())
    return pixels, objects


def pixel_counter(label: NDArray[Any]) -> Counter[int]:
    values, counts = np.unique(label, return_counts=True)
    return Counter(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def by_pycocotools(path: Path) -> tuple[int, Counter[int], Counter[int]]:
    """Images, pixels and objects of an annotation file: masks by pycocotools' own reader, largest first, crowds (255) below."""
    from pycocotools.coco import COCO

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coco = COCO(str(path))
        ids = sorted(coco.getCatIds())
        names = {key: coco.loadCats(key)[0]["name"] for key in ids}
        real = [key for key in ids if names[key] != "_background_"]
        index = {key: place for place, key in enumerate(real, start=1)}
        pixels: Counter[int] = Counter()
        objects: Counter[int] = Counter()
        for image in coco.loadImgs(coco.getImgIds()):
            label = np.zeros((image["height"], image["width"]), dtype=np.int64)
            entries = [(one, coco.annToMask(one).astype(bool)) for one in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))]
            for one, mask in sorted(entries, key=lambda pair: (-pair[0]["iscrowd"], -int(pair[1].sum()))):
                label[mask] = 255 if one["iscrowd"] else index[one["category_id"]]
            pixels.update(pixel_counter(label))
            objects.update(index[one["category_id"]] for one, mask in entries if not one["iscrowd"] and mask.any())
    return len(coco.getImgIds()), pixels, objects


@pytest.mark.parametrize(("folder", "name", "images", "annotations"), [
    ("coco", "annotations/instances_train2017.json", 128, 929),
    ("coco/extra-labelme3", "annotations.json", 3, 12),
    ("coco/extra-panoptic2/sample_data", "panoptic_coco_detection_format.json", 2, 47),
])
def test_coco(folder: str, name: str, images: int, annotations: int) -> None:
    root = native(folder)
    data = load(root, annotations=(name,))
    expected_images, expected_pixels, expected_objects = by_pycocotools(root / name)
    pixels, objects = ours(data)
    assert len(samples_of(data)) == expected_images == images
    assert pixels == expected_pixels
    assert objects == expected_objects
    assert objects.total() == annotations


def test_coco_splits_by_themselves() -> None:
    data = load(native("coco"))
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 96, "val": 16, "test": 16}
    assert len(data.classes) == 81
    assert any("2 images without annotation" in note for note in data.notes)


def test_panoptic() -> None:
    root = native("coco/extra-panoptic2/sample_data")
    data = load(root, annotations=("panoptic_examples.json",))
    raw = json.loads((root / "panoptic_examples.json").read_text(encoding="utf-8"))
    ids = sorted(category["id"] for category in raw["categories"])
    things = {category["id"] for category in raw["categories"] if category["isthing"]}
    pixels: Counter[int] = Counter()
    objects: Counter[int] = Counter()
    for one in raw["annotations"]:
        with Image.open(root / "panoptic_examples" / one["file_name"]) as image:
            channels = np.asarray(image).astype(np.int64)
        numbers = channels[:, :, 0] + 256 * channels[:, :, 1] + 65536 * channels[:, :, 2]
        pixels[255] += int((numbers == 0).sum())
        for segment in one["segments_info"]:
            index = ids.index(segment["category_id"]) + 1
            assert int((numbers == segment["id"]).sum()) == segment["area"]
            pixels[255 if segment["iscrowd"] else index] += segment["area"]
            objects[index] += segment["category_id"] in things and not segment["iscrowd"]
    assert ours(data) == (pixels, objects)
    assert len(samples_of(data)) == 2


@pytest.mark.parametrize(("name", "year", "images", "num_classes"), [
    ("labelme-voc2011", "VOC2012", (2, 1, 0), 21), ("coco128-as-voc", "VOC2012", (18, 8, 0), 21), ("rock-L-mode", "VOC2007", (10, 3, 3), 4),
])
def test_voc(name: str, year: str, images: tuple[int, ...], num_classes: int) -> None:
    root = native(f"voc/{name}")
    data = load(root)
    assert tuple(len(data.splits.get(split, ())) for split in ("train", "val", "test")) == images
    assert len(data.classes) == num_classes
    pixels: Counter[int] = Counter()
    count = 0
    for path in sorted((root / "VOCdevkit" / year / "SegmentationClass").glob("*.png")):
        with Image.open(path) as image:
            pixels.update(pixel_counter(np.asarray(image)))
        numbers = root / "VOCdevkit" / year / "SegmentationObject" / path.name
        if numbers.is_file():
            with Image.open(numbers) as image:
                count += len(set(np.unique(np.asarray(image)).tolist()) - {0, 255})
    found_pixels, found_objects = ours(data)
    assert found_pixels == pixels
    assert found_objects.total() == count
    assert check_dataset(DataSection(dir=str(root)), seed=0).ok


def test_cityscapes() -> None:
    root = native("cityscapes")
    data = load(root)
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 4, "val": 1}
    pixels: Counter[int] = Counter()
    objects: Counter[int] = Counter()
    trained = {24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    for path in sorted(root.glob("gtFine/*/*/*_labelTrainIds.png")):
        with Image.open(path) as image:
            pixels.update(pixel_counter(np.asarray(image)))
        with Image.open(path.with_name(path.name.replace("labelTrainIds", "instanceIds"))) as image:
            ids = np.unique(np.asarray(image)).tolist()
        objects.update(trained[value // 1000] for value in ids if value >= 1000 and value // 1000 in trained)
    assert ours(data) == (pixels, objects)


def test_cityscapes_labels_without_images_are_named(tmp_path: Path) -> None:
    root = native("cityscapes")
    (tmp_path / "leftImg8bit").symlink_to(root / "leftImg8bit")
    (tmp_path / "gtFine").symlink_to(root / "gtFine-labels-only")
    report = check_dataset(DataSection(dir=str(tmp_path)), seed=0)
    kinds = Counter(problem.kind for problem in report.problems)
    assert kinds["missing-image"] == 15
    assert kinds["missing-label"] == 5
    with pytest.raises(DataError, match=r"no label gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds\.png"):
        load(tmp_path)


def test_masks_stored_as_jpeg_are_cut_at_the_middle() -> None:
    root = native("kvasir-jpeg-masks")
    data = load(root)
    assert data.classes == ("background", "object")
    assert any("5 of 5 are stored with loss" in note for note in data.notes)
    pixels: Counter[int] = Counter()
    for path in (root / "masks").iterdir():
        with Image.open(path) as image:
            pixels.update(pixel_counter(np.asarray(image)[:, :, 1] > 127))
    found, _ = ours(data)
    assert found.total() == pixels.total()
    assert abs(found[1] - pixels[1]) <= 0.0005 * pixels[1]  # the three channels differ by a value or two
    assert check_dataset(DataSection(dir=str(root)), seed=0).ok


def test_objects_of_coco_make_batches() -> None:
    data = load(native("coco"))
    store = InstanceStore(data.splits["val"], num_classes=81, memory_limit_mb=200)
    assert sum(store.object_counts) == 138
    for batch in instance_batches(store, seed=0, epoch=0, batch_size=8, crop_hw=(128, 160), section=AugmentSection(),
                                  model_hw=(128, 160), resize="letterbox"):
        assert batch.frames_NHWC.shape == (8, 128, 160, 3)
        for label in batch.labels:
            assert label.masks_NHW.any(axis=(1, 2)).all()
            assert (label.boxes_N4[:, 2:] - label.boxes_N4[:, :2] >= 2).all()
            assert (label.boxes_N4 >= 0).all()
            assert (label.boxes_N4 <= [160, 128, 160, 128]).all()
