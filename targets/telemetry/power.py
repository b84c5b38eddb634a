"""Power: hwmon monitors (INA3221 of a Jetson, INA2xx and others) and the energy counters of RAPL.

hwmon gives mV, mA and uW (docs.kernel.org/hwmon/sysfs-interface, hwmon/ina3221), powercap uJ that wrap around at `max_energy_range_uj`
(docs.kernel.org/power/powercap/powercap).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from targets.telemetry.base import (
    Absent,
    Column,
    Probe,
    Reading,
    Sensor,
    column_name,
    explain,
    numbered,
    read_number,
    read_text,
    text_or,
    unique,
)

_WHOLE: Final[tuple[tuple[str, ...], ...]] = (("VDD_IN",), ("POM_5V_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
"""Labels of the rails that together are all a Jetson module takes in; those it has besides lie behind them.

VDD_IN of Orin NX, Orin Nano, Xavier NX and TX2 is "Total Module Power", and POM_5V_IN that of a Nano. An AGX Orin has no such rail: its GPU
and SoC, its CPU and CV cores, and the 5 V that all else gets are measured one by one, and "VDDQ_VDD2_1V8AO power is also included in
VIN_SYS_5V0 power" (Jetson Linux Developer Guide r35.4.1, Jetson Orin series, Software-Based Power Consumption Modeling). An AGX Xavier has
none, and no sum: its guide does not say that the six rails it measures are all (Product Design Guide DG-09840-001, 5.6.2).
"""
_NO_RAIL: Final = ("NC", "Reserved")
_INA3221_CHANNELS: Final = ("1", "2", "3")
"""Its in4 to in7 are voltages of shunts, its curr4 the sum of the three."""


@dataclass(frozen=True)
class _Rails:
    """Watts of each rail: one file in uW, or a voltage in mV times a current in mA."""

    columns: tuple[Column, ...]
    files: Mapping[str, tuple[Path, ...]]

    def read(self) -> Mapping[str, Reading]:
        readings: dict[str, Reading] = {}
        for name, files in self.files.items():
            try:
                watts = 1e-6
                for file in files:
                    watts *= read_number(file)
                readings[name] = watts
            except (OSError, ValueError) as error:
                readings[name] = explain(error)
        return readings

    def close(self) -> None:
        pass


def _open_rails(root: Path) -> Probe | Absent:
    found: dict[Column, tuple[Path, ...]] = {}
    labels: dict[str, str] = {}
    for chip in numbered(root / "sys/class/hwmon", "hwmon*"):
        kind = text_or(chip / "name", chip.name)
        for label, files in _rails_of(chip, kind):
            name = unique(column_name(label if kind == "ina3221" or (label,) in _WHOLE else f"{kind}_{label}"), "w", found)
            found[Column(name=name, role="power")] = files
            labels[name] = label
    probe = _Rails(tuple(found), {column.name: files for column, files in found.items()})
    answers = {name: labels[name] for name, reading in probe.read().items() if not isinstance(reading, str)}
    if not answers:
        return Absent("no hwmon power monitor (INA3221, INA2xx) answers")
    whole = next((labels for labels in _WHOLE if all(label in answers.values() for label in labels)), ())
    covers = f"the module's input ({' + '.join(whole)})"
    columns = tuple(replace(column, covers=covers if answers[column.name] in whole else "") for column in found if column.name in answers)
    return _Rails(columns, {name: probe.files[name] for name in answers})


def _rails_of(chip: Path, kind: str) -> list[tuple[str, tuple[Path, ...]]]:
    rails: list[tuple[str, tuple[Path, ...]]] = []
    for current in numbered(chip, "curr*_input"):
        number = current.name.removeprefix("curr").removesuffix("_input")
        if kind == "ina3221" and number not in _INA3221_CHANNELS:
            continue
        voltage, label = chip / f"in{number}_input", text_or(chip / f"in{number}_label", f"rail{number}")
        if voltage.is_file() and label not in _NO_RAIL and text_or(chip / f"in{number}_enable", "1") != "0":
            rails.append((label, (voltage, current)))
    powers = [(text_or(chip / file.name.replace("_input", "_label").replace("_average", "_label"), file.name.split("_")[0]), (file,))
              for pattern in ("power*_input", "power*_average") for file in numbered(chip, pattern)]
    return [(label, files) for label, files in powers] or rails


@dataclass(frozen=True)
class _Rapl:
    """Energy counters, in joules since they were opened."""

    columns: tuple[Column, ...]
    zones: Mapping[str, Path]
    _last_uj: dict[str, float] = field(default_factory=dict)
    _sum_uj: dict[str, float] = field(default_factory=dict)

    def read(self) -> Mapping[str, Reading]:
        readings: dict[str, Reading] = {}
        for name, zone in self.zones.items():
            try:
                now = read_number(zone / "energy_uj")
                grown = now - self._last_uj.get(name, now)
                if grown < 0:
                    grown += read_number(zone / "max_energy_range_uj")
            except (OSError, ValueError) as error:
                readings[name] = explain(error)
                continue
            self._last_uj[name] = now
            self._sum_uj[name] = self._sum_uj.get(name, 0.0) + grown
            readings[name] = self._sum_uj[name] * 1e-6
        return readings

    def close(self) -> None:
        pass


def _open_rapl(root: Path) -> Probe | Absent:
    found: dict[Column, Path] = {}
    refused = False
    for zone in numbered(root / "sys/class/powercap", "intel-rapl:*"):
        kind = text_or(zone / "name", zone.name)
        try:
            read_text(zone / "energy_uj")
        except PermissionError:
            refused = True
            continue
        except OSError:
            continue
        covers = "processor package" if kind.startswith("package") else "memory" if kind == "dram" else ""
        found[Column(name=unique(column_name(kind), "j", found), kind="counter", role="power", covers=covers)] = zone
    if found:
        return _Rapl(tuple(found), {column.name: zone for column, zone in found.items()})
    if refused:  # since Linux 5.10, against the power side channel CVE-2020-8694
        return Absent("energy counters may be read by root only", "sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj")
    return Absent("no RAPL below /sys/class/powercap (virtual machines have none)")


POWER_RAILS: Final = Sensor(name="power-rails", about="power monitors of hwmon: INA3221 of a Jetson, INA2xx", open=_open_rails,
                            gives_power=True)
RAPL: Final = Sensor(name="rapl", about="energy counters of Intel and AMD processors", open=_open_rapl, gives_power=True)
