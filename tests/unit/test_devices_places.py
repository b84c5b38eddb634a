"""Where a run verifies: what could verify nothing is refused, one environment is never another, nothing lost is passed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tiny_models import tiny_bundle

from edgeseg.core.errors import ConfigError, DeviceError, EdgesegError, MissingExtraError, RuntimeFailure, TargetError
from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.check.elsewhere import There, verify_there
from edgeseg.workflow.check.verifying import Verified
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.places import Place, find_place, open_places
from edgeseg.workflow.steps import StepResult
from edgeseg.workflow.ui import Silent
from targets.devices import DEVICES, Device, DeviceOptions, Job, LocalDevice, Progress
from targets.devices.inventory import load_inventory


@dataclass
class Lab:
    """This machine, said to be behind an address, with the runtimes of a board that was set up for LiteRT."""

    address: str
    name: str
    options: DeviceOptions
    before: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.name = self.name or self.address

    def run(self, job: Job, *, what: str, timeout_s: float, on_progress: Progress, into: Path | None = None) -> dict[str, Any]:
        for words in self.before:
            on_progress(words, 0.0)
        raw = LocalDevice().run(job, what=what, timeout_s=timeout_s, on_progress=on_progress, into=into)
        return {**raw, "ways": [way for way in raw["ways"] if way[0] == "tflite"], "runtimes": {"litert": "2.1", "null": "1"},
                "resizers": {"pillow": "13.0"}}


@pytest.fixture(autouse=True)
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "devices.toml"
    monkeypatch.setenv("EDGESEG_DEVICES", str(path))
    monkeypatch.setitem(DEVICES, "ssh", Lab)
    return path


def test_a_device_without_a_runtime_for_what_is_made_is_refused_at_once(inventory: Path) -> None:
    inventory.write_text("[pi5]\naddress = 'ssh://pi@pi5'\n[own]\naddress = 'ssh://own'\npython = '/opt/bin/python'\n", encoding="utf-8")
    with pytest.raises(DeviceError, match=r"^pi5 \(ssh://pi@pi5\) has litert and cannot run .*onnx in onnxruntime\); "
                                          r"type: edgeseg devices setup pi5 --extra onnx$"):
        open_places({"raspberry-pi-5": "pi5"}, ("onnx",), Silent())
    with pytest.raises(DeviceError, match=r"; install edgeseg\[onnx\] with /opt/bin/python there$"):
        open_places({"raspberry-pi-5": "own"}, ("onnx",), Silent())


def test_a_device_without_the_resizer_is_refused_at_once(inventory: Path) -> None:
    inventory.write_text("[pi5]\naddress = 'ssh://pi@pi5'\n[own]\naddress = 'ssh://own'\npython = '/opt/bin/python'\n", encoding="utf-8")
    asked: dict[str, Any] = {"ui": Silent(), "resizer": "opencv"}
    with pytest.raises(DeviceError, match=r"onnx in onnxruntime\); type: edgeseg devices setup pi5 --extra onnx --extra opencv$"):
        open_places({"raspberry-pi-5": "pi5"}, ("onnx",), **asked)
    if not any(way[0] == "tflite" for way in _ways()):
        pytest.skip("LiteRT is not installed here")
    why = r"^pi5 \(ssh://pi@pi5\) cannot bring frames to model size by opencv \(data.resizer\), which is not installed there; "
    with pytest.raises(DeviceError, match=why + r"type: edgeseg devices setup pi5 --extra opencv \(and --extra for each other runtime "):
        open_places({"raspberry-pi-5": "pi5"}, ("tflite",), **asked)
    with pytest.raises(DeviceError, match=r"; install edgeseg\[opencv\] with /opt/bin/python there$"):
        open_places({"raspberry-pi-5": "own"}, ("tflite",), **asked)


@pytest.mark.parametrize("formats", [("tflite",), ("onnx", "tflite")])
def test_one_that_runs_some_of_it_is_not(inventory: Path, formats: tuple[str, ...]) -> None:
    if not any(way[0] == "tflite" for way in _ways()):
        pytest.skip("LiteRT is not installed here")
    inventory.write_text("[pi5]\naddress = 'ssh://pi@pi5'\n", encoding="utf-8")
    assert open_places({"raspberry-pi-5": "pi5"}, formats, Silent())["raspberry-pi-5"].device.name == "pi5"


def _ways() -> list[list[str]]:
    ways: list[list[str]] = Lab("ssh://x", "x", DeviceOptions()).run(
        Job({"job": "describe"}), what="x", timeout_s=300, on_progress=lambda stage, done: None,
    )["ways"]
    return ways


def test_two_environments_of_one_board_are_two_places(inventory: Path) -> None:
    inventory.write_text("[a]\naddress = 'ssh://pi'\npython = '/opt/a'\n[b]\naddress = 'ssh://pi'\npython = '/opt/b'\n", encoding="utf-8")
    places = open_places({"raspberry-pi-4": "a", "raspberry-pi-5": "b"}, (), Silent())
    devices = [cast("Lab", place.device) for place in places.values()]
    assert [(device.name, device.options.python) for device in devices] == [("a", "/opt/a"), ("b", "/opt/b")]
    assert places["raspberry-pi-4"].key != places["raspberry-pi-5"].key


def test_an_emulated_board_is_never_another(inventory: Path) -> None:
    inventory.write_text("[e]\naddress = 'emulated:raspberry-pi-5'\ntarget = 'raspberry-pi-4'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="emulated:raspberry-pi-5 is no raspberry-pi-4; leave the target out"):
        load_inventory()


def test_what_a_device_does_before_it_answers_is_said(inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Told(Silent):
        said: list[str] = []  # noqa: RUF012 - one test

        def say(self, text: str) -> None:
            self.said.append(text)

    def slow(address: str, name: str, options: DeviceOptions) -> Device:
        return Lab(address, name, options, ("fetching arm64 packages", "waiting for 7, which builds the emulation"))

    monkeypatch.setitem(DEVICES, "ssh", slow)
    find_place("ssh://pi", ui=Told())
    assert Told.said == ["ssh://pi: fetching arm64 packages", "ssh://pi: waiting for 7, which builds the emulation"]


def there(tmp_path: Path, *outcomes: Callable[[], Verified]) -> list[There]:
    """Bundles of target host verified on a device, each with an outcome of its own."""
    answers = iter(outcomes)
    bundles = [SealedBundle(cast("StepResult", None), tiny_bundle(tmp_path / str(number), "null")) for number in range(len(outcomes))]
    place = Place(cast("Device", SimpleNamespace(name="pi5", address="ssh://pi5")), cast("Any", object()))
    return verify_there(cast("RunContext", SimpleNamespace(ui=Silent())), bundles, {"host": place}, lambda *_: next(answers)())


def fails(error: EdgesegError) -> Callable[[], Verified]:
    def verify() -> Verified:
        raise error

    return verify


def passes() -> Verified:
    return Verified(cast("SealedBundle", None), "null", {}, ())


@pytest.mark.parametrize("error", [TargetError("cannot run it"), MissingExtraError("not there")])
def test_a_target_of_which_nothing_was_verified_misses_a_goal(tmp_path: Path, error: EdgesegError) -> None:
    lost = there(tmp_path, fails(error), fails(error))
    assert [[(finding.goal, finding.passed) for finding in one.findings] for one in lost] == [[("golden", False)]] * 2
    beside = there(tmp_path / "beside", fails(error), passes)
    assert [one.findings for one in beside] == [(), ()], "one that cannot be run beside one that was verified is a note"


def test_a_bundle_that_crashes_there_is_lost_and_the_others_go_on(tmp_path: Path) -> None:
    crashed, other = there(tmp_path, fails(RuntimeFailure("pi5: verifying x was killed by SIGKILL")), passes)
    assert [(finding.goal, finding.passed) for finding in crashed.findings] == [("golden", False)]
    assert crashed.why_not == "pi5: verifying x was killed by SIGKILL"
    assert replace(other, lost=False).verified is not None
