"""What the sensors read of real boards' trees, with units and reasons; nothing is ever 0 for want of an answer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from board_trees import intel, jetson_orin_nano, raspberry_pi_4, raspberry_pi_5, write, x86_without_thermal

from edgeseg.core.errors import ConfigError
from targets.boards import TARGETS
from targets.telemetry.base import UNITS, Absent
from targets.telemetry.describe import SensorStatus, describe_sensors
from targets.telemetry.energy import energy
from targets.telemetry.raspberry_pi import decode_throttled
from targets.telemetry.recorder import Sampler
from targets.telemetry.sensors import GENERIC, SENSORS, find_sensors
from targets.telemetry.trace import Trace
from targets.telemetry.usage import pss_bytes

Tree = Callable[[Path], Path]
TREES: dict[str, Tree] = {"raspberry-pi-4": raspberry_pi_4, "raspberry-pi-5": raspberry_pi_5, "jetson-orin-nano": jetson_orin_nano,
                          "intel-cpu": intel, "x86": x86_without_thermal, "nothing": lambda root: root}


def statuses(root: Path, *sensors: str) -> dict[str, SensorStatus]:
    return {status.sensor: status for status in describe_sensors(sensors or tuple(SENSORS), root)}


def readings(root: Path, sensor: str) -> dict[str, float]:
    return statuses(root, sensor)[sensor].readings


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A root that anybody may enter; a test that runs as root goes on as nobody until it ends."""
    with tempfile.TemporaryDirectory(prefix="edgeseg-tree-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        yield root
        if os.getuid() == 0:
            os.seteuid(0)


def become_nobody() -> None:
    if os.getuid() == 0:
        os.seteuid(65534)


@pytest.mark.parametrize("name", TREES)
def test_every_sensor_answers_or_says_why(name: str, tmp_path: Path) -> None:
    root = TREES[name](tmp_path)
    for sensor in SENSORS.values():
        probe = sensor.open(root)
        if isinstance(probe, Absent):
            assert probe.why
            continue
        assert probe.columns
        said = probe.read()
        assert set(said) == {column.name for column in probe.columns}
        assert all(isinstance(value, (int, float)) for value in said.values()), said
        assert all(column.name.endswith(tuple(f"_{unit}" for unit in UNITS)) for column in probe.columns)
        probe.close()


def test_names_are_those_of_the_registry() -> None:
    assert all(SENSORS[name].name == name for name in SENSORS)
    assert all(set(target.sensors) <= set(SENSORS) for target in TARGETS.values())
    assert all(set(GENERIC) <= set(target.sensors) for target in TARGETS.values())
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        find_sensors(["temprature"])


@pytest.mark.parametrize("board", ["raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano", "intel-cpu"])
def test_a_boards_own_sensors_answer_there(board: str, tmp_path: Path) -> None:
    found = statuses(TREES[board](tmp_path), *TARGETS[board].sensors)
    own = [name for name in TARGETS[board].sensors if name not in GENERIC] or ["rapl", "x86-throttle"]
    assert all(found[name].readings for name in ("temperature", "cpu-clock", "memory", "load", *own))
    assert not any(status.fix for status in found.values())


def test_nothing_there_is_said_and_not_zero(tmp_path: Path) -> None:
    for status in statuses(tmp_path).values():
        assert not status.readings
        assert status.why
        assert status.words == status.why


def test_cpufreq_without_thermal(tmp_path: Path) -> None:
    found = statuses(x86_without_thermal(tmp_path))
    assert found["cpu-clock"].readings == {"cpu_0_mhz": 2450.0}
    assert "no thermal zone" in found["temperature"].why
    assert not found["power-rails"].readings
    assert not found["rapl"].readings


def test_a_pi_answers_through_its_firmware(tmp_path: Path) -> None:
    root = raspberry_pi_5(tmp_path)
    assert readings(root, "temperature") == {"cpu_thermal_c": 47.25}, "the zone's hwmon device is the same once more"
    assert readings(root, "cpu-clock") == {"cpu_0_to_3_mhz": 2400.0}
    assert readings(root, "pi-clock")["arm_mhz"] == pytest.approx(2400.033792)
    assert readings(root, "pi-throttled") == {"pi_throttled_bits": 0}
    assert readings(root, "pi-power")["pmic_rails_w"] == pytest.approx(0.37 + 0.66 + 1.6)
    assert "holds a clock" in statuses(root, "cooling")["cooling"].why, "a fan holds no clock"


def test_a_pi_4_has_no_power_chip_to_ask(tmp_path: Path) -> None:
    found = statuses(raspberry_pi_4(tmp_path))
    assert "Command not registered" in found["pi-power"].why
    assert found["pi-throttled"].readings == {"pi_throttled_bits": 0xE0000}
    assert "0xe0000" in found["pi-throttled"].words


@pytest.mark.parametrize(("bits", "now", "since_boot"), [
    (0x0, (), ()),
    (0x50005, ("under-voltage", "throttled"), ("under-voltage", "throttled")),
    (0xE0008, ("soft temperature limit active",), ("ARM frequency capped", "throttled", "soft temperature limit active")),
    (0x20002, ("ARM frequency capped",), ("ARM frequency capped",)),
])
def test_throttling_bits_in_words(bits: int, now: tuple[str, ...], since_boot: tuple[str, ...]) -> None:
    assert decode_throttled(bits) == (now, since_boot)


@pytest.mark.parametrize(("answer", "why", "fix"), [
    ("Can't open device file: /dev/vcio\nTry creating a device file with: sudo mknod /dev/vcio c 100 0", "/dev/vcio", "usermod -aG video"),
    ("VCHI initialization failed", "VCHI", "usermod -aG video"),
    ("throttled=0x80000001", "failed to answer", ""),
    ("throttled=yes", "vcgencmd says", ""),
])
def test_firmware_that_does_not_answer(answer: str, why: str, fix: str, tmp_path: Path) -> None:
    status = statuses(write(raspberry_pi_4(tmp_path), {"firmware/get_throttled": answer}), "pi-throttled")["pi-throttled"]
    assert not status.readings
    assert why in status.why
    assert fix in status.fix
    assert bool(fix) == bool(status.fix)


def test_a_jetsons_rails_clocks_and_events(tmp_path: Path) -> None:
    root = jetson_orin_nano(tmp_path)
    rails = readings(root, "power-rails")
    assert rails == {"VDD_IN_w": pytest.approx(8.0), "VDD_CPU_GPU_CV_w": pytest.approx(2.496), "VDD_SOC_w": pytest.approx(1.315776)}
    probe = SENSORS["power-rails"].open(root)
    assert not isinstance(probe, Absent)
    assert [column.name for column in probe.columns if column.covers] == ["VDD_IN_w"], "it feeds the others"
    assert readings(root, "temperature") == {"cpu_thermal_c": 52.343, "gpu_thermal_c": 51.0, "tj_thermal_c": 52.343}
    assert readings(root, "gpu-clock") == {"gpu_mhz": 1020.0}
    assert readings(root, "cpu-clock") == {"cpu_0_to_3_mhz": 1728.0, "cpu_4_to_5_mhz": 729.6}
    assert readings(root, "jetson-oc") == {
        "oc1_under_voltage_events": 0, "oc2_average_over_current_events": 0, "oc3_instantaneous_over_current_events": 179}
    assert readings(root, "cooling") == dict.fromkeys(
        ("cpufreq_cpu0_state", "cpufreq_cpu4_state", "devfreq_17000000_gpu_state", "cpu_throttle_alert_state"), 0.0)


def test_a_monitor_that_gives_power_itself_is_taken_at_its_word(tmp_path: Path) -> None:
    root = write(tmp_path, {
        "sys/class/hwmon/hwmon2/name": "ina226", "sys/class/hwmon/hwmon2/power1_input": "4125000",
        "sys/class/hwmon/hwmon2/in1_input": "5000", "sys/class/hwmon/hwmon2/curr1_input": "900",
        "sys/class/hwmon/hwmon3/name": "amdgpu", "sys/class/hwmon/hwmon3/power1_average": "12000000",
        "sys/class/hwmon/hwmon3/power1_label": "PPT",
    })
    assert readings(root, "power-rails") == {"ina226_power1_w": pytest.approx(4.125), "amdgpu_PPT_w": pytest.approx(12.0)}


def test_intel_counts_each_core_and_package_once(tmp_path: Path) -> None:
    root = intel(tmp_path)
    assert readings(root, "x86-throttle") == {"core_throttle_events": 1, "package_throttle_events": 7}
    assert set(readings(root, "temperature")) == {"acpitz_c", "x86_pkg_temp_c", "coretemp_Package_id_0_c", "coretemp_Core_0_c"}
    assert readings(root, "cooling") == {"Processor_state": 0.0}


def test_rapl_goes_on_after_its_counter_wraps_around(tmp_path: Path) -> None:
    root = intel(tmp_path)
    zone = root / "sys/class/powercap/intel-rapl:0/energy_uj"
    sampler = Sampler(find_sensors(["rapl"]), root, iter(range(0, 10**10, 10**9)).__next__)
    sampler.sample()
    zone.write_text("2000000\n", encoding="utf-8")  # 328850 uJ up to the end of the range, 2 J beyond it
    sampler.sample()
    zone.write_text("5000000\n", encoding="utf-8")
    sampler.sample()
    trace = sampler.close()
    assert trace.values["package_0_j"] == pytest.approx((0.0, 2.32885, 5.32885))
    assert trace.values["dram_j"] == (0.0, 0.0, 0.0)
    covered = {column.name: column.covers for column in trace.columns}
    assert covered == {"package_0_j": "processor package", "core_j": "", "dram_j": "memory"}


def test_energy_that_only_root_may_read(as_nobody: Path) -> None:
    root = intel(as_nobody)
    for file in (root / "sys/class/powercap").glob("*/energy_uj"):
        file.chmod(0o400)
    become_nobody()
    if os.getuid() != 0:
        for file in (root / "sys/class/powercap").glob("*/energy_uj"):
            file.chmod(0)
    status = statuses(root, "rapl")["rapl"]
    assert not status.readings
    assert "root only" in status.why
    assert status.fix == "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj"


def test_memory_and_load(tmp_path: Path) -> None:
    root = intel(tmp_path)
    assert readings(root, "memory") == {"process_rss_bytes": 80_000 * 1024, "system_available_bytes": 6_000_000 * 1024}
    ticks = os.sysconf("SC_CLK_TCK")
    others = (1000 + 20 + 480 + 100 - 400) / ticks
    assert readings(root, "load") == {"other_cpu_s": pytest.approx(others), "stolen_cpu_s": pytest.approx(50 / ticks)}
    assert pss_bytes(root) == 70_000 * 1024
    assert pss_bytes(tmp_path / "elsewhere") is None


def test_this_machine_can_be_asked() -> None:
    found = statuses(Path("/"))
    assert found["memory"].readings["process_rss_bytes"] > 2**20
    assert found["memory"].readings["system_available_bytes"] > 2**20
    assert all(status.readings or status.why for status in found.values())


def agx_orin(root: Path, *, without: str = "") -> Trace:
    """Two samples of a tree like an AGX Orin's: three rails and, on a second chip, one that lies behind the third."""
    first, second = "sys/class/hwmon/hwmon3", "sys/class/hwmon/hwmon4"
    write(root, {
        f"{first}/name": "ina3221", f"{second}/name": "ina3221", f"{second}/in1_label": "NC", f"{second}/in1_input": "0",
        f"{second}/curr1_input": "0", f"{second}/in2_label": "VDDQ_VDD2_1V8AO", f"{second}/in2_input": "4968",
        f"{second}/curr2_input": "400", f"{first}/in7_label": "sum of shunt voltages", f"{first}/in7_input": "760",
        f"{first}/curr4_input": "360",
        **{f"{first}/{name}": value
           for number, label, mv, ma in ((1, "VDD_GPU_SOC", 20000, 500), (2, "VDD_CPU_CV", 20000, 100), (3, "VIN_SYS_5V0", 5000, 1000))
           for name, value in ((f"in{number}_label", label), (f"in{number}_input", str(mv)), (f"curr{number}_input", str(ma)))
           if label != without},
    })
    now = iter(range(0, 10**12, 10**9))
    sampler = Sampler(find_sensors(["power-rails", "rapl"]), root, lambda: next(now))
    sampler.sample()
    sampler.sample()
    return sampler.close()


def test_the_rails_of_a_jetson_agx_orin_are_added_up(tmp_path: Path) -> None:
    """GPU with SoC, CPU with CV, and 5 V for the rest, which holds VDDQ: that one is not added."""
    trace = agx_orin(tmp_path)
    assert trace.values["VDDQ_VDD2_1V8AO_w"][0] == pytest.approx(1.9872)
    found = energy(trace)
    assert not isinstance(found, Absent)
    assert found.mean_w == pytest.approx(10 + 2 + 5)
    assert found.covers == "the module's input (VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0)"


@pytest.mark.parametrize("without", ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"])
def test_two_of_the_three_rails_of_a_jetson_agx_orin_are_not_the_whole_of_it(tmp_path: Path, without: str) -> None:
    found = energy(agx_orin(tmp_path, without=without))
    assert isinstance(found, Absent)
    assert found.why.endswith("(virtual machines have none); power-rails: no rail of the whole machine)")
