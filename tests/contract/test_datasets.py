"""Every layout in the registry: whoever adds one says here how to make a small folder of it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from layout_tools import COUNTS, write_cityscapes, write_coco, write_voc

from edgeseg.core.config import DataSection
from edgeseg.data.base import Layout
from edgeseg.data.check import check_dataset
from edgeseg.data.dataset import DATASETS, load_dataset
from edgeseg.data.inspect import inspect_folder
from edgeseg.data.store import FrameStore
from edgeseg.data.synthetic import write_field


def make_folder(root: Path) -> None:
    write_field(root, seed=0, counts=COUNTS, size_hw=(48, 64))


MAKERS: dict[str, Callable[[Path], None]] = {
    "folder": make_folder,
    "voc": write_voc,
    "coco": write_coco,
    "cityscapes": write_cityscapes,
}


def test_every_layout_can_be_made() -> None:
    assert set(MAKERS) == set(DATASETS)
    choices = next(f for f in dataclasses.fields(DataSection) if f.name == "layout").metadata["choices"]
    assert set(choices) == {"auto", *DATASETS}


@pytest.mark.parametrize("name", DATASETS)
def test_layout_keeps_its_promises(name: str, tmp_path: Path) -> None:
    layout: Layout = DATASETS[name]
    root = tmp_path / "made"
    MAKERS[name](root)
    assert layout.about
    assert "\n" not in layout.about
    assert [other for other, candidate in DATASETS.items() if candidate.claims(root)] == [name]
    assert not layout.claims(tmp_path)
    section = DataSection(dir=str(root))
    data = load_dataset(section, seed=0)
    assert data.layout == name
    assert {split: len(samples) for split, samples in data.splits.items()} == COUNTS
    samples = [sample for split in data.splits.values() for sample in split]
    assert len({sample.id for sample in samples}) == len(samples)
    assert not any(str(tmp_path) in sample.id for sample in samples)
    assert all(sample.split == split for split, group in data.splits.items() for sample in group)
    for frame, label in FrameStore(samples, num_classes=len(data.classes), memory_limit_mb=10):
        assert frame.shape == (*label.shape, 3)
    assert check_dataset(section, seed=0).ok
    assert inspect_folder(root).layout == name
    assert load_dataset(DataSection(dir=str(root), layout=name), seed=0) == data
    moved = tmp_path / "moved"
    shutil.move(root, moved)
    again = load_dataset(DataSection(dir=str(moved)), seed=0)
    assert again.sha256 == data.sha256
    assert [sample.id for sample in again.splits["train"]] == [sample.id for sample in data.splits["train"]]
