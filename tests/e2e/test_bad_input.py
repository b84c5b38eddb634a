"""Bad input, each with one clear line, the right exit code, and nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from chain_tools import edgeseg, one_line_error, write_tiny_project
from PIL import Image
from tiny_models import tiny_bundle

from edgeseg.core.bundle import Bundle


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_tiny_project(tmp_path)
    return tmp_path


def _first(folder: Path) -> Path:
    return sorted(folder.iterdir())[0]


def _truncate(project: Path) -> None:
    path = _first(project / "data/images/train")
    with Image.open(path) as image:
        image.convert("RGB").save(path.with_suffix(".jpg"), quality=95)
    path.unlink()
    data = path.with_suffix(".jpg").read_bytes()
    path.with_suffix(".jpg").write_bytes(data[: len(data) // 2])


def _edit_mask(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def edit(project: Path) -> None:
        path = _first(project / "data/masks/train")
        with Image.open(path) as image:
            mask = np.array(image)
        Image.fromarray(change(mask)).save(path)

    return edit


def _one_class(project: Path) -> None:
    for path in (project / "data/masks").rglob("*.png"):
        with Image.open(path) as image:
            empty = np.zeros((image.height, image.width), np.uint8)
        Image.fromarray(empty).save(path)


def _outside(mask: np.ndarray) -> np.ndarray:
    mask[:2, :3] = 9
    return mask


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (lambda p: (shutil.rmtree(p / "data"), (p / "data").mkdir()), 66, "expected images/ and masks/"),
        (lambda p: shutil.rmtree(p / "data"), 66, "is not a folder"),
        (_truncate, 65, "not a readable image"),
        (_edit_mask(lambda m: np.ascontiguousarray(m[:, :-3])), 65, "mask is 93x64, its image 96x64"),
        (_edit_mask(_outside), 65, "9 (6 pixels)"),
        (_edit_mask(lambda m: np.repeat(m[:, :, None], 3, 2)), 65, "colour mask"),
        (_one_class, 65, "class"),
        (lambda p: _first(p / "data/masks/val").unlink(), 65, "mask"),
        (lambda p: (p / "edgeseg.toml").write_text('[data]\ndir = "data"\n[train]\nepoch = 3'), 2, "did you mean 'epochs'"),
        (lambda p: (p / "edgeseg.toml").unlink(), 66, "edgeseg init --data DIR"),
        (lambda p: (p / "edgeseg.toml").write_text('targets = ["jetson"]\n[data]\ndir = "data"'), 2, "jetson-orin-nano"),
        (lambda p: (p / "edgeseg.toml").write_text('name = "../x"\n[data]\ndir = "data"'), 2, "start with a letter or digit"),
        (
            lambda p: (p / "edgeseg.toml").write_text('targets = ["intel-cpu"]\n[data]\ndir = "data"\n[export]\nformats = ["tflite"]'),
            2,
            "intel-cpu runs openvino",
        ),
        (
            lambda p: (p / "edgeseg.toml").write_text(
                '[data]\ndir = "data"\n[model]\nname = "mask_rcnn"\n[export]\nformats = ["onnx", "tensorrt"]'
            ),
            2,
            "for objects choose format onnx",
        ),
        (lambda p: (p / "edgeseg.toml").write_text('[data]\ndir = "data"\n[model]\nname = "fast_snn"'), 2, "did you mean 'fast_scnn'"),
        (lambda p: (p / "edgeseg.toml").write_text('[data]\ndir = "data"\n[train]\ndevice = "cuda"'), 2, "CUDA"),
    ],
    ids=[
        "empty-folder",
        "no-folder",
        "truncated-jpeg",
        "mask-size",
        "mask-values",
        "colour-mask",
        "one-class",
        "missing-mask",
        "unknown-key",
        "no-config",
        "unknown-target",
        "bad-name",
        "no-format-for-target",
        "format-not-for-objects",
        "unknown-network",
        "no-cuda",
    ],
)
def test_before_training(project: Path, damage: Callable[[Path], object], code: int, words: str) -> None:
    damage(project)
    line = one_line_error(edgeseg("run", cwd=project), code)
    assert words in line
    assert not list(project.glob("runs/*/checkpoints/*"))
    assert not list(project.rglob(".*.tmp"))


def test_data_check_names_every_bad_file_at_once(project: Path) -> None:
    _truncate(project)
    _edit_mask(_outside)(project)  # the same sample: its mask is wrong as well
    _first(project / "data/masks/val").unlink()
    done = edgeseg("data", "check", "data", "--json", cwd=project)
    assert done.returncode == 65
    kinds = {problem["kind"] for problem in json.loads(done.stdout)["problems"]}
    assert len(kinds) >= 3
    plain = edgeseg("data", "check", "data", cwd=project)
    assert plain.returncode == 65
    assert "problems found" in plain.stdout


def test_init_looks_and_writes_a_config_that_runs(project: Path) -> None:
    (project / "edgeseg.toml").unlink()
    done = edgeseg("init", "--data", "data", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "train 16, val 4, test 5" in done.stdout
    assert "soil, crop, weed" in done.stdout
    from edgeseg.core.config import load_config

    config = load_config(project / "edgeseg.toml")
    assert config.data.size == (64, 96)
    before = (project / "edgeseg.toml").read_text()
    assert "--force" in one_line_error(edgeseg("init", "--data", "data", cwd=project), 2)
    assert (project / "edgeseg.toml").read_text() == before
    assert "calibration_frames = 128" in edgeseg("init", "--all", cwd=project).stdout


@pytest.mark.parametrize("format_", ["onnx", "openvino", "tflite"])
def test_damaged_bundles(tmp_path: Path, format_: str) -> None:
    bundle = tiny_bundle(tmp_path, format_)
    bundle.folder.rename(tmp_path / "b")
    bundle = Bundle(tmp_path / "b", bundle.manifest)
    model = bundle.model_path if format_ != "openvino" else bundle.model_path.with_suffix(".bin")
    assert edgeseg("verify", "b", cwd=tmp_path).returncode == 0
    whole = model.read_bytes()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    model.write_bytes(bytes(changed))
    assert "was changed" in one_line_error(edgeseg("verify", "b", cwd=tmp_path), 11)
    model.write_bytes(whole[: len(whole) // 2])
    for verb in (("verify", "b"), ("bench", "b", "--quick"), ("predict", "b", "b/golden", "--out", "out")):
        line = one_line_error(edgeseg(*verb, cwd=tmp_path), 11)
        assert f"has {len(whole) // 2} bytes" in line
    assert not (tmp_path / "out").exists()
    assert "does not exist" in one_line_error(edgeseg("verify", "nix", cwd=tmp_path), 66)


def test_usage_errors_are_one_line(tmp_path: Path) -> None:
    assert "Did you mean 'train'?" in one_line_error(edgeseg("tran", cwd=tmp_path), 2)
    assert "Missing argument" in one_line_error(edgeseg("verify", cwd=tmp_path), 2)
    assert "--nix" in one_line_error(edgeseg("run", "--nix", cwd=tmp_path), 2)
    (tmp_path / "edgeseg.toml").write_text("")
    assert "KEY=VALUE" in one_line_error(edgeseg("run", "--set", "epochs", cwd=tmp_path), 2)


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    """A small tmpfs on `folder`: a disk that fills up or is read-only, for real."""
    folder.mkdir(exist_ok=True)
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False).returncode
    ):
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_disk_full(project: Path) -> None:
    with _mounted(project / "runs", "size=1500k"):
        line = one_line_error(edgeseg("run", cwd=project), 74)
        assert "disk full" in line
        assert not list((project / "runs").rglob(".*.tmp"))
        assert not list((project / "runs").rglob("manifest.json"))


def test_read_only_place(project: Path) -> None:
    with _mounted(project / "runs", "size=1500k,ro"):
        assert "no permission" in one_line_error(edgeseg("run", cwd=project), 77)


def test_reader_that_goes_away_is_no_crash(tmp_path: Path) -> None:
    import sys

    shell = f"{sys.executable} -m edgeseg.cli.main init --all | head -1"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
