"""`edgeseg devices setup` on a board behind a real sshd: a board without network, with a home folder of its own."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from chain_tools import command
from sshd_tools import NEEDS_SSHD, Board, login, small_disk
from tiny_models import tiny_bundle
from waiting_tools import comes_true

pytestmark = [NEEDS_SSHD, pytest.mark.slow]


class Lab:
    """A host with an inventory, and a board."""

    def __init__(self, folder: Path) -> None:
        self.host, self.home = folder / "host", folder / "home"
        (self.host / ".ssh").mkdir(parents=True)
        self.home.mkdir()
        self.board = Board(folder / "sshd")
        self.board.config = f"SetEnv HOME={self.home} PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1\n"

    @property
    def venv(self) -> Path:
        return self.home / ".local/share/edgeseg/venv"

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        environment = {**os.environ, "HOME": str(self.host), "EDGESEG_DEVICES": str(self.host / "devices.toml")}
        environment.pop("SSH_AUTH_SOCK", None)
        return subprocess.Popen(command(*map(str, arguments)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def call(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=500)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def refused(self, *arguments: str | Path, code: int = 72) -> str:
        """The one line of a command that is refused."""
        done = self.call(*arguments)
        assert done.returncode == code, (done.stdout, done.stderr)
        last = done.stderr.splitlines()[-1]
        assert last.startswith("edgeseg: ")
        assert "Traceback" not in done.stderr
        return last

    def working(self) -> list[str]:
        """What runs on this very board: what sshd started there, and all below it."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if f"HOME={self.home}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(f"{entry.name} {(entry / 'cmdline').read_bytes().decode(errors='replace')[:200]}")
        return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    lab.board.start()
    (lab.host / ".ssh" / "known_hosts").write_text((lab.board.folder / "known_hosts").read_text(encoding="utf-8"), encoding="utf-8")
    address, key = f"ssh://{login()}@127.0.0.1:{lab.board.port}", lab.board.folder / "user_key"
    done = lab.call("devices", "add", "pi", address, "--identity", key)
    assert done.returncode == 0, done.stderr
    try:
        yield lab
    finally:
        lab.board.stop()


@pytest.fixture(scope="module")
def ready(lab: Lab) -> dict[str, Any]:
    """The board, set up; what setup said."""
    done = lab.call("devices", "setup", "pi", "--extra", "pi", "--offline", "--python", sys.executable, "--json")
    if done.returncode == 68:
        pytest.skip(f"no index to collect wheels from: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stub(folder: Path, name: str, before: str) -> Path:
    """A Python of which `before` is true: it answers as that one would."""
    path = folder / name
    path.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c 'import sys; {before}; exec(sys.argv[-1])' \"$@\"\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_an_old_python_is_refused(lab: Lab, tmp_path: Path) -> None:
    old = stub(tmp_path, "python3.9", "sys.version_info = (3, 9, 2)")
    line = lab.refused("devices", "setup", "pi", "--python", old)
    assert "is Python 3.9.2, edgeseg needs 3.10 or newer" in line


def test_a_debian_without_venv_is_told_what_to_type(lab: Lab, tmp_path: Path) -> None:
    bare = stub(tmp_path, "python3", 'sys.modules["ensurepip"] = None')
    assert "sudo apt install python3-venv" in lab.refused("devices", "setup", "pi", "--python", bare)


def test_no_python_at_all(lab: Lab) -> None:
    line = lab.refused("devices", "setup", "pi", "--python", "/nowhere/python3")
    assert "there is no /nowhere/python3 there" in line
    assert line.endswith("check its path, or leave it to edgeseg"), "what apt installs is not what was asked for"


def test_a_board_that_somebody_uses_is_left_alone(lab: Lab) -> None:
    lock = lab.home / ".cache/edgeseg/device/lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write(json.dumps({"holder": "anna@lab, measuring"}))
        stream.flush()
        assert "in use by anna@lab, measuring" in lab.refused("devices", "setup", "pi", "--python", sys.executable, code=75)


def test_without_network_it_says_what_to_type(lab: Lab) -> None:
    line = lab.refused("devices", "setup", "pi", "--extra", "pi", "--python", sys.executable)
    assert "type: edgeseg devices setup pi --offline" in line
    assert not list((lab.venv.parent / "venvs").glob("*")) or lab.venv.is_symlink()


def test_a_full_disk_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.home.rmdir()
    with small_disk(lab.home, 1 << 20):
        lab.board.start()
        try:
            (lab.host / ".ssh" / "known_hosts").write_text((lab.board.folder / "known_hosts").read_text(encoding="utf-8"), encoding="utf-8")
            address = f"ssh://{login()}@127.0.0.1:{lab.board.port}"
            lab.call("devices", "add", "pi", address, "--identity", lab.board.folder / "user_key")
            assert "MB are free in the home folder there" in lab.refused("devices", "setup", "pi", "--python", sys.executable)
        finally:
            lab.board.stop()


def test_a_board_without_network_gets_everything_from_here(lab: Lab, ready: dict[str, Any]) -> None:
    assert ready["python"] == str(lab.venv / "bin" / "python")
    assert ready["num_wheels"] >= 5
    assert "litert" in ready["site"]["runtimes"]
    assert (lab.home / ".cache/edgeseg/device").stat().st_mode & 0o777 == 0o700
    assert len(list((lab.venv.parent / "venvs").iterdir())) == 1
    assert not (lab.venv.parent / "wheels").exists()


def test_check_says_what_the_board_is(lab: Lab, ready: dict[str, Any]) -> None:
    done = lab.call("devices", "check", "pi")
    assert done.returncode == 0, done.stderr
    for words in ("reached: Python", "edgeseg 0.", "litert ", "targets:", "GB free", "sensor"):
        assert words in done.stdout


def test_a_bundle_is_verified_and_measured_there(lab: Lab, ready: dict[str, Any], tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "null").folder
    done = lab.call("verify", bundle, "--device", "pi", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] is True
    assert found["device"].startswith("ssh://")
    done = lab.call("bench", bundle, "--device", "pi", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["device"].startswith("ssh://")


def test_a_host_that_dies_leaves_the_old_environment_and_no_process(lab: Lab, ready: dict[str, Any]) -> None:
    before = os.readlink(lab.venv)  # noqa: PTH115 - the name itself
    host = lab.start("devices", "setup", "pi", "--extra", "pi", "--python", sys.executable)
    try:
        assert comes_true(lambda: len(list((lab.venv.parent / "venvs").iterdir())) == 2 or host.poll() is not None)
        assert host.poll() is None
        assert lab.working()
        host.send_signal(signal.SIGKILL)
    finally:
        host.kill()
        host.communicate()
    assert comes_true(lambda: not lab.working(), every_s=0.1), lab.working()
    assert os.readlink(lab.venv) == before  # noqa: PTH115 - the name itself
    assert [path.name for path in (lab.venv.parent / "venvs").iterdir()] == [Path(before).name]
    assert lab.call("devices", "check", "pi").returncode == 0
