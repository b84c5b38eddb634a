"""Recorded trees: the files of real boards' sysfs and procfs that telemetry reads, with their names, units and line ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

VCGENCMD: Final = """#!/bin/sh
answer="$(dirname "$0")/../../firmware/$1"
if [ -e "$answer" ]; then exec cat "$answer"; fi
echo 'error=1 error_msg="Command not registered"'
"""
"""Stands in for the firmware, which there is only on a Pi: it prints the file of the question's name."""

PMIC: Final = """ 3V7_WL_SW_A current(0)=0.10000000A
   3V3_SYS_A current(1)=0.20000000A
  VDD_CORE_A current(7)=2.00000000A
   3V3_DAC_A current(17)=0.00006105A
 3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
  VDD_CORE_V volt(15)=0.80000000V
     EXT5V_V volt(24)=5.10000000V
      BATT_V volt(25)=0.00000000V
"""
"""0.37 + 0.66 + 1.6 W; the converter has no voltage, the input and the battery no current."""


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write files below a root, as sysfs ends them: one line end."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.endswith(("\n", "\0")) else f"{text}\n", encoding="utf-8")
    return root


def _process(root: Path) -> None:
    write(root, {
        "proc/meminfo": "MemTotal:        8008460 kB\nMemFree:          200000 kB\nMemAvailable:    6000000 kB",
        "proc/self/status": "Name:\tpython3\nVmHWM:\t   90000 kB\nVmRSS:\t   80000 kB",
        "proc/self/smaps_rollup": "Rss:               80000 kB\nPss:               70000 kB\nPss_Dirty:         60000 kB",
        "proc/self/stat": "7 (a name) with) S 1 7 7 0 -1 0 0 0 0 0 300 100 0 0 20 0 5 0 100 1 1",
        "proc/stat": "cpu  1000 20 480 90000 10 0 100 50 0 0\ncpu0 500 10 240 45000 5 0 50 25 0 0",
    })


def _pi(root: Path, *, revision: str, policies: Mapping[str, str], throttled: str, clock: str) -> Path:
    write(root, {
        "proc/device-tree/model": f"Raspberry Pi {revision}\0",
        "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n",
        "proc/device-tree/chosen/bootloader/version": "f51a4ec02f36dcbbf55c0c50bbd3b4c0cbbf1c72\0",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": "47250",
        "sys/class/thermal/cooling_device0/type": "pwm-fan",
        "sys/class/thermal/cooling_device0/cur_state": "2",
        "sys/class/hwmon/hwmon0/name": "cpu_thermal",
        "sys/class/hwmon/hwmon0/temp1_input": "47250",
        "sys/class/hwmon/hwmon1/name": "rpi_volt",
        "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0",
        "sys/devices/system/cpu/cpufreq/policy0/affected_cpus": "0 1 2 3",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand",
        **{f"sys/devices/system/cpu/cpufreq/policy0/{name}": value for name, value in policies.items()},
        "firmware/get_throttled": f"throttled={throttled}",
        "firmware/measure_clock": f"frequency(0)={clock}",
        "usr/bin/vcgencmd": VCGENCMD,
    })
    (root / "proc/device-tree/chosen/bootloader/build-timestamp").write_bytes((1_727_091_122).to_bytes(4, "big"))
    (root / "usr/bin/vcgencmd").chmod(0o755)
    _process(root)
    return root


def raspberry_pi_4(root: Path) -> Path:
    """A Pi 4 that was throttled earlier and is not now: 0xe0000."""
    return _pi(root, revision="4 Model B Rev 1.5", policies={"scaling_cur_freq": "1800000"}, throttled="0xe0000", clock="1800404352")


def raspberry_pi_5(root: Path) -> Path:
    """A Pi 5 with a power chip that can be read."""
    _pi(root, revision="5 Model B Rev 1.0", policies={"scaling_cur_freq": "2400000"}, throttled="0x0", clock="2400033792")
    return write(root, {"firmware/pmic_read_adc": PMIC})


