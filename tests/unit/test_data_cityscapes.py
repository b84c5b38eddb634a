"""The layout `cityscapes`: label ids to train ids, instance ids, partners that are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_tools import HW, cityscapes_ids, save, write_cityscapes

from edgeseg.core.config import DataSection
from edgeseg.core.errors import DataError, InputMissingError
from edgeseg.data.base import Dataset
from edgeseg.data.check import check_dataset
from edgeseg.data.dataset import load_dataset
from edgeseg.data.store import read_sample


def load(root: Path, **changes: Any) -> Dataset:
    return load_dataset(DataSection(dir=str(root), **changes), seed=0, need=())


@pytest.fixture
def city(tmp_path: Path) -> Path:
    write_cityscapes(tmp_path)
    return tmp_path


def test_train_ids(city: Path) -> None:
    data = load(city)
    assert (len(data.classes), data.classes[0], data.classes[18]) == (19, "road", "bicycle")
    assert data.palette[13] == (0, 0, 142)
    label = read_sample(data.splits["train"][0], num_classes=19)[1]
    ids, _ = cityscapes_ids(0)
    for label_id, train_id in ((23, 10), (7, 0), (26, 13), (24, 11), (1, 255)):
        assert set(np.unique(label[ids == label_id])) == {train_id}
    assert data.splits["train"][0].id == "train/town/train_000000_000000"


def test_objects_and_crowds(city: Path) -> None:
    sample = load(city).splits["train"][2]
    assert sample.read_instances is not None
    found = sample.read_instances()
    assert found.classes_N.tolist() == [11, 13, 13]
    assert found.crowd_N.tolist() == [True, False, False]
    assert found.boxes_N4.tolist() == [[40, 20, 52, 30], [4, 26, 12, 32], [12, 26, 20, 32]]


def test_classes_for_instances_begin_with_background(city: Path) -> None:
    data = load(city, classes=("background", "car"))
    label = read_sample(data.splits["train"][0], num_classes=2)[1]
    ids, _ = cityscapes_ids(0)
    np.testing.assert_array_equal(label, np.where(ids == 1, 255, ids == 26))
    sample = data.splits["train"][0]
    assert sample.read_instances is not None
    assert sample.read_instances().classes_N.tolist() == [1, 1]
    assert data.palette == ((0, 0, 0), (0, 0, 142))
    some = load(city, classes=("sky", "road"))
    assert set(np.unique(read_sample(some.splits["train"][0], num_classes=2)[1])) == {0, 1, 255}


def test_partners_that_are_missing_are_named(city: Path) -> None:
    name = "gtFine/train/town/train_000000_000001_gtFine_labelIds.png"
    (city / name).unlink()
    gone = city / "leftImg8bit/val/town/val_000000_000003_leftImg8bit.png"
    gone.unlink()
    problems = {(problem.kind, problem.file): problem.message for problem in check_dataset(DataSection(dir=str(city)), seed=0).problems}
    assert problems[("missing-label", "leftImg8bit/train/town/train_000000_000001_leftImg8bit.png")] == f"no label {name}"
    assert ("missing-image", "gtFine/val/town/val_000000_000003_gtFine_labelIds.png") in problems
    with pytest.raises(DataError, match="train_000000_000001"):
        load(city)


def test_a_split_without_label_ids_is_one_problem_that_sees_the_train_ids(city: Path) -> None:
    for path in (city / "gtFine").glob("*/*/*_labelIds.png"):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    report = check_dataset(DataSection(dir=str(city)), seed=0)
    assert [problem.file for problem in report.problems] == ["leftImg8bit/train", "leftImg8bit/val", "leftImg8bit/test"]
    assert "3 images, and gtFine/train/ holds no *_gtFine_labelIds.png (train_000000_0" in report.problems[0].message
    assert "_gtFine_labelTrainIds.png is there, but train ids are not read" in report.problems[0].message
    assert report.split_rule == ""


@pytest.mark.parametrize(("have", "lack"), [("gtFine", "leftImg8bit"), ("leftImg8bit", "gtFine")])
def test_half_of_the_folders_names_the_other(tmp_path: Path, have: str, lack: str) -> None:
    (tmp_path / have).mkdir()
    with pytest.raises(InputMissingError, match=f"the layout cityscapes needs {lack}/ beside {have}/"):
        load(tmp_path)


def test_ids_that_do_not_exist(city: Path) -> None:
    sample = load(city).splits["train"][0]
    save(sample.label, np.full(HW, 40, dtype=np.uint8))
    with pytest.raises(DataError, match=r"label id 40; Cityscapes has the ids 0\.\.33"):
        sample.read_label(sample.label)
    save(sample.label_files[1], np.full(HW, 50_000, dtype=np.uint16))
    assert sample.read_instances is not None
    with pytest.raises(DataError, match="instance id 50000"):
        sample.read_instances()


def test_test_labels_that_say_nothing_are_left_out(city: Path) -> None:
    for path in (city / "gtFine/test/town").glob("*labelIds.png"):
        save(path, np.ones(HW, dtype=np.uint8))
    data = load(city)
    assert set(data.splits) == {"train", "val"}
    assert any("labels of test hold nothing that is evaluated (1 frame)" in note for note in data.notes)
