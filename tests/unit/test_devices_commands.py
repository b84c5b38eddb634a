"""`edgeseg devices` and `--device` on the command line: what is refused, in one line and with the right exit code."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import tiny_bundle

from edgeseg.cli.main import run
from edgeseg.workflow.devices import _another_target, _site_lines
from targets.devices import LocalDevice
from targets.devices.check import Checked, describe
from targets.devices.inventory import Entry


@pytest.fixture(autouse=True)
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "devices.toml"
    monkeypatch.setenv("EDGESEG_DEVICES", str(path))
    return path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert run(arguments) == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    return said[0]


def test_added_listed_removed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "list"]) == 0
    assert "names no device; type: edgeseg devices add NAME ssh://USER@HOST" in capsys.readouterr().out
    assert run(["devices", "add", "pi5", "ssh://pi@192.168.1.20", "--target", "raspberry-pi-5"]) == 0
    assert "type: edgeseg devices setup pi5" in capsys.readouterr().out
    assert run(["devices", "list", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["devices"]
    assert found == {"name": "pi5", "address": "ssh://pi@192.168.1.20", "target": "raspberry-pi-5", "python": None, "identity": None}
    assert run(["devices", "remove", "pi5"]) == 0


@pytest.mark.parametrize(("arguments", "words"), [
    (("devices", "add", "pi5", "pi@192.168.1.20"), "is no address"),
    (("devices", "add", "pi 5", "ssh://pi"), "device name 'pi 5'"),
    (("devices", "add", "pi5", "ssh://pi", "--target", "raspberry-pi"), "did you mean 'raspberry-pi-"),
    (("devices", "check", "pi5"), "device 'pi5' is unknown"),
    (("devices", "remove", "pi5"), "device 'pi5' is unknown"),
    (("devices", "setup", "local"), "nothing to set up"),
    (("devices", "setup", "ssh://pi", "--extra", "gpu"), "--extra gpu: one of pi, "),
    (("verify", "BUNDLE", "--device", "pi5"), "device 'pi5' is unknown"),
    (("bench", "BUNDLE", "--device", "pi5"), "device 'pi5' is unknown"),
    (("verify", "BUNDLE", "--device", "pi5", "--ladder"), "device 'pi5' is unknown"),
])
def test_what_cannot_be_meant(capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    bundle = str(tiny_bundle(tmp_path, "null").folder)
    assert words in refused(capsys, *(bundle if argument == "BUNDLE" else argument for argument in arguments))


def test_a_board_with_a_python_of_its_own_is_not_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "add", "pi5", "ssh://pi", "--python", "/opt/venv/bin/python"]) == 0
    assert "type: edgeseg devices check pi5" in capsys.readouterr().out
    assert "has a Python of its own in the inventory" in refused(capsys, "devices", "setup", "pi5")


def test_an_identity_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "does not exist" in refused(capsys, "devices", "add", "pi5", "ssh://pi", "--identity", str(tmp_path / "key"), code=66)


def test_a_board_that_is_another_target_than_the_inventory_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "add", "nano", "local", "--target", "jetson-orin-nano"]) == 0
    capsys.readouterr()
    assert run(["devices", "check", "nano", "--json"]) == 13
    said = capsys.readouterr()
    assert json.loads(said.out)["is_target"] is False
    assert json.loads(said.out)["problem"] is None
    assert "NOT THE TARGET: the inventory says that nano (local) is a jetson-orin-nano, and it is " in said.err.splitlines()[-1]
    last = said.err.splitlines()[-1]
    assert "type: edgeseg devices remove nano && edgeseg devices add nano local" in last
    for command in last.rpartition("type: ")[2].split(" && "):
        assert run(shlex.split(command)[1:]) == 0, "what it says can be typed"
    assert run(["devices", "check", "nano", "--json"]) == 0


def test_an_emulated_board_is_no_wrong_one() -> None:
    """It says of itself that it is none, so that no result is taken for a real board's."""
    here = replace(describe(LocalDevice(), lambda stage, done: None), targets=())
    entry = Entry(name="e", address="emulated:raspberry-pi-5", target="raspberry-pi-5")
    assert _another_target(Checked(entry=entry, site=here)) is None
    assert _another_target(Checked(entry=replace(entry, address="ssh://pi"), site=here)) is not None


def test_check_says_whose_settings_are_used() -> None:
    pi = replace(describe(LocalDevice(), lambda stage, done: None), targets=("raspberry-pi-5",))
    add = "edgeseg devices add pi ssh://pi@pi5 --target raspberry-pi-5"
    known = Entry(name="pi", address="ssh://pi@pi5")
    for entry, words in (
        (known, f"raspberry-pi-5; settings of host are used; for its own, type: edgeseg devices remove pi && {add}"),
        (replace(known, python="~/venv/bin/python", identity="/home/me/my key"),
         f"{add} --python '~/venv/bin/python' --identity '/home/me/my key'"),
        (Entry(name="", address="ssh://pi5"), "for its own, type: edgeseg devices add NAME ssh://pi5 --target raspberry-pi-5"),
        (replace(known, target="raspberry-pi-5"), "  targets: raspberry-pi-5"),
        (Entry(name="", address="local"), "raspberry-pi-5; settings of host are used"),
        (Entry(name="", address="emulated:raspberry-pi-4"), "emulates a raspberry-pi-4: its answers, with its settings, and no times"),
    ):
        (line,) = [line for line in _site_lines(pi, entry) if line.startswith("  targets: ")]
        assert line.endswith(words)


def test_this_machine_can_be_checked_and_asked_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["devices", "check", "local", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["site"]["runtimes"]["null"]
    assert found["is_target"] is None
    assert run(["verify", str(tiny_bundle(tmp_path, "null").folder), "--device", "local", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "local"
