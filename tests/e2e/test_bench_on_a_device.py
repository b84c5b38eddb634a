"""The scenarios of `edgeseg bench` on a board, which is a real sshd; and a cold start leaves nothing behind when it is interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sshd_tools import NEEDS_SSHD, Board, running
from tiny_models import tiny_bundle
from waiting_tools import comes_true, has_ended

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import RuntimeFailure
from targets.boards import Wishes, find_target
from targets.devices import Device, LocalDevice
from targets.measure.scenarios import Setup, measure_cold, measure_offline, measure_paced, measure_versus


def setup(device: Device) -> Setup:
    return Setup(target=find_target("host"), device=device, quick=True, minutes=None, on_progress=lambda stage, done: None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), "null")


@pytest.fixture(scope="module")
def frames(bundle: Bundle) -> list[bytes | Path]:
    return [bundle.folder / bundle.manifest.golden[0].frame]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with running(tmp_path_factory.mktemp("board")) as board:
        yield board


@NEEDS_SSHD
def test_every_scenario_on_a_board(board: Board, bundle: Bundle, frames: list[bytes | Path]) -> None:
    there, how = setup(board.device()), Wishes(num_threads=1)
    cold = measure_cold(bundle, frames, how, there)
    assert cold.without.total_ms >= cold.without.python_ms > 0
    paced = measure_paced(bundle, frames, how, there, fps=5)
    assert (paced.fps, paced.frames) == (5, 5)
    assert measure_offline(bundle, frames, how, there).frames >= 50
    versus = measure_versus(bundle, bundle, frames, how, Wishes(num_threads=2), there)
    assert versus.device == board.device().address
    assert versus.pairs >= 15
    assert board.quiet()


def children_of(parent: int, word: bytes) -> list[int]:
    """Processes below `parent` with this word on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word in (entry / "cmdline").read_bytes():
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                if int(fields[1]) == parent and fields[0] != "Z":
                    found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def imports_numpy(pid: int) -> bool:
    """It is past its first lines, in which it binds itself to its parent."""
    try:
        return "_multiarray_umath" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_cold_start_ends_with_the_worker_that_asked_for_it(bundle: Bundle, frames: list[bytes | Path]) -> None:
    starts: list[int] = []

    def strike(stage: str, done: float) -> None:
        if starts:  # what the worker had said before it was killed
            return
        worker = children_of(os.getpid(), b"targets.measure.worker")[0]

        def hangs() -> bool:
            for pid in children_of(worker, b"targets.measure.first_answer"):
                with suppress(ProcessLookupError):
                    if imports_numpy(pid):
                        os.kill(pid, signal.SIGSTOP)  # hangs in an SDK: it will not notice by itself
                        starts.append(pid)
            return bool(starts)

        assert comes_true(hangs, every_s=0.001)
        os.kill(worker, signal.SIGKILL)

    there = setup(LocalDevice())
    with pytest.raises(RuntimeFailure, match="was killed by SIGKILL at stage 'cold start'"):
        measure_cold(bundle, frames, Wishes(num_threads=1), Setup(**{**vars(there), "on_progress": strike}))
    assert starts
    left_behind = [pid for pid in starts if not has_ended(pid)]
    for pid in left_behind:
        os.kill(pid, signal.SIGKILL)
    assert not left_behind
