"""The layout `voc`: lists, palettes, names, objects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_tools import HW, boxes_of, painted, save, write_voc
from PIL import Image

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError, DataError
from edgeseg.data.base import Dataset, default_palette
from edgeseg.data.check import check_dataset
from edgeseg.data.dataset import load_dataset
from edgeseg.data.inspect import inspect_folder
from edgeseg.data.store import read_sample
from edgeseg.data.voc import VOC_CLASSES

BASE = "VOCdevkit/VOC2012"


def load(root: Path, **changes: Any) -> Dataset:
    return load_dataset(DataSection(dir=str(root), **changes), seed=0, need=())


def voided(number: int) -> np.ndarray[Any, Any]:
    label = painted(number)
    label[5] = 255
    return label


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    write_voc(tmp_path)
    return tmp_path


def test_indices_are_read_and_never_colours(voc: Path) -> None:
    data = load(voc)
    assert data.classes == VOC_CLASSES
    assert data.palette[15] == (192, 128, 128)
    assert data.split_rule.startswith(f"lists {BASE}/ImageSets/Segmentation/train.txt, ")
    assert any("20 classes of PASCAL VOC are assumed" in note for note in data.notes)
    for number, sample in enumerate(sample for samples in data.splits.values() for sample in samples):
        np.testing.assert_array_equal(read_sample(sample, num_classes=21)[1], voided(number))
    assert data.splits["val"][0].id == "val/f_3"


def test_objects_have_the_class_of_most_of_their_pixels(voc: Path) -> None:
    sample = load(voc).splits["train"][1]
    assert sample.read_instances is not None
    found = sample.read_instances()
    assert found.classes_N.tolist() == [1, 2]
    (x0, y0, x1, y1, _), second = boxes_of(1)
    assert found.boxes_N4.tolist() == [[x0, y0, x1, y1], list(second[:4])]
    assert int(found.masks_NHW[1].sum()) == int((painted(1) == 2).sum())
    path = voc / BASE / "SegmentationObject" / "f_1.png"
    save(path, np.zeros((4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match=r"SegmentationObject/f_1\.png: 4x4, SegmentationClass has 64x48"):
        sample.read_instances()
    path.unlink()
    assert load(voc).splits["train"][1].read_instances is None


def test_gray_masks_leave_the_classes_unnamed(tmp_path: Path) -> None:
    write_voc(tmp_path, palette=False)
    assert load(tmp_path).classes == ("class_0", "class_1", "class_2")
    assert load(tmp_path, classes=("soil", "crop", "weed")).classes == ("soil", "crop", "weed")


def test_names_from_a_file_and_a_choice_among_them(voc: Path) -> None:
    (voc / BASE / "class_names.txt").write_text("__ignore__\n_background_\nleaf\nstone\n", encoding="utf-8")
    data = load(voc)
    assert data.classes == ("_background_", "leaf", "stone")
    chosen = load(voc, classes=("stone",))
    assert chosen.classes == ("_background_", "stone")
    label = read_sample(chosen.splits["train"][0], num_classes=2)[1]
    np.testing.assert_array_equal(label, np.where(voided(0) == 255, 255, voided(0) == 2))
    assert chosen.sha256 != data.sha256
    with pytest.raises(ConfigError, match="no class 'lead'; did you mean 'leaf'"):
        load(voc, classes=("lead",))


def test_masks_in_colours_are_read_by_the_label_map(voc: Path) -> None:
    (voc / BASE / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nleaf:10,200,30::\nstone:9,9,99::\n",
                                             encoding="utf-8")
    colours = np.array([(0, 0, 0), (10, 200, 30), (9, 9, 99)], dtype=np.uint8)
    for number in range(6):
        picture = colours[painted(number)]
        picture[5] = (224, 224, 192)
        save(voc / BASE / "SegmentationClass" / f"f_{number}.png", picture)
    data = load(voc)
    assert data.palette == ((0, 0, 0), (10, 200, 30), (9, 9, 99))
    (note,) = [note for note in data.notes if "colours" in note]
    assert note.startswith("masks are pictures in colours: each pixel is the class that the palette of labelmap.txt gives its colour, ")
    assert note in check_dataset(DataSection(dir=str(voc)), seed=0).notes
    np.testing.assert_array_equal(read_sample(data.splits["test"][0], num_classes=3)[1], voided(5))
    save(data.splits["test"][0].label, np.full((*HW, 3), 77, dtype=np.uint8))
    with pytest.raises(DataError, match=r"f_5\.png: 1 colour that no class has: #4d4d4d \(3072 pixels\)"):
        read_sample(data.splits["test"][0], num_classes=3)
    assert [problem.kind for problem in check_dataset(DataSection(dir=str(voc)), seed=0).problems] == ["bad-label"]


def test_masks_in_the_colours_of_voc(voc: Path) -> None:
    picture = np.array(default_palette(21), dtype=np.uint8)[painted(0)]
    assert not [note for note in load(voc).notes if "in colours" in note], "masks of indices are not"
    save(voc / BASE / "SegmentationClass" / "f_0.png", picture)
    assert [note for note in load(voc).notes if "the class that PASCAL VOC's colour map gives its colour, 224,224,192 is void" in note]
    np.testing.assert_array_equal(read_sample(load(voc).splits["train"][0], num_classes=21)[1], painted(0))


@pytest.mark.parametrize(("line", "kind", "said"), [
    ("f_99", "missing-image", r"line 4 names 'f_99', and there is no VOCdevkit/VOC2012/JPEGImages/f_99\.\*"),
    ("f_99", "missing-label", r"no VOCdevkit/VOC2012/SegmentationClass/f_99\.\*"),
    ("f_1", "duplicate-id", r"line 4: 'f_1' stands in .*train\.txt line 2 already"),
    ("f_3", "duplicate-id", r"'f_3' stands in .*train\.txt line 4 already"),
    ("../../secret", "unsafe-path", r"line 4: '../../secret' leaves the image folder"),
])
def test_lists_are_checked(voc: Path, line: str, kind: str, said: str) -> None:
    path = voc / BASE / "ImageSets/Segmentation/train.txt"
    path.write_text(path.read_text(encoding="utf-8") + f"{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"^{BASE}/ImageSets/Segmentation/\w+\.txt: "):
        load(voc)
    problems = check_dataset(DataSection(dir=str(voc)), seed=0).problems
    found = [problem for problem in problems if problem.kind == kind]
    assert len(found) == 1
    assert re.search(said, found[0].message)


def test_trainval_alone_is_split_and_no_list_means_every_mask(voc: Path) -> None:
    lists = voc / BASE / "ImageSets/Segmentation"
    (lists / "train.txt").rename(lists / "trainval.txt")
    (lists / "val.txt").unlink()
    data = load(voc)
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 2, "val": 1, "test": 1}
    assert "val: 1 frame by rank" in data.split_rule
    for path in lists.iterdir():
        path.unlink()
    (voc / BASE / "SegmentationClass/f_5.png").unlink()
    data = load(voc)
    assert sum(len(samples) for samples in data.splits.values()) == 5
    assert "not read: 1 image without a mask" in data.notes


def test_a_test_list_without_any_mask_is_left_out(voc: Path) -> None:
    (voc / BASE / "SegmentationClass/f_5.png").unlink()
    data = load(voc)
    assert set(data.splits) == {"train", "val"}
    assert any("test.txt names 1 image, none of which has a mask" in note for note in data.notes)


@pytest.mark.parametrize("name", ["train", "val"])
def test_an_empty_list_is_named(voc: Path, name: str) -> None:
    (voc / BASE / f"ImageSets/Segmentation/{name}.txt").write_text("\n", encoding="utf-8")
    (problem,) = check_dataset(DataSection(dir=str(voc)), seed=0).problems
    assert problem.file == f"{BASE}/ImageSets/Segmentation/{name}.txt"
    assert problem.message == "the list names no image; write one name a line, or remove it"
    assert inspect_folder(voc).num_problems == 1
    (voc / BASE / f"ImageSets/Segmentation/{name}.txt").unlink()
    assert check_dataset(DataSection(dir=str(voc)), seed=0).ok


def test_two_years_in_one_folder(voc: Path) -> None:
    for name in ("JPEGImages", "SegmentationClass"):
        (voc / "VOCdevkit/VOC2007" / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match="several VOC data sets: VOCdevkit/VOC2007, VOCdevkit/VOC2012"):
        load(voc)
    assert load(voc / BASE).layout == "voc"


def test_damaged_mask_is_named(voc: Path) -> None:
    path = voc / BASE / "SegmentationClass" / "f_0.png"
    path.write_bytes(path.read_bytes()[:60])
    problems = check_dataset(DataSection(dir=str(voc)), seed=0).problems
    assert [(problem.kind, problem.file) for problem in problems] == [("bad-label", f"{BASE}/SegmentationClass/f_0.png")]
    Image.new("L", (64, 48), 30).save(path)
    assert [problem.kind for problem in check_dataset(DataSection(dir=str(voc)), seed=0).problems] == ["value-outside"]
