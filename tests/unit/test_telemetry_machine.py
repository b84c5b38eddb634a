"""How a machine is set up: read of real boards' trees, shown by doctor, and absent in results of before."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from board_trees import intel, jetson_orin_nano, raspberry_pi_5, write, x86_without_thermal

from targets.doctor import Row, examine
from targets.machine import NOT_AVAILABLE, Machine, describe_machine

NEW = ("governors", "power_mode", "boost", "smt", "firmware", "virtual", "cpu_limit", "accelerators")


def rows(root: Path) -> dict[str, Row]:
    return {row.what: row for row in examine(version_of=lambda name: None, root=root).rows}


def test_power_mode_of_a_jetson(tmp_path: Path) -> None:
    root = jetson_orin_nano(tmp_path)
    machine = describe_machine(root)
    assert machine.power_mode == "MAXN_SUPER (mode 2)"
    assert machine.firmware == "Jetson Linux R36.4.7"
    assert machine.governors == "schedutil (2 policies)"
    write(root, {"var/lib/nvpmodel/status": "pmode:0012"})
    assert describe_machine(root).power_mode == "mode 12"


def test_bootloader_of_a_pi(tmp_path: Path) -> None:
    machine = describe_machine(raspberry_pi_5(tmp_path))
    assert machine.firmware == "bootloader 2024-09-23 f51a4ec02f36"
    assert (machine.governors, machine.virtual) == ("ondemand (policy0)", "no")
    assert machine.power_mode == NOT_AVAILABLE


def test_an_intel_laptop(tmp_path: Path) -> None:
    machine = describe_machine(intel(tmp_path))
    assert machine.governors == "powersave/balance_performance (4 policies)"
    assert (machine.power_mode, machine.boost, machine.smt) == ("balanced", "on", "on")
    assert machine.firmware == "BIOS LENOVO N1QET98W (1.73 ) 06/20/2023, microcode 0xf6"


def test_gpus_and_npus_of_known_makers(tmp_path: Path) -> None:
    pci = {"drm/renderD128": ("0x8086", "0x7d55"), "drm/renderD129": ("0x10de", "0x2684"), "accel/accel0": ("0x8086", "0x7d1d"),
           "drm/renderD130": ("0x1234", "0x1111")}
    write(tmp_path, {f"sys/class/{node}/device/{name}": value for node, pair in pci.items()
                     for name, value in zip(("vendor", "device"), pair, strict=True)})
    assert describe_machine(tmp_path).accelerators == "Intel GPU 7d55, NVIDIA GPU 2684, Intel NPU 7d1d"


def test_a_virtual_machine_and_a_container(tmp_path: Path) -> None:
    root = x86_without_thermal(tmp_path)
    assert describe_machine(root).virtual == "virtual machine"
    assert describe_machine(root).boost == "off"
    write(root, {".dockerenv": ""})
    assert describe_machine(root).virtual == "virtual machine, container"


@pytest.mark.parametrize(("files", "limit"), [
    ({}, NOT_AVAILABLE),
    ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cgroup.controllers": "cpu memory"}, "none"),
    ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, "1.50 processors"),
    ({"proc/self/cgroup": "0::/user.slice/job", "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000",
      "sys/fs/cgroup/user.slice/cpu.max": "50000 100000"}, "0.50 processors"),
    ({"proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a", "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "200000",
      "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, "2.00 processors"),
    ({"proc/self/cgroup": "3:cpu,cpuacct:/docker/1", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
      "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000"}, "none"),
])
def test_processor_limits_of_control_groups(files: dict[str, str], limit: str, tmp_path: Path) -> None:
    assert describe_machine(write(tmp_path, files)).cpu_limit == limit


def test_nothing_is_not_available(tmp_path: Path) -> None:
    machine = describe_machine(tmp_path)
    assert {name: getattr(machine, name) for name in NEW} == dict.fromkeys(NEW, NOT_AVAILABLE)


def test_results_of_before_still_load() -> None:
    old = {name: value for name, value in asdict(describe_machine()).items() if name not in NEW}
    assert Machine(**old).power_mode == NOT_AVAILABLE


def test_doctor_says_what_there_is_and_why_the_rest_is_not(tmp_path: Path) -> None:
    found = rows(raspberry_pi_5(tmp_path))
    assert "temperature: cpu_thermal 47.25 °C" in found["telemetry"].detail
    assert "pi-power: pmic_rails 2.63 W" in found["telemetry"].detail
    assert "rapl: no RAPL" in found["no telemetry"].detail
    assert "jetson" not in found["no telemetry"].detail, "what another board has is not missing here"
    assert "ondemand" in found["speed"].detail


def test_doctor_says_what_to_type_for_a_sensor_that_could_be_read(tmp_path: Path) -> None:
    root = write(raspberry_pi_5(tmp_path), {"firmware/get_throttled": "Can't open device file: /dev/vcio"})
    found = rows(root)["sensor pi-throttled"]
    assert found.status == "missing"
    assert "usermod -aG video" in found.fix
