"""`edgeseg run` with a device: its target is verified and measured there, on a real sshd, and this machine never takes its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chain_tools import command, write_tiny_project
from sshd_tools import NEEDS_SSHD, Board, login

pytestmark = [NEEDS_SSHD, pytest.mark.slow]
CONFIG = """
name = "tiny"
targets = ["host", "raspberry-pi-5"]
[devices]
raspberry-pi-5 = "pi"
[data]
dir = "data"
size = [32, 48]
[model]
width = 0.25
[train]
epochs = 1
batch_size = 4
warmup_epochs = 0
[export]
formats = ["onnx"]
[quantize]
int8 = false
[bench]
quick = true
"""


@dataclass
class Project:
    folder: Path
    board: Board

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "HOME": str(self.folder / "host"), "EDGESEG_DEVICES": str(self.folder / "devices.toml")}
        environment.pop("SSH_AUTH_SOCK", None)
        return subprocess.Popen(command("run", *arguments), cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True)

    def rows(self, target: str) -> list[dict[str, Any]]:
        rows = json.loads((self.folder / "runs/tiny/results.json").read_text(encoding="utf-8"))
        return [row for row in rows if row["target"] == target]

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "runs/tiny/summary.json").read_text(encoding="utf-8"))
        return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    write_tiny_project(folder, config=CONFIG)
    (folder / "host/.ssh").mkdir(parents=True)
    (folder / "board-home").mkdir()
    board = Board(folder / "sshd")
    board.config = f"SetEnv HOME={folder}/board-home\n"
    board.start()
    (folder / "host/.ssh/known_hosts").write_text((board.folder / "known_hosts").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "devices.toml").write_text(
        f'[pi]\naddress = "ssh://{login()}@127.0.0.1:{board.port}"\npython = "{sys.executable}"\nidentity = "{board.folder}/user_key"\n',
        encoding="utf-8",
    )
    try:
        yield Project(folder, board)
    finally:
        board.stop()


def test_rows_of_a_target_with_a_device_come_from_there(project: Project) -> None:
    run = project.start()
    _, said = run.communicate(timeout=500)
    assert run.returncode in (0, 1, 3), said
    (here,) = project.rows("host")
    (there,) = project.rows("raspberry-pi-5")
    assert here["device"] == "local"
    assert there["device"] == f"ssh://{login()}@127.0.0.1:{project.board.port}"
    assert there["p50_ms"] > 0
    assert there["is_target_machine"] is False
    assert there["agreement"] == pytest.approx(here["agreement"], abs=0.02)
    assert there["miou"] == pytest.approx(here["miou"], abs=0.02)
    assert any(f"was measured on {there['device']}, which is not that target" in note for note in project.summary()["not_verified"])
    assert project.board.quiet()

    again = project.start()
    _, said = again.communicate(timeout=500)
    for step in ("verify-tiny-onnx-fp32-on-raspberry-pi-5", "bench-raspberry-pi-5-tiny-onnx-fp32"):
        assert f"{step}: unchanged" in said


def test_a_device_lost_in_the_middle_is_a_row_with_the_reason(project: Project) -> None:
    said = ""
    with project.start("--set", "export.golden_frames=2") as run:
        assert run.stderr is not None
        for line in run.stderr:
            said += line
            if line.startswith("raspberry-pi-5: verified and measured on"):
                project.board.pull_the_plug()
    assert run.returncode == 1, said
    (here,) = project.rows("host")
    (there,) = project.rows("raspberry-pi-5")
    assert here["miou"] is not None
    assert (there["miou"], there["agreement"], there["p50_ms"], there["passed"]) == (None, None, None, False)
    summary = project.summary()
    assert summary["passed"] is False
    assert any("onnx-fp32 on pi was not verified: pi: " in note for note in summary["not_verified"])
    assert "golden" in [goal["goal"] for goal in summary["goals"] if not goal["passed"]]


WORKER = """
import json, os, signal, sys
request = json.loads(sys.stdin.read())
if request["job"] != "describe":
    os.kill(os.getpid(), signal.SIGKILL)
os.lseek(0, 0, os.SEEK_SET)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Describes the board; every other job ends as under the kernel's out-of-memory killer."""


def python_whose_workers_die(folder: Path) -> Path:
    """A Python whose keeper starts such workers."""
    (folder / "worker.py").write_text(WORKER, encoding="utf-8")
    worker, keeper = folder / "worker-python", folder / "keeper-python"
    worker.write_text(f"#!/bin/sh\nexec '{sys.executable}' -I '{folder}/worker.py' \"$@\"\n", encoding="utf-8")
    keeper.write_text(f"#!/bin/sh\nexec '{sys.executable}' -I -c \"import sys;sys.executable='{worker}';$3\"\n", encoding="utf-8")
    for path in (worker, keeper):
        path.chmod(0o755)
    return keeper


def test_a_worker_that_dies_there_is_a_row_with_the_reason(project: Project, tmp_path: Path) -> None:
    project.board.start()
    inventory = project.folder / "devices.toml"
    whole = inventory.read_text(encoding="utf-8")
    inventory.write_text(whole.replace(sys.executable, str(python_whose_workers_die(tmp_path))), encoding="utf-8")
    try:
        run = project.start("--set", "export.golden_frames=3")
        _, said = run.communicate(timeout=500)
    finally:
        inventory.write_text(whole, encoding="utf-8")
    assert run.returncode == 1, said
    assert project.board.quiet()
    (there,) = project.rows("raspberry-pi-5")
    assert (there["miou"], there["p50_ms"], there["passed"]) == (None, None, False)
    notes = project.summary()["not_verified"]
    for what in ("verified", "measured"):
        assert any(f"was not {what}: pi: " in note and "was killed by SIGKILL" in note for note in notes), notes
    assert "golden" in [goal["goal"] for goal in project.summary()["goals"] if not goal["passed"]]


def test_a_device_that_is_off_is_refused_before_anything_is_done(project: Project) -> None:
    project.board.stop()
    run = project.start()
    _, said = run.communicate(timeout=500)
    assert run.returncode == 72
    assert said.splitlines()[-1].startswith("edgeseg: pi: ")


def test_a_device_that_nobody_knows(project: Project) -> None:
    run = project.start("--set", "devices.raspberry-pi-5=pj")
    _, said = run.communicate(timeout=500)
    assert run.returncode == 2
    assert "device 'pj' is unknown; known: pi; type: edgeseg devices add pj" in said.splitlines()[-1]
