"""A real search: killed in the middle, its journal torn, resumed by two processes; what it chose trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from chain_tools import TINY_HEAD, command, edgeseg, one_line_error, write_tiny_project
from waiting_tools import comes_true

CONFIG = TINY_HEAD + """
[train]
batch_size = 4
ema = 0.9

[export]
formats = ["openvino"]

[quantize]
calibration_frames = 4

[search]
trials = 3
epochs = 8
prune_epochs = 1
widths = [0.25]
scales = [1.0]
macs_shares = [0.05, 1.0]
precisions = ["fp32", "int8"]

[goals]
p90_ms = 100000
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose search was killed while its first training ran, and whose journal was torn."""
    folder = tmp_path_factory.mktemp("search")
    write_tiny_project(folder, config=CONFIG)
    search = folder / "runs/tiny/search"
    with subprocess.Popen(
        command("search", "--trials", "3"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        trains = comes_true(lambda: any(search.glob("points/*/work/train-*/last")) or process.poll() is not None, every_s=0.002)
        ended = process.poll()
        if ended is None:
            os.killpg(process.pid, signal.SIGKILL)
        _, stderr = process.communicate()
    assert trains, stderr[-2000:]
    assert ended is None, f"it ended by itself ({ended}) before it was killed: {stderr[-2000:]}"
    with (search / "journal.log").open("ab") as stream:
        stream.write(b'{"op_code":8,"worker_id":"')
    return folder


def test_a_killed_search_goes_on_with_two_workers_and_what_it_chose_trains(killed: Path) -> None:
    done = edgeseg("search", "--workers", "2", cwd=killed)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the last line was torn" in done.stderr
    assert "trial 0: its process died; its point is tried again" in done.stderr
    search = killed / "runs/tiny/search"
    found: dict[str, Any] = json.loads((search / "results.json").read_text())
    states = [trial["state"] for trial in found["trials"]]
    assert len(states) == 3
    assert set(states) == {"complete", "failed"}, "a share of 0.05 empties a layer; the others are done"
    failed = next(trial for trial in found["trials"] if trial["state"] == "failed")
    assert "macs_share" in failed["note"]
    assert found["passed"] is True
    chosen = next(trial for trial in found["trials"] if trial["trial"] == found["chosen"])
    complete = [trial for trial in found["trials"] if trial["state"] == "complete"]
    assert chosen["miou"] == max(trial["miou"] for trial in complete)
    assert 0 < chosen["low_ms"] <= chosen["p90_ms"] <= chosen["high_ms"]
    assert found["chosen"] in found["front"]
    trainings = [path.parent.parent.name for path in (search / "points").glob("*/.steps/train.json")]
    assert trainings == ["fast_scnn-w0.25-s1"], "all points share one training"
    assert "<svg" in (search / "report.html").read_text()
    best = killed / "edgeseg-best.toml"
    assert str(killed) not in best.read_text()
    trained = edgeseg("train", best.name, "--set", "train.epochs=1", cwd=killed)
    assert trained.returncode == 0, trained.stderr[-2000:]
    assert (killed / "runs/tiny-best/checkpoints/trained/checkpoint.json").exists()

    before = (search / "journal.log").read_bytes()
    again = edgeseg("search", "--json", cwd=killed)
    assert again.returncode == 0, again.stderr[-2000:]
    assert json.loads(again.stdout)["trials"] == found["trials"]
    assert (search / "journal.log").read_bytes() == before, "the budget is spent: the same command does nothing more"

    low = edgeseg("search", "--set", "goals.p90_ms=0.0001", cwd=killed)
    assert "even a network of one convolution at 64x96 in openvino takes" in one_line_error(low, 2)
    other = edgeseg("search", "--set", "search.epochs=5", cwd=killed)
    assert "search.epochs was 8, now 5" in one_line_error(other, 71)
