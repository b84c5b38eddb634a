"""`kill -9` at any moment, Ctrl-C, SIGTERM: the same command goes on, and the end is the same as without."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from chain_tools import TINY_HEAD, command, edgeseg, lasting, one_line_error, read_rows, write_tiny_project
from waiting_tools import comes_true

KILLS = 10
CONFIG = TINY_HEAD + """
[model]
width = 0.5

[train]
epochs = 12
batch_size = 4
eval_every = 2
warmup_epochs = 1

[prune]
macs_share = 0.7
epochs = 4

[export]
formats = ["onnx", "openvino"]

[quantize]
calibration_frames = 8

[bench]
quick = true
"""


def _state(run: Path) -> dict[str, Any]:
    """All that must not depend on interruptions: results, weights, bundles with the hash of every file."""
    return {
        "rows": lasting(read_rows(run)),
        "checkpoints": {
            p.parent.name: json.loads(p.read_text())["weights_sha256"] for p in sorted(run.glob("checkpoints/*/checkpoint.json"))
        },
        "manifests": {p.parent.name: json.loads(p.read_text()) for p in sorted(run.glob("bundles/*/manifest.json"))},
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_tiny_project(folder, config=CONFIG)
    started = time.monotonic()
    done = edgeseg("run", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return _state(folder / "runs" / "tiny"), time.monotonic() - started


def test_kill_9_at_random_moments_changes_nothing(undisturbed: tuple[dict[str, Any], float], tmp_path: Path) -> None:
    expected, seconds = undisturbed
    write_tiny_project(tmp_path, config=CONFIG)
    moments = random.Random(0)
    killed = 0
    while killed < KILLS:
        with subprocess.Popen(
            command("run"), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                process.wait(timeout=moments.uniform(0.3, 0.45 * seconds))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
                continue
        # It went through before the next kill (the machine was busier when its time was taken): once more from the start, killed sooner.
        shutil.rmtree(tmp_path / "runs")
        seconds /= 2
    done = edgeseg("run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs" / "tiny"
    assert _state(run) == expected
    left = [p for pattern in (".*.tmp", ".*.old") for p in run.rglob(pattern)]
    assert left == []


@pytest.mark.parametrize(("number", "code", "words"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped by a signal")])
def test_signal_ends_with_one_line_and_can_be_resumed(tmp_path: Path, number: signal.Signals, code: int, words: str) -> None:
    write_tiny_project(tmp_path, config=CONFIG.replace("epochs = 12", "epochs = 400"))
    # A test run put into the background hands an ignored SIGINT down; a person's terminal does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command("train"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        wait_for_an_epoch(tmp_path, process)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=300)
    done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
    assert words in (line := one_line_error(done, code))
    assert "with --resume to go on" in line
    assert not list((tmp_path / "runs").rglob(".*.tmp"))
    refused = edgeseg("train", cwd=tmp_path)
    assert "add --resume to go on, or --restart to begin again" in one_line_error(refused, 71)


def wait_for_an_epoch(folder: Path, process: subprocess.Popen[Any]) -> None:
    assert comes_true(lambda: any(folder.glob("runs/tiny/work/train-*/last")) or process.poll() is not None, every_s=0.002)
    assert process.poll() is None


def kill_after_an_epoch(folder: Path) -> None:
    with subprocess.Popen(command("train"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for_an_epoch(folder, process)
        process.kill()


def test_resumed_training_is_bit_equal(tmp_path: Path) -> None:
    hashes = []
    for name, interrupt in (("plain", False), ("killed", True)):
        folder = tmp_path / name
        folder.mkdir()
        write_tiny_project(folder, config=CONFIG)
        if interrupt:
            kill_after_an_epoch(folder)
        done = edgeseg("train", "--resume", "--json", cwd=folder)
        assert done.returncode == 0, done.stderr[-2000:]
        hashes.append(json.loads((folder / "runs/tiny/checkpoints/trained/checkpoint.json").read_text())["weights_sha256"])
    assert hashes[0] == hashes[1]
