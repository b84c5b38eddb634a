"""Which sensors answer on a machine now, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from targets.telemetry.base import UNITS, Absent, Sensor, explain
from targets.telemetry.sensors import find_sensors

_SHOWN: Final = {"c": "°C", "mhz": "MHz", "w": "W"}


@dataclass(frozen=True, kw_only=True)
class SensorStatus:
    """One sensor of one machine."""

    sensor: str
    readings: dict[str, float]
    """What it says now, by column; empty where there is nothing."""
    why: str = ""
    """Why there is nothing."""
    fix: str = ""
    """What to type so that there is something; empty where nothing would help."""

    @property
    def words(self) -> str:
        """`cpu_thermal 47.2 °C, gpu_thermal 45.0 °C`, or the reason why not."""
        return ", ".join(_words(name, value) for name, value in self.readings.items()) or self.why

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return asdict(self)


def describe_sensors(sensors: Sequence[str | Sensor], root: Path | str = "/") -> tuple[SensorStatus, ...]:
    """Look for each sensor and read it once.

    Raises:
        ConfigError: no sensor of this name.
    """
    return tuple(_describe(sensor, Path(root)) for sensor in find_sensors(sensors))


def _describe(sensor: Sensor, root: Path) -> SensorStatus:
    probe = sensor.open(root)
    if isinstance(probe, Absent):
        return SensorStatus(sensor=sensor.name, readings={}, why=probe.why, fix=probe.fix)
    try:
        said = probe.read()
    except (OSError, ValueError) as error:
        return SensorStatus(sensor=sensor.name, readings={}, why=explain(error))
    finally:
        probe.close()
    readings = {name: value for name, value in said.items() if not isinstance(value, str)}
    why = "" if readings else "; ".join(dict.fromkeys(str(value) for value in said.values()))
    return SensorStatus(sensor=sensor.name, readings=readings, why=why)


def _words(name: str, value: float) -> str:
    unit = next((unit for unit in UNITS if name.endswith(f"_{unit}")), "")  # another machine said the name
    what = name.removesuffix(f"_{unit}")
    if unit == "bytes":
        return f"{what} {value / 2**20:.0f} MiB"
    if unit in ("j", "cpu_s"):  # a counter: what it stands at says nothing
        return what
    if unit == "bits":
        return f"{what} {int(value):#x}"
    return f"{what} {value:.4g} {_SHOWN.get(unit, unit)}"
