"""A step's record: what was made stays made, whatever is refused or killed after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.core.errors import ConfigError
from edgeseg.core.files import write_text
from edgeseg.workflow.steps import Steps
from edgeseg.workflow.ui import Silent


def _do(folder: Path, key: str, *, fail: bool = False) -> bool:
    """Whether the step was found rather than made."""

    def make(output: Path) -> None:
        if fail:
            raise ConfigError("no such network")
        write_text(output, key)

    return Steps(folder, Silent()).do("train", kind="train", key={"model": key}, output=folder / "out", make=make).cached


def test_a_refused_configuration_does_not_throw_away_what_was_made(tmp_path: Path) -> None:
    assert not _do(tmp_path, "unet")
    with pytest.raises(ConfigError):
        _do(tmp_path, "unett", fail=True)
    assert _do(tmp_path, "unet")


def test_an_output_of_another_key_is_not_taken(tmp_path: Path) -> None:
    _do(tmp_path, "unet")
    assert not _do(tmp_path, "fcn")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "fcn"
    assert not _do(tmp_path, "unet")


def test_killed_between_output_and_record_is_made_again(tmp_path: Path) -> None:
    _do(tmp_path, "unet")
    write_text(tmp_path / "out", "fcn")  # as a step that was killed before it wrote its record leaves it
    assert not _do(tmp_path, "unet")
