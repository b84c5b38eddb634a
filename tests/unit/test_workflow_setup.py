"""`edgeseg init`: what it writes runs, and it never points to a run that cannot start."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from layout_tools import write_coco
from typer.testing import CliRunner

from edgeseg.cli.main import app
from edgeseg.core.config import load_config
from edgeseg.data.base import Problem
from edgeseg.data.check import DataReport
from edgeseg.data.synthetic import write_field
from edgeseg.workflow.setup import data_report_lines


def init(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """Exit code, and what was printed or raised."""
    result = CliRunner().invoke(app, ["init", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "e.toml"), *arguments])
    return result.exit_code, result.output + str(result.exception or "")


def test_objects_get_goals_that_their_network_accepts(tmp_path: Path) -> None:
    write_coco(tmp_path / "data")
    code, said = init(tmp_path, "--set", "model.name=mask_rcnn", "--set", "model.encoder=resnet18")
    assert code == 0, said
    assert "next: edgeseg run" in said
    config = load_config(tmp_path / "e.toml")
    assert (config.model.name, config.model.encoder) == ("mask_rcnn", "resnet18")
    assert (config.goals.ap_drop, config.goals.miou_drop) == (0.01, None)


def test_objects_that_are_told_apart_are_mentioned(tmp_path: Path) -> None:
    write_coco(tmp_path / "data")
    code, said = init(tmp_path)
    assert code == 0
    assert "--set model.name=mask_rcnn" in said
    assert load_config(tmp_path / "e.toml").goals.miou_drop == 0.01


def test_a_network_of_objects_is_refused_for_class_maps(tmp_path: Path) -> None:
    write_field(tmp_path / "data", seed=0, counts={"train": 2, "val": 1, "test": 1}, size_hw=(48, 64))
    code, said = init(tmp_path, "--set", "model.name=mask_rcnn")
    assert code != 0
    assert "do not tell them apart" in said
    assert not (tmp_path / "e.toml").exists()
    assert "mask_rcnn" not in init(tmp_path)[1]


def test_an_encoder_that_needs_larger_frames_says_so_before_a_config_is_written(tmp_path: Path) -> None:
    write_coco(tmp_path / "data")
    assert "set data.size = [80, 80]" in init(tmp_path, "--set", "model.name=unet", "--set", "model.encoder=inception_v3")[1]
    assert not (tmp_path / "e.toml").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_data_to_be_mended_point_to_the_check_and_not_to_a_run(tmp_path: Path, split: str) -> None:
    write_coco(tmp_path / "data")
    path = tmp_path / f"data/annotations/instances_{split}2017.json"
    path.write_bytes(path.read_bytes()[:200])
    code, said = init(tmp_path, "--layout", "coco")
    assert code == 65
    assert "edgeseg run" not in said
    assert f"edgeseg data check {tmp_path / 'data'} --set data.layout=coco" in said
    assert (tmp_path / "e.toml").exists()


def test_the_check_tells_classes_that_are_rare_from_those_that_are_absent(tmp_path: Path) -> None:
    names = ("soil", "crop", "weed", *(f"kind {number}" for number in range(9)))
    report = DataReport(
        root=tmp_path, name="a", layout="folder", split_rule="", classes=names, num_frames={"train": 3, "val": 1}, frame_sizes={},
        class_share={"train": (0.99996, 0.00004, 0.0, *[0.0] * 9), "val": (0.5, 0.0, 0.5, *[0.0] * 9), "test": (0.0,) * 12},
        class_frames={}, ignore_share={}, num_objects={}, notes=(), problems=(), warnings=(),
    )
    lines = data_report_lines(report)
    assert lines[:3] == [f"{tmp_path}: folder layout", "train: 3 frames", "val: 1 frame"]
    assert "  crop: train under 0.01%, val absent of the labelled pixels" in lines
    assert "  weed: train absent, val 50.00% of the labelled pixels" in lines  # test holds no labelled pixel
    assert "  nowhere: kind 0, kind 1, kind 2, kind 3, kind 4, kind 5, kind 6, kind 7 and 1 more" in lines
    gaps = Problem(file=".", kind="class-gaps", message="masks use the values 0, 128")
    assert not any("labelled pixels" in line for line in data_report_lines(replace(report, problems=(gaps,))))


def test_data_to_verify_on_are_not_sent_to_training(tmp_path: Path) -> None:
    write_field(tmp_path / "data", seed=0, counts={"train": 1, "val": 1, "test": 2}, size_hw=(48, 64))
    for kind in ("images", "masks"):
        for split in ("train", "val"):
            shutil.rmtree(tmp_path / "data" / kind / split)
    code, said = init(tmp_path)
    assert code == 0, said
    assert "enough to verify a bundle with" in said
    assert "edgeseg run" not in said
