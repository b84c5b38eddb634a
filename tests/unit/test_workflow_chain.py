"""The chain refuses before the training what it would refuse after it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from chain_tools import write_tiny_project

from edgeseg.core.config import load_config
from edgeseg.core.errors import ConfigError, DataError
from edgeseg.core.images import read_frame, write_frame
from edgeseg.workflow import chain
from edgeseg.workflow.bundle import bundling
from edgeseg.workflow.context import open_run
from edgeseg.workflow.learn import learning
from edgeseg.workflow.search.speed import places_of
from edgeseg.workflow.ui import Silent


class Reached(Exception):
    """The training would have begun."""


@pytest.fixture
def lookalikes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose training frames are those of val, but for a pixel; its training ends at once."""
    path = write_tiny_project(tmp_path)
    for folder in (tmp_path / "data").rglob("val"):
        train = folder.with_name("train")
        shutil.rmtree(train)
        shutil.copytree(folder, train)

    for path_of_frame in (tmp_path / "data" / "images" / "train").iterdir():
        frame = read_frame(path_of_frame).copy()
        frame[0, 0] ^= 1
        write_frame(path_of_frame, frame)

    def begin(*given: object) -> None:
        raise Reached

    monkeypatch.setattr(learning, "train", begin)
    return path


def test_training_frames_that_cannot_calibrate_are_refused_before_the_training(lookalikes: Path) -> None:
    with pytest.raises(DataError, match=r"looks like one of val or test.*or set quantize\.int8=false"):
        chain.run(lookalikes, (), ui=Silent())


def test_without_int8_they_are_not_looked_at(lookalikes: Path) -> None:
    with pytest.raises(Reached):
        chain.run(lookalikes, ("quantize.int8=false",), ui=Silent())


def test_a_target_that_runs_nothing_of_what_is_made_is_refused_before_the_training(lookalikes: Path) -> None:
    npu = ('targets=["host", "intel-npu"]', "quantize.int8=false")
    words = r"^intel-npu runs fp16, int8, mixed, and \[quantize\] makes none of them; set quantize\.int8=true"
    with pytest.raises(ConfigError, match=words):
        chain.run(lookalikes, npu, ui=Silent())
    with pytest.raises(Reached):
        chain.run(lookalikes, (*npu, "quantize.fp16=true"), ui=Silent())


def test_no_latency_is_compared_with_an_fp32_that_a_target_does_not_run(lookalikes: Path) -> None:
    config = load_config(lookalikes, ('targets=["host", "intel-npu"]',))
    said: list[str] = []
    assert [name for place in places_of(config, say=said.append) for name in place.targets] == ["host"]
    assert said == ["intel-npu is left out: it does not run fp32, which every latency is compared with"]


@pytest.mark.parametrize(("resizer", "named"), [("pillow", None), ("opencv", "opencv")])
def test_what_was_done_before_there_was_a_resizer_stays_done(
    tmp_path: Path, resizer: str, named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys of steps name OpenCV; where none is named, it was Pillow."""
    hashed: list[Any] = []
    monkeypatch.setattr(bundling, "sha256_json", hashed.append)
    with open_run(write_tiny_project(tmp_path), (f"data.resizer={resizer}",), ui=Silent()) as ctx:
        bundling._config_sha256(ctx)
        contract = learning.contract_of(ctx.config)
    for values in (hashed[0]["data"], contract.key):
        assert values.get("resizer") == named
        assert values["resize"] == "stretch"
