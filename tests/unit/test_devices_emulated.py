"""What an emulated board says of itself, what it refuses, and the parts that need no emulator; tests/e2e/test_emulated_pi.py runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeseg.cli.console import Console
from edgeseg.core.errors import ConfigError, DeviceError, TargetError
from edgeseg.workflow import devices
from edgeseg.workflow.places import find_place
from edgeseg.workflow.ui import Silent
from targets.boards import TARGETS, find_target, measured_on
from targets.devices import Job, open_device
from targets.devices.base import DeviceOptions
from targets.devices.emulated import EmulatedDevice, emulated_target, refuse_times
from targets.devices.emulation.boards import BOARDS, machine_files
from targets.devices.emulation.debian import take_file, unpack
from targets.devices.emulation.environment import open_environment
from targets.machine import describe_machine
from targets.measure.jobs import JOBS


def silent(stage: str, done: float) -> None:
    pass


def lay(board: str, root: Path) -> Path:
    for name, text in machine_files(BOARDS[board]).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(("board", "cpu"), [("raspberry-pi-4", "4x Cortex-A72"), ("raspberry-pi-5", "4x Cortex-A76")])
def test_a_board_describes_itself_and_never_passes_for_the_real_one(board: str, cpu: str, tmp_path: Path) -> None:
    machine = describe_machine(lay(board, tmp_path))
    assert (machine.cpu, machine.cpu_vendor, machine.governor) == (cpu, "ARM", "not available")
    assert machine.board == f"emulated {find_target(board).title}"
    assert not any(target.matches(machine) for name, target in TARGETS.items() if name != "host")
    assert measured_on(find_target(board), machine).words == f"{machine.board} ({cpu}), not the target"


def test_only_the_pi_5_has_dot_products() -> None:
    for board, has in (("raspberry-pi-4", False), ("raspberry-pi-5", True)):
        cpuinfo = machine_files(BOARDS[board])["proc/cpuinfo"]
        assert cpuinfo.count("processor\t: ") == 4
        assert ("asimddp" in cpuinfo) is has


def test_main_id_and_cpuinfo_say_the_same() -> None:
    files = machine_files(BOARDS["raspberry-pi-4"])
    assert files["sys/devices/system/cpu/cpu3/regs/identification/midr_el1"] == "0x00000000410fd083\n"
    assert "CPU implementer\t: 0x41\n" in files["proc/cpuinfo"]
    assert "CPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n" in files["proc/cpuinfo"]


@pytest.mark.parametrize("job", sorted(set(JOBS) - {"answer", "describe"}))
def test_times_are_refused_before_anything_is_built(job: str, tmp_path: Path) -> None:
    device = EmulatedDevice("raspberry-pi-5", "", tmp_path)
    with pytest.raises(TargetError, match=r"^emulated: answers only; measuring x on emulated:raspberry-pi-5 .*ssh://USER@BOARD"):
        device.run(Job({"job": job}), what="measuring x", timeout_s=60, on_progress=silent)
    assert not any(tmp_path.iterdir())


def test_addresses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path))
    device = open_device("emulated:raspberry-pi-4", "bench pi")
    assert (device.name, device.address) == ("bench pi", "emulated:raspberry-pi-4")
    assert open_device("emulated:raspberry-pi-5").name == "emulated:raspberry-pi-5"
    with pytest.raises(ConfigError, match="no such board is emulated; type one of emulated:raspberry-pi-4, emulated:raspberry-pi-5"):
        open_device("emulated:raspberry-pi-3")
    with pytest.raises(ConfigError, match="takes no options"):
        open_device("emulated:raspberry-pi-4", options=DeviceOptions(python="/usr/bin/python3"))


def test_measuring_and_setting_up_refuse_before_anything_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGESEG_DEVICES", str(tmp_path / "devices.toml"))
    with pytest.raises(TargetError, match=r"^emulated: answers only"):
        find_place("emulated:raspberry-pi-5", timed=True, ui=Silent())
    with pytest.raises(ConfigError, match="leave out --extra, --offline and --python"):
        devices.prepare("emulated:raspberry-pi-5", extras=(), offline=True, python="python3", ui=Console(quiet=True))
    assert not any(tmp_path.iterdir())


def test_only_an_emulated_address_names_its_target() -> None:
    assert [emulated_target(address) for address in ("emulated:raspberry-pi-4", "local", "ssh://emulated:22")] == ["raspberry-pi-4", "", ""]
    refuse_times("ssh://pi@board", "measuring")


def test_every_emulated_board_is_a_target() -> None:
    assert set(BOARDS) <= set(TARGETS)


def test_a_machine_without_apt_is_told_what_to_do_instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DeviceError, match=r"^there is no qemu-aarch64-static on this machine, and apt-get is not .*--device ssh://USER@BOARD$"):
        open_environment(tmp_path / "cache", print)
    (tmp_path / "bin" / "qemu-aarch64").touch(mode=0o755)
    with pytest.raises(DeviceError, match=r"^the emulated board is made of Debian packages, and apt-get is not on this machine"):
        open_environment(tmp_path / "cache", print)
    assert [path.name for path in (tmp_path / "cache" / "emulation").iterdir()] == ["lock"]


def package(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A .deb as Debian's own tool makes it."""
    tree = folder / name
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: d\n"
    for path, text in {"DEBIAN/control": control, **files}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text, encoding="utf-8")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(folder / f"{name}.deb")], check=True, capture_output=True)
    return folder / f"{name}.deb"


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb on this machine")
def test_packages_are_unpacked_and_searched(tmp_path: Path) -> None:
    packages = [package(tmp_path, "a", {"usr/lib/x.so": "x"}), package(tmp_path, "b", {"usr/bin/qemu-aarch64": "emulator"})]
    root = tmp_path / "root"
    unpack(packages, root)
    assert (root / "lib" / "x.so").read_text(encoding="utf-8") == "x", "where a program looks for it, whatever the release"
    assert (root / "lib").readlink() == Path("usr/lib")
    target = tmp_path / "taken"
    assert take_file(packages, ("qemu-aarch64-static", "qemu-aarch64"), target)
    assert target.read_text(encoding="utf-8") == "emulator"
    assert os.access(target, os.X_OK)
    assert not take_file(packages[:1], ("qemu-aarch64",), tmp_path / "none")
    assert not (tmp_path / "none").exists()
