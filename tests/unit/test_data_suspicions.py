"""What looks odd across samples: look-alikes in two splits, rare classes, frames on their side; and the sheet to look at."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_tools import HW, frame, painted, save, write_coco
from PIL import Image
from typer.testing import CliRunner

from edgeseg.cli.main import app
from edgeseg.core.config import DataSection
from edgeseg.data.base import Problem, default_palette
from edgeseg.data.check import DataReport, check_dataset
from edgeseg.data.sheet import overlay, write_sheet
from edgeseg.data.suspicions import MAX_BITS, difference_hash, imbalance, thumbnail


def smooth(seed: int, hw: tuple[int, int] = HW) -> np.ndarray[Any, Any]:
    """A picture with little noise, as photographs are."""
    rng = np.random.default_rng(seed)
    return np.asarray(Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(hw[::-1], Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, numbers in (("train", range(8)), ("val", range(8, 10)), ("test", range(10, 12))):
        for number in numbers:
            save(tmp_path / f"images/{split}/{number}.png", smooth(number))
            save(tmp_path / f"masks/{split}/{number}.png", painted(number % 6))
    return tmp_path


def check(root: Path) -> DataReport:
    return check_dataset(DataSection(dir=str(root)), seed=0)


def told(report: DataReport, kind: str) -> list[Problem]:
    return [warning for warning in report.warnings if warning.kind == kind]


def saved_again(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Darker, smaller and through JPEG."""
    image = Image.fromarray((array * 0.8).astype(np.uint8)).resize((56, 42))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=70)
    return np.asarray(Image.open(stream))


def test_look_alikes_in_two_splits_are_found(folder: Path) -> None:
    assert not told(check(folder), "near-duplicate")
    save(folder / "images/val/8.png", saved_again(smooth(3)))
    save(folder / "masks/val/8.png", painted(2, (42, 56)))
    report = check(folder)
    assert report.ok
    (warning,) = told(report, "near-duplicate")
    assert "1 of 2 frames of val look nearly the same as one of train (images/val/8.png and images/train/3.png)" in warning.message


def test_flat_frames_are_no_look_alikes(folder: Path) -> None:
    for split, number, value in (("train", 0, 90), ("val", 8, 95)):
        noise = np.random.default_rng(number).integers(0, 2, (*HW, 3), dtype=np.uint8)
        save(folder / f"images/{split}/{number}.png", noise + np.uint8(value))
    assert not told(check(folder), "near-duplicate")


def test_the_hash_follows_the_picture_and_not_its_brightness() -> None:
    hashes = [difference_hash(thumbnail(smooth(seed))) for seed in range(6)]
    assert hashes[0].shape == (256,)
    assert all((a != b).sum() > 2 * MAX_BITS for i, a in enumerate(hashes) for b in hashes[:i])
    assert (hashes[2] != difference_hash(thumbnail(saved_again(smooth(2))))).sum() <= MAX_BITS
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None], (48, 64, 3))
    assert difference_hash(thumbnail(ramp)).all()


def test_rare_classes_are_one_warning() -> None:
    counts = np.zeros((4, 256), dtype=np.int64)
    counts[:, 0] = 100_000
    counts[1, 1], counts[:, 2], counts[:, 255] = 300, 5_000, 10**9
    (warning,) = imbalance({"train": counts, "val": counts}, ("soil", "weed", "crop", "stone"))
    assert warning.message.startswith("1 of 4 classes have less than 0.1% of train's pixels (weed 0.071% in 1 frame; soil has 95.")
    assert imbalance({"val": counts}, ("soil", "weed", "crop")) == []


def test_a_frame_on_its_side(folder: Path) -> None:
    assert not told(check(folder), "orientation")
    save(folder / "images/train/1.png", smooth(1, HW[::-1]))
    save(folder / "masks/train/1.png", painted(1).T.copy())
    (warning,) = told(check(folder), "orientation")
    assert warning.file == "images/train/1.png"
    assert "48x64, where 11 of 12 frames are 64x48" in warning.message


