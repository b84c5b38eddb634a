"""A step's record: what was made stays made, whatever is refused or killed after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.core.errors import ConfigError, InputMissingError
from edgeseg.core.files import write_text
from edgeseg.workflow.steps import Steps, typed
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


def test_what_to_type_names_the_config_and_what_was_set(tmp_path: Path) -> None:
    steps = Steps(tmp_path, Silent(), frozenset({"export"}), Path("my runs/thr.toml"), ("train.loss={ce = 1.0}",))
    with pytest.raises(InputMissingError) as caught:
        steps.do("train", kind="train", key={}, output=tmp_path / "out", make=lambda _: None)
    given = "'my runs/thr.toml' --set 'train.loss={ce = 1.0}'"
    assert str(caught.value).endswith(f"type: edgeseg train {given}, or edgeseg run {given} for the whole chain")
    assert typed("run", Path("edgeseg.toml")) == "edgeseg run"


def test_killed_between_output_and_record_is_made_again(tmp_path: Path) -> None:
    _do(tmp_path, "unet")
    write_text(tmp_path / "out", "fcn")  # as a step that was killed before it wrote its record leaves it
    assert not _do(tmp_path, "unet")
