"""Labels that were turned against their image are named; data as they are raise no alarm."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layout_tools import write_coco
from PIL import Image

from edgeseg.core.config import DataSection
from edgeseg.data.base import Problem, Sample
from edgeseg.data.check import check_dataset
from edgeseg.data.dataset import load_dataset
from edgeseg.data.orientation import edge_agreement, turned
from edgeseg.data.store import read_sample
from edgeseg.data.synthetic import write_field

REAL = Path(os.environ.get("EDGESEG_DATASETS", Path(__file__).parents[2] / "../shared/datasets")).resolve()


def found(root: Path) -> list[Problem]:
    report = check_dataset(DataSection(dir=str(root)), seed=0)
    assert report.ok
    return [warning for warning in report.warnings if warning.kind == "turned-label"]


def field(root: Path, size_hw: tuple[int, int]) -> list[Path]:
    """Masks of a drawn data set."""
    write_field(root, seed=1, counts={"train": 6, "val": 2, "test": 2}, size_hw=size_hw)
    return sorted(root.glob("masks/*/*.png"))


def turn(path: Path, how: Image.Transpose) -> None:
    with Image.open(path) as mask:
        mask.transpose(how).save(path)


@pytest.mark.parametrize(("how", "said"), [
    (Image.Transpose.ROTATE_180, "a half turn"), (Image.Transpose.FLIP_LEFT_RIGHT, "mirrored left to right"),
    (Image.Transpose.FLIP_TOP_BOTTOM, "mirrored top to bottom"), (Image.Transpose.ROTATE_90, "a quarter turn to the right"),
    (Image.Transpose.ROTATE_270, "a quarter turn to the left"), (Image.Transpose.TRANSPOSE, "mirrored at a diagonal"),
    (Image.Transpose.TRANSVERSE, "mirrored at the other diagonal"),
])
def test_a_turned_label_is_named_with_the_turn_that_mends_it(tmp_path: Path, how: Image.Transpose, said: str) -> None:
    masks = field(tmp_path, (128, 128))
    turn(masks[3], how)
    (warning,) = found(tmp_path)
    assert warning.file == masks[3].relative_to(tmp_path).as_posix()
    assert said in warning.message


def test_of_labels_in_one_annotation_file_the_image_is_named(tmp_path: Path) -> None:
    sample = Sample(id="a", split="train", image=tmp_path / "images/a.jpg", label=tmp_path / "annotations/instances.json")
    others = [replace(sample, id=name, image=tmp_path / f"images/{name}.jpg") for name in ("b", "c")]
    as_it_is, mirrored = np.array([0.3, 0.0, 0.0, 0.0]), np.array([0.0, 0.0, 0.3, 0.0])
    (warning,) = turned(tmp_path, [sample, *others], [mirrored, as_it_is, as_it_is])
    assert warning.file == "images/a.jpg"
    assert "mirrored left to right" in warning.message


def test_labels_that_are_all_turned_are_one_warning(tmp_path: Path) -> None:
    for path in field(tmp_path, (96, 128)):
        turn(path, Image.Transpose.ROTATE_180)
    (warning,) = found(tmp_path)
    assert warning.file == "."
    assert "of 10 labels" in warning.message
    assert "a half turn" in warning.message


def test_nothing_is_said_of_data_as_they_are_nor_of_labels_that_follow_no_edges(tmp_path: Path) -> None:
    field(tmp_path / "field", (128, 128))
    assert not found(tmp_path / "field")
    write_coco(tmp_path / "coco")  # rectangles on noise
    assert not found(tmp_path / "coco")


@pytest.mark.parametrize(("name", "most_missed"), [("camvid", 3), ("cwfid", 1), ("dsb2018-nuclei-small", 2)])
def test_real_data_raise_no_alarm_and_planted_turns_are_found(name: str, most_missed: int) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is absent; set EDGESEG_DATASETS to the folder that holds {name}/")
    data = load_dataset(DataSection(dir=str(REAL / name)), seed=0, need=())
    samples = [sample for split in data.splits.values() for sample in split][:: 24 if name == "camvid" else 4]
    pairs = [read_sample(sample, num_classes=len(data.classes)) for sample in samples]
    as_they_are = [edge_agreement(*pair) for pair in pairs]
    assert not turned(data.root, samples, as_they_are)
    judged = [i for i in range(0, len(samples), 3) if as_they_are[i] is not None]
    every_third = list(as_they_are)
    for i in judged:
        every_third[i] = edge_agreement(pairs[i][0], np.ascontiguousarray(pairs[i][1][::-1, ::-1]))
    planted = {samples[i].label.name for i in judged}
    named = {Path(problem.file).name for problem in turned(data.root, samples, every_third)}
    assert named <= planted
    assert len(planted - named) <= most_missed
