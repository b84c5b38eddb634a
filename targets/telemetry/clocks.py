"""Clocks: cpufreq gives kHz by policy, devfreq Hz by device (docs.kernel.org, cpufreq and devfreq)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from targets.telemetry.base import Absent, Column, Probe, Sensor, column_name, files_probe, numbered, text_or, unique

_GPU_MARKS: Final = ("gpu", "ga10b", "gv11b", "gp10b", "mali")
"""Jetson Orin's GPU is `17000000.gpu` on JetPack 6 and `17000000.ga10b` on JetPack 5."""


def _open_cpu(root: Path) -> Probe | Absent:
    found: dict[Column, tuple[Path, float]] = {}
    for policy in numbered(root / "sys/devices/system/cpu/cpufreq", "policy*"):
        cpus = text_or(policy / "affected_cpus", text_or(policy / "related_cpus", policy.name.removeprefix("policy"))).split()
        span = cpus[0] if len(cpus) == 1 else f"{cpus[0]}_to_{cpus[-1]}" if cpus else policy.name
        found[Column(name=unique(column_name("cpu", span), "mhz", found), role="clock")] = (policy / "scaling_cur_freq", 1e-3)
    return files_probe(found, Absent("no cpufreq here (virtual machines have none)"))


def _open_gpu(root: Path) -> Probe | Absent:
    found: dict[Column, tuple[Path, float]] = {}
    for device in numbered(root / "sys/class/devfreq", "*"):
        if any(mark in device.name for mark in _GPU_MARKS):
            found[Column(name=unique("gpu", "mhz", found), role="clock")] = (device / "cur_freq", 1e-6)
    return files_probe(found, Absent("no GPU below /sys/class/devfreq"))


CPU_CLOCK: Final = Sensor(name="cpu-clock", about="clock of each cpufreq policy", open=_open_cpu)
GPU_CLOCK: Final = Sensor(name="gpu-clock", about="clock of the GPU, from devfreq", open=_open_gpu)
