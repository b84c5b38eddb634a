"""Who brings frames to model size where a bundle runs: the same filter on a device, refused by every job without it, its version told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from chain_tools import edgeseg, one_line_error
from tiny_models import brightness_step, tiny_bundle, tiny_frame

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import MissingExtraError
from edgeseg.core.images import read_frame, resize_frame, write_frame
from targets.boards import Plan
from targets.devices import LocalDevice
from targets.devices.emulated import EmulatedDevice
from targets.devices.emulation import environment
from targets.devices.remote import answers_on
from targets.measure.bench import bench
from targets.measure.jobs import JOBS
from targets.measure.process import own_interpreter
from targets.runtimes import RuntimeOptions

NOT_THERE = "cv2 is not installed; type: pip install 'edgeseg[opencv]'"


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    write_frame(tmp_path / "field.png", tiny_frame(3, height=96, width=100))
    return tmp_path / "field.png"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "opencv", "null", resizer="opencv")


@pytest.fixture
def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that makes OpenCV be none for every process from here on."""
    folder = tmp_path / "without"
    folder.mkdir()
    (folder / "cv2.py").write_text("raise ModuleNotFoundError('none', name='cv2')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_a_device_resizes_as_the_bundle_says_and_tells_by_what(bundle: Bundle, frame: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    with answers_on(LocalDevice(), bundle, [frame], how=Plan("null", RuntimeOptions())) as answers:
        got = answers.run(np.zeros((24, 32, 3), np.uint8))
    np.testing.assert_array_equal(np.asarray(got), brightness_step(resize_frame(read_frame(frame), 24, 32, "opencv")))
    assert answers.versions["opencv"] == cv2.__version__
    assert bench(bundle, [frame], quick=True, device=LocalDevice()).versions["opencv"] == cv2.__version__


def test_pillow_alone_is_told_where_pillow_alone_resizes(tmp_path: Path, frame: Path) -> None:
    with answers_on(LocalDevice(), tiny_bundle(tmp_path, "null"), [frame], how=Plan("null", RuntimeOptions())) as answers:
        assert "opencv" not in answers.versions


EVERY_JOB = """
import json, sys, time
from edgeseg.core.errors import MissingExtraError
from targets.measure.jobs import JOBS
request = json.loads(sys.argv[1])
told = {}
for name in JOBS:
    try:
        JOBS[name](request, lambda stage, done: None, time.perf_counter_ns)
    except MissingExtraError as error:
        told[name] = str(error)
print(json.dumps(told))
"""


def test_every_job_that_opens_a_bundle_refuses_without_it(bundle: Bundle, without: Path, tmp_path: Path) -> None:
    """With golden frames, which need no resizing: nobody finds out later."""
    side = {"bundle": str(bundle.folder), "runtime": "null", "options": {}, "target": "host"}
    request = {
        **side, "files": [str(bundle.folder / bundle.manifest.golden[0].frame)], "quick": True, "out": str(tmp_path / "out"), "fps": 5,
        "bundles": [side["bundle"]], "a": side, "b": side, "settings": [[0, {}]], "purpose": "latency", "limit_s": 60, "blocks": 1,
        "warm_up_s": 0, "block_s": 0,
    }
    done = subprocess.run([sys.executable, "-c", EVERY_JOB, json.dumps(request)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == set(JOBS) - {"describe", "tune-look"}
    assert all(words.startswith(NOT_THERE) for words in told.values()), told


@pytest.mark.parametrize("command", [("predict", "{bundle}", "{frame}", "--out", "out"), ("verify", "{bundle}"),
                                     ("verify", "{bundle}", "--device", "local"), ("bench", "{bundle}", "--quick")])
def test_commands_refuse_alike(command: tuple[str, ...], bundle: Bundle, frame: Path, without: Path, tmp_path: Path) -> None:
    done = edgeseg(*(word.format(bundle=bundle.folder, frame=frame) for word in command), cwd=tmp_path)
    assert NOT_THERE in one_line_error(done, MissingExtraError.exit_code)


def test_the_emulation_takes_opencv_where_this_machine_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert [wheel.partition("==")[0] for wheel in environment._wheels()] == list(environment._WHEELS)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "opencv-python-headless" not in {wheel.partition("==")[0] for wheel in environment._wheels()}


def test_an_emulated_board_without_it_says_where_it_is_installed(
    bundle: Bundle, without: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An emulation that was built where there was none: this machine's own Python, without it."""
    class Built:
        def interpreter(self, board: str) -> object:
            return own_interpreter()

    device = EmulatedDevice("raspberry-pi-5", "", tmp_path)
    monkeypatch.setattr(device, "prepare", lambda say: Built())
    words = (r"^emulated:raspberry-pi-5: cv2 is not installed; type here: pip install 'edgeseg\[opencv\]' "
             r"\(the emulation takes what this machine has\)$")
    with (
        pytest.raises(MissingExtraError, match=words),
        answers_on(device, bundle, (), how=Plan("null", RuntimeOptions())),
    ):
        pass
