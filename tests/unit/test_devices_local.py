"""This machine as a device, and what every device shares."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import tiny_bundle, tiny_frame

from edgeseg.core.errors import BundleError, ConfigError, DataError, InputMissingError
from edgeseg.core.images import write_frame
from targets.devices import DEVICES, Job, LocalDevice, open_device
from targets.devices.base import is_inside, retold


def silent(stage: str, done: float) -> None:
    pass


def bench_job(folder: Path, frame: Path) -> Job:
    request = {"job": "bench", "target": "host", "quick": True, "files": [f"frames/0/{frame.name}"], "bundle": "bundles/0",
               "runtime": "null", "options": {}}
    return Job(request, {"bundles/0": folder, f"frames/0/{frame.name}": frame})


def test_a_job_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "null")
    frame = tmp_path / "a name with $(spaces)' and \"quotes\".png"
    write_frame(frame, tiny_frame())
    result = LocalDevice().run(bench_job(bundle.folder, frame), what="measuring", timeout_s=300, on_progress=silent)
    assert result["bundle_sha256"] == bundle.manifest.sha256


def test_errors_name_files_as_the_host_does(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "null")
    with pytest.raises(InputMissingError, match=rf"^{tmp_path}/gone.png does not exist"):
        LocalDevice().run(bench_job(bundle.folder, tmp_path / "gone.png"), what="measuring", timeout_s=300, on_progress=silent)
    frame = tmp_path / "torn.png"
    frame.write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"^torn\.png: not a readable image"):
        LocalDevice().run(bench_job(bundle.folder, frame), what="measuring", timeout_s=300, on_progress=silent)


def test_retold_takes_the_longest_name_and_says_where() -> None:
    uploads = {"frames/1": Path("/a"), "frames/12": Path("/b"), "bundle": Path("/c")}
    told = retold(BundleError("frames/12 and frames/1 of the bundle"), uploads, device="pi")
    assert (type(told), str(told)) == (BundleError, "pi: /b and /a of the bundle")


@pytest.mark.parametrize(("path", "inside"), [
    ("a", True), ("a/b c/$(d)", True), ("", False), (".", False), ("..", False), ("a/../b", False), ("/a", False), ("a//b", False),
    ("./a", False), ("a/", False), ("a\0b", False),
])
def test_paths_stay_inside(path: str, inside: bool) -> None:
    assert is_inside(path) is inside


@pytest.mark.parametrize("address", ["", "telnet://pi@board", "pi@board", "Local"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=rf"device '{address}' is no address; it begins with local"):
        open_device(address)


def test_local_is_listed_and_takes_no_options() -> None:
    assert open_device("local").name == open_device("local").address == "local"
    with pytest.raises(ConfigError, match="takes no options"):
        open_device("local:")
    assert "local" in DEVICES
