"""`edgeseg predict` is stopped by a signal: what was written is whole, and the exit code says what happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_models import tiny_bundle, tiny_frame

from edgeseg.core.images import read_class_map, write_frame
from targets.sources import open_source


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle", "onnx").folder


def start(bundle: Path, source: str, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgeseg.cli.main", "predict", str(bundle), source, "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop_after(process: subprocess.Popen[str], out: Path, masks: int, number: int) -> tuple[int, str, str]:
    end = time.monotonic() + 120
    while len(list((out / "masks").glob("*.png"))) < masks:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


def test_ctrl_c_over_a_folder(bundle: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for i in range(9000):  # many seconds of work
        if i < 4:
            write_frame(source / f"{i:04}.png", tiny_frame(i, height=48, width=64))
        else:
            (source / f"{i:04}.png").symlink_to(source / f"{i % 4:04}.png")
    code, stdout, stderr = stop_after(start(bundle, str(source), out, "--no-overlay", "--json"), out, 5, signal.SIGINT)
    assert code == 130, stderr
    assert stderr.strip().splitlines()[-1] == "edgeseg: interrupted; type the same command with --force to do it again"
    said = json.loads(stdout)
    assert said["stopped"] is True
    masks = sorted(path for path in out.rglob("*") if path.is_file())
    assert 5 <= len(masks) < 9000
    assert said["num_frames"] == len(masks)  # nothing half-written lies there
    assert [mask.name for mask in masks] == [f"{i:04}.png" for i in range(len(masks))]
    assert all(read_class_map(mask).shape == (48, 64) for mask in masks)


def test_a_service_manager_ends_a_video(bundle: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "long.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for i in range(3000):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(tiny_frame(i % 4, height=48, width=64), format="rgb24")))
        container.mux(stream.encode(None))
    out = tmp_path / "out"
    code, _, stderr = stop_after(start(bundle, str(tmp_path / "long.mp4"), out), out, 5, signal.SIGTERM)
    assert code == 143, stderr
    masks = list((out / "masks").iterdir())
    assert 5 <= len(masks) < 3000
    assert sum(1 for _ in open_source(out / "overlay.mp4")) == len(masks)
    assert sorted(path.name for path in out.iterdir()) == ["masks", "overlay.mp4"]


def test_files_drop_nothing(bundle: Path, tmp_path: Path) -> None:
    write_frame(tmp_path / "in" / "a.png", tiny_frame())
    process = start(bundle, str(tmp_path / "in"), tmp_path / "out", "--drop", "newest")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "of files every frame is answered" in stderr
