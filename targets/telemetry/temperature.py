"""Temperatures: thermal zones, and what hwmon knows beyond them. Both give millidegrees Celsius (docs.kernel.org, thermal and hwmon)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from targets.telemetry.base import Absent, Column, Probe, Sensor, column_name, files_probe, numbered, text_or, unique


def _open(root: Path) -> Probe | Absent:
    found: dict[Column, tuple[Path, float]] = {}
    zones: set[str] = set()
    for zone in numbered(root / "sys/class/thermal", "thermal_zone*"):
        name = column_name(text_or(zone / "type", zone.name))
        zones.add(name)
        found[Column(name=unique(name, "c", found), role="temperature")] = (zone / "temp", 1e-3)
    for chip in numbered(root / "sys/class/hwmon", "hwmon*"):
        kind = text_or(chip / "name", chip.name)
        if column_name(kind) in zones:
            continue  # the same zone once more: the kernel gives each thermal zone a hwmon device
        for file in numbered(chip, "temp*_input"):
            label = text_or(chip / file.name.replace("_input", "_label"), file.name.removesuffix("_input"))
            found[Column(name=unique(column_name(kind, label), "c", found), role="temperature")] = (file, 1e-3)
    return files_probe(found, Absent("no thermal zone and no hwmon temperature answers (virtual machines and containers have none)"))


TEMPERATURE: Final = Sensor(name="temperature", about="thermal zones and hwmon temperatures", open=_open)
