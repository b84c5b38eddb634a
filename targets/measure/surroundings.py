"""What goes on around a measured loop: the sensors, the machine's power at rest, and what other programs take of it meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from targets.boards import Target
from targets.measure.drift import drift
from targets.measure.loop import Clock
from targets.telemetry import (
    Absent,
    Recorder,
    Sensor,
    Trace,
    energy,
    energy_per_frame,
    latency_windows,
    measure_idle,
    power_command,
    pss_bytes,
    throttling_verdict,
)

LOOK_S: Final = {False: 1.0, True: 0.5}
"""Seconds in which other programs are watched before anything is measured; by `quick`."""
REST_S: Final = {False: 10.0, True: 2.0}
"""Seconds in which the power at rest is measured, where there is power to be measured."""
MOST_WINDOWS: Final = 120


@dataclass
class Surroundings:
    """Recorded before and during one measured loop."""

    idle: Trace
    load_average: float | None
    """Of the last minute, before anything ran."""
    trace: Trace | None = None
    start_ns: int = 0
    """When the measured loop began, on the clock of the trace."""
    pss_bytes: int | None = None
    """Of this process when the loop had ended; the kernel takes milliseconds for it, so it is not in the trace."""

    def facts(self, end_to_end_ns: Sequence[int]) -> dict[str, Any]:
        """Give the fields of `BenchResult` that say what went on, as JSON values."""
        assert self.trace is not None, "facts before the loop ended"
        seconds = sum(end_to_end_ns) / 1e9
        windows = latency_windows(end_to_end_ns, window_s=max(1.0, seconds / MOST_WINDOWS),
                                  offset_s=(self.start_ns - self.trace.start_ns) / 1e9)
        found = energy_per_frame(self.trace, self.idle, len(end_to_end_ns), seconds=seconds)
        moved = drift(windows)
        return {
            "trace": self.trace.to_json(),
            "pss_bytes": self.pss_bytes,
            "windows": [list(window) for window in windows],
            "throttling": throttling_verdict(self.trace, windows).to_json(),
            "drift": None if moved is None else moved.to_json(),
            "energy": None if isinstance(found, Absent) else found.to_json(),
            "energy_absent": found.why if isinstance(found, Absent) else "",
            "load": {
                "load_average_before": self.load_average, "load_average_after": load_average(),
                "others_before": share_of_others(self.idle, "other_cpu_s"), "others_during": share_of_others(self.trace, "other_cpu_s"),
                "stolen_during": share_of_others(self.trace, "stolen_cpu_s"),
            },
        }


@dataclass(frozen=True)
class Watch:
    """Rests first, then watches; one a process."""

    target: Target
    clock: Clock
    quick: bool
    meter: str = ""
    """A command that prints watts (`targets.telemetry.power_command`); empty = none."""
    recorder: Recorder = field(init=False)

    def __post_init__(self) -> None:
        """Look for the meter first: it measures all of the machine, and the first sensor that gives power counts."""
        sensors: list[str | Sensor] = [*([power_command(self.meter)] if self.meter else []), *self.target.sensors]
        object.__setattr__(self, "recorder", Recorder(sensors, clock=self.clock))

    def rest(self) -> Surroundings:
        """Do nothing for a while and watch the machine."""
        before, idle = load_average(), measure_idle(self.recorder, LOOK_S[self.quick])
        if not isinstance(energy(idle), Absent):
            idle = measure_idle(self.recorder, REST_S[self.quick])
        return Surroundings(idle, before)

    @contextmanager
    def around(self, surroundings: Surroundings) -> Iterator[None]:
        """Record what is done inside."""
        self.recorder.start()
        surroundings.start_ns = self.clock()
        try:
            yield
        finally:
            surroundings.trace = self.recorder.stop()
            surroundings.pss_bytes = pss_bytes()


def load_average() -> float | None:
    """Load average of the last minute; `None` where the system has none."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def share_of_others(trace: Trace, column: str) -> float | None:
    """Share of all processors of the machine that other programs took (0..1); `None` = not available."""
    total = trace.summary().get(column, {}).get("per_s")
    return None if total is None else max(0.0, total / (os.cpu_count() or 1))
