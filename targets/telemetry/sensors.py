"""All sensors. To add one: a `Sensor` in a file of this room, and a line here; boards name theirs in `targets/boards/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgeseg.core.errors import ConfigError
from targets.telemetry.base import Sensor
from targets.telemetry.clocks import CPU_CLOCK, GPU_CLOCK
from targets.telemetry.power import POWER_RAILS, RAPL
from targets.telemetry.raspberry_pi import PI_CLOCK, PI_POWER, PI_THROTTLED
from targets.telemetry.temperature import TEMPERATURE
from targets.telemetry.throttling import COOLING, JETSON_OC, X86_THROTTLE
from targets.telemetry.usage import LOAD, MEMORY

SENSORS: Final[dict[str, Sensor]] = {
    sensor.name: sensor for sensor in (
        TEMPERATURE, CPU_CLOCK, PI_CLOCK, GPU_CLOCK, PI_THROTTLED, COOLING, X86_THROTTLE, JETSON_OC, POWER_RAILS, RAPL, PI_POWER, MEMORY,
        LOAD,
    )
}
"""Of several that tell the machine's power, the first that answers counts."""

GENERIC: Final = ("temperature", "cpu-clock", "cooling", "x86-throttle", "power-rails", "rapl", "memory", "load")
"""What any Linux machine may have."""


def find_sensors(sensors: Sequence[str | Sensor]) -> list[Sensor]:
    """Give sensors by name, those given as they are among them.

    Raises:
        ConfigError: no sensor of this name; says the nearest.
    """
    return [sensor if isinstance(sensor, Sensor) else _by_name(sensor) for sensor in sensors]


def _by_name(name: str) -> Sensor:
    if name in SENSORS:
        return SENSORS[name]
    import difflib  # not loaded by who errs in nothing

    near = difflib.get_close_matches(name, SENSORS, n=1)
    raise ConfigError(f"sensor '{name}' is unknown; {f'did you mean {near[0]!r}?' if near else 'one of ' + ', '.join(SENSORS)}")