def test_sheet(folder: Path, tmp_path: Path) -> None:
    (folder / "masks/train/2.png").write_bytes(b"")
    target = tmp_path / "sheet" / "look.png"
    assert write_sheet(target, DataSection(dir=str(folder)), seed=0) == 12
    with Image.open(target) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels.shape == (2 * 194 + 14 + 14, 6 * 240, 3)
    tile = pixels[:180, :240].astype(int)
    blended = (np.asarray(Image.fromarray(smooth(0)).resize((240, 180), Image.Resampling.BOX)) + np.array(default_palette(3)[1])) // 2
    assert np.abs(tile[60, 60] - blended[60, 60]).max() <= 2
    unreadable = pixels[:180, 480:720].astype(int)
    assert (unreadable[:, :, 0] - unreadable[:, :, 1] > 100).any(), "no red words where the mask cannot be read"
    assert (unreadable == 255).all(axis=2).mean() > 0.8


def test_overlay_keeps_the_background_and_stripes_what_is_ignored() -> None:
    picture, label = frame(0), painted(0)
    label[:10] = 255
    mixed = overlay(picture, label, default_palette(3))
    np.testing.assert_array_equal(mixed[label == 0], picture[label == 0])
    white = (mixed[:10] == 255).all(axis=2)
    assert 0.4 < white.mean() < 0.6


def test_commands_say_the_layout_aloud(tmp_path: Path) -> None:
    write_coco(tmp_path / "data")
    runner = CliRunner()
    result = runner.invoke(app, ["data", "check", str(tmp_path / "data"), "--sheet", str(tmp_path / "sheet.png")])
    assert result.exit_code == 0, result.output
    assert "coco layout, annotation files annotations/instances_train2017.json" in result.output
    assert "train: 3 frames, 6 objects" in result.output
    assert (tmp_path / "sheet.png").is_file()
    config = tmp_path / "edgeseg.toml"
    result = runner.invoke(app, ["init", "--data", str(tmp_path / "data"), "--out", str(config), "--layout", "coco",
                                 "--set", 'data.classes=["stone"]'])
    assert result.exit_code == 0, result.output
    assert "classes: background, stone" in result.output
    text = config.read_text(encoding="utf-8")
    assert 'layout = "coco"' in text
    assert 'classes = ["stone"]' in text


@pytest.mark.parametrize(("arguments", "said"), [
    (["--layout", "cocoo"], "did you mean 'coco'"),
    (["--layout", "voc"], "that is not the layout voc"),
    (["--set", "train.epochs=3"], "init takes --set of [data] and [model] only"),
])
def test_what_init_refuses(tmp_path: Path, arguments: list[str], said: str) -> None:
    write_coco(tmp_path / "data")
    result = CliRunner().invoke(app, ["init", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "e.toml"), *arguments])
    assert result.exception is not None
    assert said in str(result.exception) + result.output
    assert not (tmp_path / "e.toml").exists()
    shutil.rmtree(tmp_path / "data")


def test_init_writes_no_config_where_no_frame_can_be_used(tmp_path: Path) -> None:
    write_coco(tmp_path / "data")
    for path in (tmp_path / "data/annotations").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    result = CliRunner().invoke(app, ["init", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "e.toml")])
    assert "no labelled frame can be used; annotations/instances_train2017.json: not a COCO annotation file" in str(result.exception)
    assert not (tmp_path / "e.toml").exists()
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "data")])
    assert result.exit_code == 65
    assert "3 problems found" in result.output


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_file_cut_in_half_is_one_problem_and_no_other_follows_from_it(tmp_path: Path, split: str) -> None:
    write_coco(tmp_path / "data")
    path = tmp_path / f"data/annotations/instances_{split}2017.json"
    path.write_bytes(path.read_bytes()[:200])
    report = check_dataset(DataSection(dir=str(tmp_path / "data")), seed=0)
    assert [problem.kind for problem in report.problems] == ["bad-index"]
    assert not report.warnings
    assert report.classes == ("background", "leaf", "stone")
