"""Tuning on a board behind a real sshd: the same search, nothing left running there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sshd_tools import NEEDS_SSHD, Board
from tiny_models import tiny_bundle

from edgeseg.core.bundle import open_bundle
from targets.boards import Plan
from targets.measure.result import QUICK
from targets.runtimes import RuntimeOptions
from targets.tuning import tune as tuning
from targets.tuning import turns
from targets.tuning.tune import tune

pytestmark = NEEDS_SSHD


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board(tmp_path / "board")
    made.start()
    yield made
    made.stop()


def test_tuning_on_a_board(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targets.tuning.knobs.thread_counts", lambda cores: (1, 2, 3))
    monkeypatch.setattr(tuning, "FIRST_BLOCKS", {True: 2})
    for module in (tuning, turns):
        monkeypatch.setattr(module, "QUICK", replace(QUICK, min_pairs=8, block_seconds=0.005))
    bundle = tiny_bundle(tmp_path, "null")
    frame = bundle.folder / bundle.manifest.golden[0].frame
    result = tune(bundle, [frame], device=board.device(), target="host", how=Plan("null", RuntimeOptions()), quick=True)
    assert {row.fields["num_threads"] for row in result.rows} == {1, 2, 3}
    assert result.default in [row.fields for row in result.rows if row.cost_ms is not None]
    open_bundle(bundle.folder)
    assert board.quiet()
