"""What says that a processor was held back: x86 counters, the thermal framework's cooling devices, Jetson's over-current events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from targets.telemetry.base import (
    Absent,
    Column,
    Probe,
    Reading,
    Sensor,
    column_name,
    files_probe,
    numbered,
    read_number,
    text_or,
    unique,
)

_COOLED: Final = re.compile(r"(thermal-)?(cpufreq|devfreq)-|.*-throttle-alert$|Processor$")
"""Types of cooling devices that hold a clock back; fans and Jetson's `hot-surface-alert` are some, too, and say nothing about speed."""
_OC_EVENTS: Final = {1: "under_voltage", 2: "average_over_current", 3: "instantaneous_over_current"}
"""Jetson Linux developer guide, "Electrical Management of Orin": OC1 under-voltage, OC2 average and OC3 instantaneous over-current."""


@dataclass(frozen=True)
class _X86Counters:
    """Sums of the counters of all cores, and of one processor of each package."""

    files: Mapping[str, tuple[Path, ...]]
    columns: tuple[Column, ...]

    def read(self) -> Mapping[str, Reading]:
        return {name: sum(read_number(file) for file in files) for name, files in self.files.items()}

    def close(self) -> None:
        pass


def _open_x86(root: Path) -> Probe | Absent:
    found: dict[str, dict[tuple[str, ...], Path]] = {"core": {}, "package": {}}
    for cpu in numbered(root / "sys/devices/system/cpu", "cpu[0-9]*"):
        package = text_or(cpu / "topology/physical_package_id", "0")
        owners = {"core": (package, text_or(cpu / "topology/core_id", cpu.name)), "package": (package,)}
        for kind, owner in owners.items():
            file = cpu / "thermal_throttle" / f"{kind}_throttle_count"
            if file.is_file():
                found[kind].setdefault(owner, file)
    files = {f"{kind}_throttle_events": tuple(by_owner.values()) for kind, by_owner in found.items() if by_owner}
    if not files:
        return Absent("no thermal_throttle counters (they are Intel's)")
    return _X86Counters(files, tuple(Column(name=name, kind="counter", role="throttle") for name in files))


def _open_cooling(root: Path) -> Probe | Absent:
    found: dict[Column, tuple[Path, float]] = {}
    for device in numbered(root / "sys/class/thermal", "cooling_device*"):
        kind = text_or(device / "type")
        if _COOLED.match(kind):
            found[Column(name=unique(column_name(kind), "state", found), role="throttle")] = (device / "cur_state", 1.0)
    return files_probe(found, Absent("no cooling device of the thermal framework holds a clock"))


def _open_oc(root: Path) -> Probe | Absent:
    found: dict[Column, tuple[Path, float]] = {}
    for chip in numbered(root / "sys/class/hwmon", "hwmon*"):
        for file in numbered(chip, "oc*_event_cnt"):
            number = int(file.name.removeprefix("oc").removesuffix("_event_cnt"))
            name = column_name(f"oc{number}", _OC_EVENTS.get(number, ""))
            found[Column(name=unique(name, "events", found), kind="counter", role="throttle")] = (file, 1.0)
    return files_probe(found, Absent("no over-current event counters (they are Jetson's)"))


X86_THROTTLE: Final = Sensor(name="x86-throttle", about="Intel's counters of thermal throttling, cores and packages", open=_open_x86)
COOLING: Final = Sensor(name="cooling", about="clocks held back by the kernel's thermal framework", open=_open_cooling)
JETSON_OC: Final = Sensor(name="jetson-oc", about="Jetson's under-voltage and over-current events", open=_open_oc)