def jetson_orin_nano(root: Path) -> Path:
    """A Jetson Orin Nano on JetPack 6 in its 15 W mode."""
    hwmon, thermal, cpu = "sys/class/hwmon", "sys/class/thermal", "sys/devices/system/cpu/cpufreq"
    write(root, {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64, DATE: Thu Sep 18 2025",
        "etc/nvpmodel.conf": "< PARAM TYPE=FILE NAME=CPU_ONLINE >\n< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n"
                             "< POWER_MODEL ID=1 NAME=7W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=0 >",
        "var/lib/nvpmodel/status": "pmode:0002",
        f"{thermal}/thermal_zone0/type": "cpu-thermal", f"{thermal}/thermal_zone0/temp": "52343",
        f"{thermal}/thermal_zone1/type": "gpu-thermal", f"{thermal}/thermal_zone1/temp": "51000",
        f"{thermal}/thermal_zone2/type": "cv0-thermal",
        f"{thermal}/thermal_zone8/type": "tj-thermal", f"{thermal}/thermal_zone8/temp": "52343",
        f"{thermal}/cooling_device0/type": "cpufreq-cpu0", f"{thermal}/cooling_device0/cur_state": "0",
        f"{thermal}/cooling_device1/type": "cpufreq-cpu4", f"{thermal}/cooling_device1/cur_state": "0",
        f"{thermal}/cooling_device2/type": "devfreq-17000000.gpu", f"{thermal}/cooling_device2/cur_state": "0",
        f"{thermal}/cooling_device3/type": "cpu-throttle-alert", f"{thermal}/cooling_device3/cur_state": "0",
        f"{thermal}/cooling_device4/type": "hot-surface-alert", f"{thermal}/cooling_device4/cur_state": "1",
        f"{thermal}/cooling_device5/type": "pwm-fan", f"{thermal}/cooling_device5/cur_state": "3",
        f"{cpu}/policy0/affected_cpus": "0 1 2 3", f"{cpu}/policy0/scaling_cur_freq": "1728000",
        f"{cpu}/policy4/affected_cpus": "4 5", f"{cpu}/policy4/scaling_cur_freq": "729600",
        **{f"{cpu}/policy{n}/scaling_governor": "schedutil" for n in (0, 4)},
        "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000", "sys/class/devfreq/15340000.vic/cur_freq": "729600000",
        f"{hwmon}/hwmon0/name": "pwmfan", f"{hwmon}/hwmon0/pwm1": "90",
        f"{hwmon}/hwmon1/name": "ina3221",
        f"{hwmon}/hwmon1/in1_label": "VDD_IN", f"{hwmon}/hwmon1/in1_enable": "1",
        f"{hwmon}/hwmon1/in1_input": "5000", f"{hwmon}/hwmon1/curr1_input": "1600",
        f"{hwmon}/hwmon1/in2_label": "VDD_CPU_GPU_CV", f"{hwmon}/hwmon1/in2_input": "4992", f"{hwmon}/hwmon1/curr2_input": "500",
        f"{hwmon}/hwmon1/in3_label": "VDD_SOC", f"{hwmon}/hwmon1/in3_input": "4984", f"{hwmon}/hwmon1/curr3_input": "264",
        f"{hwmon}/hwmon1/in4_input": "8000", f"{hwmon}/hwmon1/in7_label": "Sum of shunt voltages", f"{hwmon}/hwmon1/in7_input": "11000",
        f"{hwmon}/hwmon1/curr4_input": "2364",
        f"{hwmon}/hwmon3/name": "soctherm_oc",
        **{f"{hwmon}/hwmon3/oc{n}_event_cnt": count for n, count in ((1, "0"), (2, "0"), (3, "179"))},
        **{f"{hwmon}/hwmon3/oc{n}_throt_en": "1" for n in (1, 2, 3)},
    })
    (root / thermal / "thermal_zone2/temp").mkdir()  # the kernel says EAGAIN while that part has no power; a folder cannot be read either
    _process(root)
    return root


def intel(root: Path) -> Path:
    """An Intel laptop: RAPL, counters of throttling, temperatures as zone and as hwmon."""
    rapl, cpu = "sys/class/powercap", "sys/devices/system/cpu"
    write(root, {
        "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i5-8250U CPU\nmicrocode\t: 0xf6\n"
                        "flags\t\t: fpu vme avx2\n",
        "sys/class/dmi/id/bios_vendor": "LENOVO", "sys/class/dmi/id/bios_version": "N1QET98W (1.73 )",
        "sys/class/dmi/id/bios_date": "06/20/2023",
        "sys/firmware/acpi/platform_profile": "balanced",
        f"{cpu}/intel_pstate/no_turbo": "0", f"{cpu}/smt/active": "1",
        **{f"{cpu}/cpufreq/policy{n}/{name}": value for n in range(4) for name, value in (
            ("affected_cpus", str(n)), ("scaling_cur_freq", "3400000"), ("scaling_governor", "powersave"),
            ("energy_performance_preference", "balance_performance"))},
        **{f"{cpu}/cpu{n}/thermal_throttle/{kind}_throttle_count": count for n in range(4)
           for kind, count in (("core", str(n % 2)), ("package", "7"))},
        **{f"{cpu}/cpu{n}/topology/physical_package_id": "0" for n in range(4)},
        **{f"{cpu}/cpu{n}/topology/core_id": str(n % 2) for n in range(4)},
        "sys/class/thermal/thermal_zone0/type": "acpitz", "sys/class/thermal/thermal_zone0/temp": "44000",
        "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp", "sys/class/thermal/thermal_zone1/temp": "61000",
        "sys/class/thermal/cooling_device0/type": "Processor", "sys/class/thermal/cooling_device0/cur_state": "0",
        "sys/class/hwmon/hwmon4/name": "coretemp", "sys/class/hwmon/hwmon4/temp1_label": "Package id 0",
        "sys/class/hwmon/hwmon4/temp1_input": "61000", "sys/class/hwmon/hwmon4/temp2_label": "Core 0",
        "sys/class/hwmon/hwmon4/temp2_input": "60000",
        f"{rapl}/intel-rapl/enabled": "1",
        f"{rapl}/intel-rapl:0/name": "package-0", f"{rapl}/intel-rapl:0/energy_uj": "262143000000",
        f"{rapl}/intel-rapl:0/max_energy_range_uj": "262143328850",
        f"{rapl}/intel-rapl:0:0/name": "core", f"{rapl}/intel-rapl:0:0/energy_uj": "1000000",
        f"{rapl}/intel-rapl:0:0/max_energy_range_uj": "262143328850",
        f"{rapl}/intel-rapl:0:2/name": "dram", f"{rapl}/intel-rapl:0:2/energy_uj": "5000000",
        f"{rapl}/intel-rapl:0:2/max_energy_range_uj": "65712999613",
        f"{rapl}/intel-rapl-mmio:0/name": "package-0", f"{rapl}/intel-rapl-mmio:0/energy_uj": "1",
    })
    _process(root)
    return root


def x86_without_thermal(root: Path) -> Path:
    """A small x86 server: cpufreq, and nothing else."""
    write(root, {
        "proc/cpuinfo": "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 7B13\nflags\t\t: fpu hypervisor\n",
        "sys/devices/system/cpu/cpufreq/boost": "0",
        "sys/devices/system/cpu/cpufreq/policy0/affected_cpus": "0",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "2450000",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "performance",
    })
    _process(root)
    return root
