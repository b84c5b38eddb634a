"""`data check` names every bad file and why, all in one report; `init` says what is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.core.config import DataSection
from edgeseg.core.errors import DataError, InputMissingError
from edgeseg.data.base import counted
from edgeseg.data.check import DataReport, check_dataset
from edgeseg.data.dataset import load_dataset
from edgeseg.data.inspect import inspect_folder
from edgeseg.data.synthetic import write_field


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "field"
    write_field(root, seed=0, counts={"train": 4, "val": 2, "test": 2}, size_hw=(48, 64))
    return root


@pytest.fixture
def field(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "field"))


def check(root: Path, **changes: object) -> DataReport:
    return check_dataset(DataSection(dir=str(root), **changes), seed=0)  # type: ignore[arg-type]


def kinds(report: DataReport) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.file) for problem in report.problems)


def save_mask(path: Path, values: object, hw: tuple[int, int] = (48, 64)) -> None:
    Image.fromarray(np.broadcast_to(np.asarray(values, dtype=np.uint8), hw).copy()).save(path)


def test_a_sound_folder_has_no_problem(clean: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = check_dataset(DataSection(dir=str(clean)), seed=0, progress=lambda done, total: calls.append((done, total)))
    assert report.ok
    assert (report.problems, report.num_frames, report.frame_sizes) == ((), {"train": 4, "val": 2, "test": 2}, {"64x48": 8})
    assert all(sum(share) == pytest.approx(1) for share in report.class_share.values())
    assert report.classes == ("soil", "crop", "weed")
    assert calls[-1] == (8, 8)
    assert json.loads(json.dumps(report.to_json()))["ok"] is True


def test_everything_that_is_wrong_is_in_one_report(field: Path) -> None:
    images, masks = field / "images/train", field / "masks/train"
    (images / "0000.png").write_bytes((images / "0000.png").read_bytes()[:999])
    save_mask(masks / "0001.png", 0, (64, 48))
    save_mask(masks / "0002.png", np.where(np.arange(64) < 2, 9, np.arange(64) % 3))
    (masks / "0003.png").unlink()
    Image.new("RGB", (64, 48), (255, 0, 0)).save(field / "masks/val/0000.png")
    shutil.copy(images / "0002.png", field / "images/val/0001.png")
    shutil.copy(field / "images/test/0000.png", field / "images/test/0000.bmp")
    (field / "masks/test/0007.png").write_bytes(b"")
    save_mask(field / "masks/test/0001.png", [[1]])
    report = check(field)
    assert kinds(report) == [
        ("colour-mask", "masks/val/0000.png"),
        ("missing-image", "masks/test/0007.png"),
        ("missing-label", "images/train/0003.png"),
        ("same-image", "images/val/0001.png"),
        ("same-stem", "images/test/0000.png"),
        ("size-mismatch", "masks/train/0001.png"),
        ("unreadable", "images/train/0000.png"),
        ("value-outside", "masks/train/0002.png"),
    ]
    said = {problem.kind: problem.message for problem in report.problems}
    assert "9 (96 pixels)" in said["value-outside"]
    assert "mask is 48x64, its image 64x48" in said["size-mismatch"]
    assert "swapped" in said["size-mismatch"]
    assert "in train and in val" in said["same-image"]
    assert "it has 1 colour: #ff0000; where they mean classes, name them all in [data] palette" in said["colour-mask"]
    assert "truncated" in said["unreadable"]


def test_empty_and_foreign_files_say_so(field: Path) -> None:
    (field / "images/train/0000.png").write_bytes(b"")
    (field / "images/train/0001.png").write_text("<html>", encoding="utf-8")
    (field / "images/train/notes.txt").write_text("x", encoding="utf-8")
    (field / "images/extra").mkdir()
    report = check(field)
    assert [p.file for p in report.problems] == ["images/train/0000.png", "images/train/0001.png"]
    assert ["0 bytes" in p.message for p in report.problems] == [True, False]
    assert {w.file for w in report.warnings if w.kind == "not-read"} == {"images/train/notes.txt", "images/extra"}


def test_mask_of_0_and_255_is_no_class_index(field: Path) -> None:
    for path in field.glob("masks/*/*.png"):
        save_mask(path, np.where(np.arange(64) < 20, 255, 0))
    (problem,) = check(field).problems  # three classes are named: not black and white
    assert problem.kind == "binary-mask"
    assert "save the object as 1" in problem.message
    (field / "dataset.json").unlink()
    assert [problem.kind for problem in check(field, masks="index").problems] == ["binary-mask"]
    assert check(field).ok


def test_one_class_only(field: Path) -> None:
    for path in field.glob("masks/*/*.png"):
        save_mask(path, 1)
    assert [problem.kind for problem in check(field).problems] == ["one-class"]


def test_class_absent_stops_in_train_and_warns_elsewhere(field: Path) -> None:
    for path in field.glob("masks/val/*.png"):
        save_mask(path, np.arange(64) % 2)
    report = check(field)
    assert report.ok
    assert [(w.kind, w.file) for w in report.warnings] == [("class-absent", "masks/val")]
    assert "weed" in report.warnings[0].message
    assert report.class_share["val"][2] == 0
    for path in field.glob("masks/train/*.png"):
        save_mask(path, np.arange(64) % 2)
    assert kinds(check(field)) == [("class-absent", "masks/train")]


def test_values_without_names_need_no_gaps(field: Path) -> None:
    (field / "dataset.json").unlink()
    assert check(field).classes == ("class_0", "class_1", "class_2")
    save_mask(field / "masks/train/0000.png", 128)
    assert [problem.kind for problem in check(field).problems] == ["class-gaps"]
    assert kinds(check(field, classes=("a", "b", "c"))) == [("value-outside", "masks/train/0000.png")]


def test_wrong_number_of_names(field: Path) -> None:
    (field / "dataset.json").unlink()  # else they would be a choice among its names
    assert {problem.kind for problem in check(field, classes=("soil", "plant")).problems} == {"value-outside"}
    assert kinds(check(field, classes=("soil", "crop", "weed", "stone"))) == [("class-absent", "masks/train")]


def turn(path: Path, orientation: int, *, stored_hw: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    rng = np.random.default_rng(orientation)
    Image.fromarray(rng.integers(0, 255, (*stored_hw, 3), dtype=np.uint8)).save(path, exif=exif)


def test_exif_orientation(field: Path) -> None:
    images = field / "images/train"
    turn(images / "0000.png", 6, stored_hw=(64, 48))  # upright 48x64: fits its mask
    turn(images / "0001.png", 8, stored_hw=(48, 64))  # upright 64x48: the mask was drawn on the stored pixels
    turn(images / "0002.png", 3, stored_hw=(48, 64))  # upside down: sizes cannot tell
    report = check(field)
    assert kinds(report) == [("size-mismatch", "masks/train/0001.png")]
    assert "EXIF orientation: image 8, mask 1" in report.problems[0].message
    assert [(w.kind, w.file) for w in report.warnings] == [("exif-orientation", "masks/train/0002.png")]


def test_duplicate_within_a_split_only_warns(field: Path) -> None:
    image = Image.open(field / "images/train/0000.png")
    image.save(field / "images/train/0001.png", compress_level=9)  # other bytes, same pixels
    report = check(field)
    assert report.ok
    assert [(w.kind, w.file) for w in report.warnings] == [("duplicate", "images/train/0001.png")]


def test_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError):
        check(tmp_path)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    assert [problem.kind for problem in check(tmp_path).problems] == ["empty"]


def test_missing_partner_with_a_similar_name_is_pointed_at(field: Path) -> None:
    (field / "masks/train/0000.png").rename(field / "masks/train/0000_mask.png")
    messages = [problem.message for problem in check(field).problems]
    assert any("0000_mask.png may be meant" in message for message in messages)


def test_inspect_suggests_a_section(field: Path) -> None:
    found = inspect_folder(field)
    assert (found.section.size, found.section.resize, found.section.classes) == ((48, 64), "stretch", ())
    assert found.warnings == ("only 4 training frames; expect a weak network",)
    assert (found.classes_named, found.values_seen, found.num_frames["train"]) == (True, (0, 1, 2), 4)
    (field / "dataset.json").unlink()
    shutil.rmtree(field / "images/test")
    shutil.rmtree(field / "masks/test")
    found = inspect_folder(field)
    assert found.section.classes == ("class_0", "class_1", "class_2")
    assert found.section.eval_split == "val"
    assert any("names the classes" in warning for warning in found.warnings)


@pytest.mark.parametrize(("hw", "size"), [
    ((966, 1296), (376, 512)), ((360, 480), (360, 480)), ((1000, 1001), (504, 512)), ((20, 20), (32, 32)),
])
def test_suggested_size(tmp_path: Path, hw: tuple[int, int], size: tuple[int, int]) -> None:
    for i in range(3):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
        Image.fromarray(np.full((*hw, 3), i, dtype=np.uint8)).save(tmp_path / f"images/{i}.png")
        save_mask(tmp_path / f"masks/{i}.png", np.arange(hw[1]) % 2, hw)
    assert inspect_folder(tmp_path).section.size == size


def test_inspect_says_what_is_wrong_with_masks(field: Path) -> None:
    for path in field.glob("masks/*/*.png"):
        save_mask(path, np.where(np.arange(64) < 20, 255, 0))
    found = inspect_folder(field)
    assert any("save the object as 1" in warning for warning in found.warnings)
    assert found.section.classes == ()
    (field / "dataset.json").unlink()
    found = inspect_folder(field)
    assert found.classes == ("background", "object")
    assert any("cut at the middle" in note for note in found.notes)


@pytest.mark.parametrize(("count", "noun", "said"), [(0, "frame", "0 frames"), (1, "frame", "1 frame"), (2, "class", "2 classes")])
def test_one_is_no_plural(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said


def test_a_test_split_alone_can_be_verified_on(field: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(field / "images" / split)
        shutil.rmtree(field / "masks" / split)
    report = check(field)
    assert report.ok
    assert [(w.kind, w.message) for w in report.warnings if w.kind == "no-split"] == [
        ("no-split", f"no {split} frames: enough for edgeseg verify, not for training") for split in ("train", "val")
    ]
    assert set(load_dataset(DataSection(dir=str(field)), seed=0, need=("test",)).splits) == {"test"}
    with pytest.raises(DataError, match="no train frames"):
        load_dataset(DataSection(dir=str(field)), seed=0)
