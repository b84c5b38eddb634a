"""A board over SSH, on a real sshd: the good path, and every way a board can be unwilling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd_tools import NEEDS_SSHD, Board, running
from tiny_models import tiny_bundle, tiny_frame

from edgeseg.core.images import write_frame
from targets.devices import Job

pytestmark = NEEDS_SSHD


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with running(tmp_path_factory.mktemp("board")) as board:
        yield board


def silent(stage: str, done: float) -> None:
    pass


def bench_job(folder: Path, frame: Path, **more: object) -> Job:
    request = {"job": "bench", "target": "host", "quick": True, "files": [f"frames/0/{frame.name}"], "bundle": "bundles/0",
               "runtime": "null", "options": {}, **more}
    return Job(request, {"bundles/0": folder, f"frames/0/{frame.name}": frame})


def test_a_job_runs_there(board: Board, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "null")
    frame = tmp_path / "a name with $(touch oops)' and \"quotes\" `id`\n.png"
    write_frame(frame, tiny_frame())
    stages: list[str] = []
    result = board.device().run(
        bench_job(bundle.folder, frame), what="measuring", timeout_s=120, on_progress=lambda stage, done: stages.append(stage),
    )
    assert result["bundle_sha256"] == bundle.manifest.sha256
    assert stages[0] == "upload"
    assert "measure" in stages
    assert board.quiet()
