"""Training in two processes as a user types it; processes that die of a real SIGKILL change no bit of what it ends with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from chain_tools import TINY_HEAD, command, edgeseg, one_line_error, write_tiny_project
from typer.testing import CliRunner
from waiting_tools import comes_true, has_ended

from edgeseg.cli.main import app
from edgeseg.core.errors import ConfigError

CONFIG = TINY_HEAD + """
[model]
width = 0.25

[train]
epochs = 6
batch_size = 4
eval_every = 2
warmup_epochs = 1
device = "cpu"
"""
ODD_NET = """
from torch import nn

class NormAct(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()

def build(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), NormAct(4), nn.Conv2d(4, num_classes, 1))
"""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
pytestmark = pytest.mark.slow


def children(parent: int) -> dict[int, int]:
    """Rank -> process id of the workers that `parent` started."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                environment = dict(entry.partition("=")[::2] for entry in (folder / "environ").read_text().split("\0"))
                found[int(environment["RANK"])] = int(folder.name)
        except (OSError, KeyError, IndexError):
            continue
    return found


def start(arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_state(folder: Path, process: subprocess.Popen[str], *, processes: int = 2) -> dict[int, int]:
    """Wait until an epoch is saved; give the workers."""
    workers: dict[int, int] = {}

    def are_there() -> bool:
        workers.update(children(process.pid))
        return len(workers) == processes or process.poll() is not None

    def is_saved() -> bool:  # asked often: the training lasts seconds
        return any(folder.glob("runs/tiny/work/train-*/last/state.json")) or process.poll() is not None

    if comes_true(are_there) and comes_true(is_saved, every_s=0.002) and process.poll() is None:
        return workers
    process.kill()
    raise AssertionError(f"no epoch was saved: {process.communicate()[1][-3000:]}")


def result_of(folder: Path) -> dict[str, Any]:
    trained = folder / "runs/tiny/checkpoints/trained"
    left = [path.name for pattern in (".*.tmp", ".*.old") for path in (folder / "runs").rglob(pattern)]
    checkpoint, history = (json.loads((trained / f"{name}.json").read_text()) for name in ("checkpoint", "history"))
    return {"checkpoint": checkpoint, "history": history, "left": left, "work": list(folder.glob("runs/tiny/work/train-*"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    write_tiny_project(folder, config=CONFIG)
    done = edgeseg("train", "--devices", "2", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["step"] == "train"  # one process speaks
    result = result_of(folder)
    assert result["history"]["processes"] == 2
    assert result["left"] == result["work"] == []
    return result


def test_a_killed_process_is_restarted_and_changes_nothing(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """The one that writes; the tests below kill another."""
    write_tiny_project(tmp_path, config=CONFIG)
    with start(command("train", "--devices", "2", "--max-restarts", "1"), tmp_path) as process:
        os.kill(wait_for_state(tmp_path, process)[0], signal.SIGKILL)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr[-3000:]
    assert "process 0 was killed by SIGKILL; all start again from the last checkpoint (1 of 1 restarts)" in stderr
    assert "edgeseg: " not in stderr  # nobody gave up
    assert "Traceback" not in stderr
    assert result_of(tmp_path) == undisturbed


def test_torchrun_restarts_too(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    write_tiny_project(tmp_path, config=CONFIG)
    with start([*TORCHRUN, "--standalone", "--local-addr=localhost", "--max-restarts=1", "-m", "edgeseg", "train"], tmp_path) as process:
        os.kill(wait_for_state(tmp_path, process)[1], signal.SIGKILL)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr[-3000:]
    assert result_of(tmp_path) == undisturbed


def test_no_restart_left_says_how_to_go_on_and_going_on_changes_nothing(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    write_tiny_project(tmp_path, config=CONFIG)
    with start(command("train", "--devices", "2", "--max-restarts", "0"), tmp_path) as process:
        os.kill(wait_for_state(tmp_path, process)[1], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=300)
    said = one_line_error(subprocess.CompletedProcess([], process.returncode, stdout, stderr), 71)
    assert "process 1 was killed by SIGKILL, and 0 restarts are used up" in said
    assert "--resume" in said
    refused = edgeseg("train", "--devices", "2", cwd=tmp_path)
    assert "add --resume to go on, or --restart to begin again" in one_line_error(refused, 71)
    alone = edgeseg("train", "--resume", cwd=tmp_path)
    said = one_line_error(alone, 71)
    assert "processes was 2, now 1" in said
    assert "edgeseg train --restart" in said
    done = edgeseg("train", "--devices", "2", "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert result_of(tmp_path) == undisturbed


def test_a_signal_ends_all_of_them_with_one_line(tmp_path: Path) -> None:
    write_tiny_project(tmp_path, config=CONFIG.replace("epochs = 6", "epochs = 400"))
    with start(command("train", "--devices", "2"), tmp_path) as process:
        workers = wait_for_state(tmp_path, process)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=300)
    said = one_line_error(subprocess.CompletedProcess([], process.returncode, stdout, stderr), 143)
    assert "--resume" in said
    assert all(has_ended(pid) for pid in workers.values())


def test_mistakes_are_said_once_and_not_tried_again(tmp_path: Path) -> None:
    write_tiny_project(tmp_path, config=CONFIG)
    odd = edgeseg("train", "--devices", "2", "--set", "train.batch_size=5", cwd=tmp_path)
    assert "batch_size = 5 cannot be split evenly over 2 processes" in one_line_error(odd, 2)
    alone = edgeseg("train", "--max-restarts", "2", cwd=tmp_path)
    assert "--max-restarts goes with --devices" in one_line_error(alone, 2)
    both = edgeseg("train", "--devices", "2", cwd=tmp_path, env={"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"})
    assert "torchrun started this process already" in one_line_error(both, 2)
    many = edgeseg("train", "--devices", "99", cwd=tmp_path)
    assert "99 processes would share" in one_line_error(many, 2)
    (tmp_path / "odd_net.py").write_text(ODD_NET)  # known when the data are checked and the network is there: by one process, for all
    norm = edgeseg("train", "--devices", "2", "--set", "model.factory=odd_net:build", "--set", "model.width=1.0", cwd=tmp_path)
    assert "the network's norm '1' is a NormAct: over 2 processes only torch.nn.BatchNorm2d itself" in one_line_error(norm, 2)
    assert not list((tmp_path / "runs/tiny/work").glob("train-*"))


@pytest.mark.parametrize("verb", ["run", "prune", "export"])
def test_other_verbs_refuse_several_processes(tmp_path: Path, verb: str) -> None:
    (tmp_path / "edgeseg.toml").write_text(CONFIG)
    refused = CliRunner().invoke(app, [verb, str(tmp_path / "edgeseg.toml")], env={"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"})
    assert isinstance(refused.exception, ConfigError)
    assert f"edgeseg {verb} works in one process, and 2 were started" in str(refused.exception)
