"""What masks of a folder may hold: colours, black and white, one file an object; and how folders may be nested."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_tools import HW, boxes_of, frame, painted, save
from PIL import Image, ImageFilter

from edgeseg.core.config import DataSection, config_of
from edgeseg.core.errors import ConfigError, DataError, InputMissingError
from edgeseg.data.base import Dataset
from edgeseg.data.check import check_dataset
from edgeseg.data.dataset import load_dataset
from edgeseg.data.folder import FolderLayout
from edgeseg.data.inspect import inspect_folder
from edgeseg.data.labels import looks_soft
from edgeseg.data.store import read_sample

COLOURS = np.array([(0, 0, 0), (200, 30, 0), (0, 99, 255)], dtype=np.uint8)
HEX = ("#000000", "#c81e00", "#0063FF")


def load(root: Path, **changes: Any) -> Dataset:
    return load_dataset(DataSection(dir=str(root), **changes), seed=0, need=())


def labels(data: Dataset) -> dict[str, np.ndarray[Any, Any]]:
    samples = [sample for group in data.splits.values() for sample in group]
    return {sample.id: read_sample(sample, num_classes=len(data.classes))[1] for sample in samples}


def index(root: Path, **content: object) -> None:
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    for number in range(6):
        save(tmp_path / f"images/{number}.png", frame(number))
        save(tmp_path / f"masks/{number}.png", COLOURS[painted(number)])
    return tmp_path


def test_colours_by_the_palette_of_the_index_file(colours: Path) -> None:
    index(colours, classes=["soil", "leaf", "stone"], palette=COLOURS.tolist())
    data = load(colours)
    for name, label in labels(data).items():
        np.testing.assert_array_equal(label, painted(int(name)))
    assert "masks are in colours, read by the palette of 3 classes" in data.notes
    assert check_dataset(DataSection(dir=str(colours)), seed=0).ok


def test_colours_by_the_config(colours: Path) -> None:
    data = load(colours, palette=HEX, classes=("soil", "leaf", "stone"))
    np.testing.assert_array_equal(labels(data)["3"], painted(3))
    assert data.palette == tuple(map(tuple, COLOURS.tolist()))
    assert load(colours, palette=HEX).classes == ("class_0", "class_1", "class_2")
    with pytest.raises(ConfigError, match="'red' is no colour; write #rrggbb"):
        load(colours, palette=("red", *HEX[1:]))
    with pytest.raises(ConfigError, match="palette has 3 colours for 2 classes"):
        load(colours, palette=HEX, classes=("soil", "leaf"))
    with pytest.raises(ConfigError, match="twice"):
        load(colours, palette=(*HEX[:2], HEX[0]))


def test_a_colour_to_ignore_and_one_nobody_knows(colours: Path) -> None:
    picture = COLOURS[painted(2)]
    picture[0] = (1, 2, 3)
    save(colours / "masks/2.png", picture)
    with pytest.raises(DataError, match=r"2\.png: 1 colour that no class has: #010203 \(64 pixels\)"):
        labels(load(colours, palette=HEX, classes=("soil", "leaf", "stone")))
    data = load(colours, palette=HEX, classes=("soil", "leaf", "stone"), ignore_colour="#010203")
    assert (labels(data)["2"][0] == 255).all()
    assert data.sha256 != load(colours, palette=HEX, classes=("soil", "leaf", "stone")).sha256


def test_colours_without_a_palette_are_refused(colours: Path) -> None:
    with pytest.raises(DataError, match="a colour mask"):
        load(colours)


def test_colours_without_a_palette_are_one_problem_that_says_what_to_type(colours: Path) -> None:
    (problem,) = check_dataset(DataSection(dir=str(colours)), seed=0).problems
    assert problem.kind == "colour-mask"
    assert problem.message.startswith("6 of 6 masks are in colours, and no palette says which class a colour means; name all 3 ")
    found = re.search(r"--set '(data\.palette=.*?)'", problem.message)
    assert found is not None
    assert check_dataset(replace(config_of([found[1]]).data, dir=str(colours)), seed=0).ok  # as it says
    assert problem.message in " ".join(inspect_folder(colours).warnings)


def test_photographs_in_place_of_masks_are_no_palette(colours: Path) -> None:
    for path in (colours / "masks").iterdir():
        save(path, frame(int(path.stem)))
    (problem,) = check_dataset(DataSection(dir=str(colours)), seed=0).problems
    assert "more than 255, which is no set of classes" in problem.message


def black_and_white(root: Path, suffix: str) -> None:
    for number in range(6):
        save(root / f"images/{number}.png", frame(number))
        path = root / f"masks/{number}{suffix}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((painted(number) > 0).astype(np.uint8) * 255).convert("RGB").save(path, quality=60)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_black_and_white_is_cut_at_the_middle(tmp_path: Path, suffix: str) -> None:
    black_and_white(tmp_path, suffix)
    data = load(tmp_path)
    assert data.classes == ("background", "object")
    (note,) = data.notes
    assert "up to 127 is class 0, from 128 class 1" in note
    assert ("6 of 6 are stored with loss" in note) == (suffix in (".jpg", ".webp"))
    for name, label in labels(data).items():
        wrong = np.count_nonzero(label != (painted(int(name)) > 0))
        assert wrong <= (30 if suffix in (".jpg", ".webp") else 0)  # of 3072
    report = check_dataset(DataSection(dir=str(tmp_path)), seed=0)
    assert report.ok
    assert not [warning for warning in report.warnings if warning.kind == "lossy-mask"]


def test_the_cut_is_between_127_and_128(tmp_path: Path) -> None:
    black_and_white(tmp_path, ".png")
    ramp = np.arange(64, dtype=np.uint8)[None].repeat(48, axis=0) + 96
    save(tmp_path / "masks/0.png", ramp)
    data = load(tmp_path, masks="binary")
    np.testing.assert_array_equal(labels(data)["0"], ramp >= 128)


def test_soft_edges_are_sent_to_the_option_that_cuts_them(tmp_path: Path) -> None:
    black_and_white(tmp_path, ".png")
    for path in (tmp_path / "masks").iterdir():
        with Image.open(path) as mask:
            mask.convert("L").filter(ImageFilter.GaussianBlur(1)).save(path)
    report = check_dataset(DataSection(dir=str(tmp_path)), seed=0)
    (problem,) = report.problems
    assert "soft edges: --set data.masks=binary cuts them at the middle" in problem.message
    assert not [warning for warning in report.warnings if warning.kind == "class-imbalance"]
    assert check_dataset(DataSection(dir=str(tmp_path), masks="binary"), seed=0).ok


@pytest.mark.parametrize("values", [range(34), [*range(34), 255], range(0, 255, 3), [0, 9, 130, 250]])
def test_classes_with_gaps_are_no_soft_edges(values: Sequence[int]) -> None:
    counts = np.zeros(256, dtype=np.int64)
    counts[list(values)] = 100
    assert not looks_soft(counts)


def test_a_mask_unlike_the_others_is_an_error_and_not_a_guess(tmp_path: Path) -> None:
    for number in range(40):
        save(tmp_path / f"images/{number:02}.png", frame(number))
        save(tmp_path / f"masks/{number:02}.png", (painted(number % 6) > 0).astype(np.uint8) * 255)
    strange = painted(0)
    save(tmp_path / "masks/01.png", strange)  # not among the 16 that are looked at
    data = load(tmp_path)
    with pytest.raises(DataError, match=r"01\.png: masks looked at first hold 0 and 255 only, this one has the value 1"):
        labels(data)
    assert [problem.file for problem in check_dataset(DataSection(dir=str(tmp_path)), seed=0).problems] == ["masks/01.png"]


def test_255_stays_ignore_where_there_are_classes(tmp_path: Path) -> None:
    for number in range(6):
        label = painted(number)
        label[0] = 255
        save(tmp_path / f"images/{number}.png", frame(number))
        save(tmp_path / f"masks/{number}.png", label)
    data = load(tmp_path)
    assert data.notes == ()
    assert (labels(data)["0"][0] == 255).all()


def objects(root: Path, number: int, *, at: str, kinds: bool = False) -> None:
    for k, (x0, y0, x1, y1, index) in enumerate(boxes_of(number)):
        mask = np.zeros(HW, dtype=np.uint8)
        mask[y0:y1, x0:x1] = 255 if k == 0 else 1
        folder = root / at / ("", "leaf", "stone")[index] if kinds else root / at
        save(folder / f"{k}.png", mask)


def test_one_file_an_object(tmp_path: Path) -> None:
    for split, number in (("train", 0), ("train", 1), ("val", 2)):
        save(tmp_path / f"images/{split}/f{number}.png", frame(number))
        objects(tmp_path, number, at=f"masks/{split}/f{number}")
    data = load(tmp_path)
    assert data.classes == ("background", "object")
    assert any("6 masks of one object each" in note for note in data.notes)
    np.testing.assert_array_equal(labels(data)["train/f1"], painted(1) > 0)
    sample = data.splits["train"][1]
    assert sample.read_instances is not None
    found = sample.read_instances()
    assert found.boxes_N4.tolist() == [list(row[:4]) for row in boxes_of(1)]
    report = check_dataset(DataSection(dir=str(tmp_path)), seed=0)
    assert report.ok
    assert report.num_objects == {"train": (0, 4), "val": (0, 2)}
    before = data.sha256
    objects(tmp_path, 3, at="masks/train/f1")
    assert load(tmp_path).sha256 != before


def test_folders_of_objects_name_classes(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"images/f{number}.png", frame(number))
        objects(tmp_path, number, at=f"masks/f{number}", kinds=True)
    data = load(tmp_path)
    assert data.classes == ("background", "leaf", "stone")
    for name, label in labels(data).items():
        np.testing.assert_array_equal(label, painted(int(name[1:])))
    assert load(tmp_path, classes=("stone",)).classes == ("background", "stone")
    index(tmp_path, classes=["soil", "stone", "leaf"])
    np.testing.assert_array_equal(labels(load(tmp_path))["f2"], np.array([0, 2, 1])[painted(2)])
    chosen = load(tmp_path, classes=("leaf",))
    assert chosen.classes == ("soil", "leaf")
    np.testing.assert_array_equal(labels(chosen)["f2"], painted(2) == 1)
    with pytest.raises(ConfigError, match="'soil' is what no mask covers and has to come first"):
        load(tmp_path, classes=("leaf", "soil"))
    index(tmp_path, classes=["soil", "stone"])
    with pytest.raises(DataError, match=r"dataset\.json: names no class 'leaf'"):
        load(tmp_path)


def test_a_folder_for_each_image(tmp_path: Path) -> None:
    root = tmp_path / "stage1"
    for number in range(5):
        save(root / f"{number}/images/{number}.png", frame(number))
        objects(root, number, at=f"{number}/masks")
    data = load(root)
    assert sorted(labels(data)) == ["0", "1", "2", "3", "4"]
    np.testing.assert_array_equal(labels(data)["4"], painted(4) > 0)
    for path in (root / "4/masks").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"^4: holds 1 image and 0 masks"):
        load(root)
    assert not FolderLayout().claims(tmp_path)
    with pytest.raises(InputMissingError, match="stage1 is one: give that folder"):
        load(tmp_path)


def test_splits_may_come_first(tmp_path: Path) -> None:
    for split, number in (("train", 0), ("train", 1), ("valid", 2), ("test", 3)):
        save(tmp_path / f"{split}/images/f{number}.png", frame(number))
        save(tmp_path / f"{split}/masks/f{number}.png", painted(number))
    data = load(tmp_path)
    assert {split: [sample.id for sample in samples] for split, samples in data.splits.items()} == {
        "train": ["train/f0", "train/f1"], "val": ["val/f2"], "test": ["test/f3"],
    }
    assert data.split_rule == "folders train, val, test"


def test_objects_of_different_sizes(tmp_path: Path) -> None:
    save(tmp_path / "images/f0.png", frame(0))
    objects(tmp_path, 0, at="masks/f0")
    save(tmp_path / "masks/f0/9.png", np.full((4, 4), 255, dtype=np.uint8))
    with pytest.raises(DataError, match=r"f0/9\.png: 4x4, the first mask of the same image is 64x48"):
        labels(load(tmp_path))


def test_masks_of_both_kinds(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / f"images/f{number}.png", frame(number))
    objects(tmp_path, 0, at="masks/f0")
    save(tmp_path / "masks/f1.png", painted(1))
    with pytest.raises(DataError, match=r"masks/f1\.png: one mask for the whole image, where others have one file an object"):
        load(tmp_path)


def test_a_folder_of_two_layouts_has_to_be_told(colours: Path) -> None:
    (colours / "annotations").mkdir()
    (colours / "annotations" / "instances.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"looks like the layouts folder and coco; choose one: --layout folder"):
        load(colours)
    assert load(colours, layout="folder", palette=HEX).layout == "folder"
    with pytest.raises(InputMissingError, match="that is not the layout voc"):
        load(colours, layout="voc")


# ------------------------------------------------------------------ [data] classes, where dataset.json names them

NAMES = ["soil", "crop", "weed"]


@pytest.fixture
def indices(tmp_path: Path) -> Path:
    for number in range(6):
        save(tmp_path / f"images/{number}.png", frame(number))
        save(tmp_path / f"masks/{number}.png", painted(number))
    index(tmp_path, classes=NAMES, palette=COLOURS.tolist())
    return tmp_path


@pytest.mark.parametrize("kind", ["index", "colours of dataset.json", "colours of the config"])
def test_classes_are_mapped_by_name(indices: Path, kind: str) -> None:
    if kind != "index":
        for number in range(6):
            save(indices / f"masks/{number}.png", COLOURS[painted(number)])
    other = {"palette": (HEX[0], HEX[2], HEX[1])} if kind == "colours of the config" else {}  # in the order of `classes`
    data = load(indices, classes=("soil", "weed", "crop"), **other)
    assert data.classes == ("soil", "weed", "crop")
    assert data.palette == tuple(tuple(COLOURS[i].tolist()) for i in (0, 2, 1))
    np.testing.assert_array_equal(labels(data)["3"], np.array([0, 2, 1], dtype=np.uint8)[painted(3)])
    assert data.sha256 != load(indices).sha256
    same = {"palette": HEX} if kind == "colours of the config" else {}
    np.testing.assert_array_equal(labels(load(indices, classes=tuple(NAMES), **same))["3"], painted(3))
    assert check_dataset(DataSection(dir=str(indices), classes=("soil", "weed", "crop"), **other), seed=0).ok


def test_the_classes_as_they_are_change_no_hash(indices: Path) -> None:
    assert load(indices, classes=tuple(NAMES)).sha256 == load(indices).sha256


def test_what_is_not_chosen_is_ignored_or_background(indices: Path) -> None:
    data = load(indices, classes=("soil", "weed"))
    assert data.classes == ("soil", "weed")
    assert "2 classes chosen; the rest of the data's (1) is ignored (255)" in data.notes
    np.testing.assert_array_equal(labels(data)["2"], np.array([0, 255, 1], dtype=np.uint8)[painted(2)])
    np.testing.assert_array_equal(
        labels(load(indices, classes=("background", "weed")))["2"], np.array([0, 0, 1], dtype=np.uint8)[painted(2)]
    )
    index(indices, classes=["background", "crop", "weed"])
    np.testing.assert_array_equal(labels(load(indices, classes=("weed",)))["2"], np.array([0, 0, 1], dtype=np.uint8)[painted(2)])


def test_a_class_that_dataset_json_does_not_name(indices: Path) -> None:
    with pytest.raises(ConfigError, match="the data has no class 'zzz'; the data has soil, crop, weed"):
        load(indices, classes=("soil", "weed", "zzz"))
    with pytest.raises(ConfigError, match="the data has no class 'wed'; did you mean 'weed'"):
        load(indices, classes=("soil", "crop", "wed"))


def test_a_value_outside_never_passes_for_a_chosen_class(indices: Path) -> None:
    label = painted(4)
    label[0, 0] = 3
    save(indices / "masks/4.png", label)
    with pytest.raises(DataError, match=r"4\.png: mask values 3 \(1 pixel\) are outside the classes 0\.\.2"):
        labels(load(indices, classes=("background", *NAMES)))


def test_black_and_white_by_name(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"images/{number}.png", frame(number))
        save(tmp_path / f"masks/{number}.png", np.where(painted(number) > 0, 255, 0).astype(np.uint8))
    index(tmp_path, classes=["soil", "plant"])
    swapped = load(tmp_path, classes=("plant", "soil"))
    assert swapped.classes == ("plant", "soil")
    np.testing.assert_array_equal(labels(swapped)["1"], (painted(1) == 0).astype(np.uint8))
    with pytest.raises(ConfigError, match="no class 'stone'"):
        load(tmp_path, classes=("soil", "stone"))
    (tmp_path / "dataset.json").unlink()
    assert load(tmp_path, classes=("soil", "stone")).classes == ("soil", "stone")


def test_objects_without_folders_by_name(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"images/{number}.png", frame(number))
        save(tmp_path / f"masks/{number}/1.png", np.where(painted(number) > 0, 255, 0).astype(np.uint8))
    index(tmp_path, classes=["soil", "plant"])
    assert load(tmp_path, classes=("soil", "plant")).classes == ("soil", "plant")
    with pytest.raises(ConfigError, match="no class 'stone'"):
        load(tmp_path, classes=("soil", "stone"))
