"""What rank 0 leaves behind for the processes that are started again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeseg.core.errors import ConfigError
from edgeseg.training.ranks import Ranks
from edgeseg.workflow.learn.together import Crew, has_checkpoint, launch
from edgeseg.workflow.ui import Silent


def test_the_launch_is_written_at_once(tmp_path: Path) -> None:
    """A new file takes the old one's place: whoever has the old one open never reads half of the new one."""
    work = tmp_path / "work"
    Crew(Ranks(), "first", 0).begin(work, resume=False)
    os.link(work / "launch", tmp_path / "old")
    second = Crew(Ranks(), "second", 1)
    assert not second.goes_on(work)
    second.begin(work, resume=True)
    assert second.goes_on(work)
    assert (tmp_path / "old").read_text() == "first"
    assert [path.name for path in work.iterdir()] == ["launch"]


def test_where_a_training_that_died_starts_again(tmp_path: Path) -> None:
    work = tmp_path / "work" / "train-one"
    assert not has_checkpoint(tmp_path, "first", resumed=False)
    Crew(Ranks(), "first", 0).begin(work, resume=False)
    assert not has_checkpoint(tmp_path, "first", resumed=False), "it died before its first checkpoint"
    (work / "last").mkdir()
    assert has_checkpoint(tmp_path, "first", resumed=False)
    assert not has_checkpoint(tmp_path, "second", resumed=False), "another launch left it"
    assert has_checkpoint(tmp_path, "second", resumed=True)


@pytest.mark.parametrize(("cores", "words"), [
    (1, "3 processes would share one core, and more than one a core only slows the training down; to try it out, two may share it: "
        "edgeseg train {config} --devices 2"),
    (2, "3 processes would share 2 cores, and more than one a core only slows the training down; start at most 2: "
        "edgeseg train {config} --devices 2"),
])
def test_processes_are_held_against_the_cores_this_one_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, words: str
) -> None:
    config = tmp_path / "thr.toml"
    config.write_text("[train]\ndevice = \"cpu\"\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    with pytest.raises(ConfigError) as caught:
        launch(config, (), devices=3, max_restarts=0, resume=False, restart=False, json=False, ui=Silent())
    assert str(caught.value) == words.format(config=config)
