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
from targets.telemetry.base import Absent, Sensor
from targets.telemetry.command import KeptMeter
from targets.telemetry.energy import energy_per_frame, has_power
from targets.telemetry.recorder import PERIOD_S, Recorder, measure_idle
from targets.telemetry.trace import Trace
from targets.telemetry.usage import pss_bytes
from targets.telemetry.verdict import latency_windows, throttling_verdict

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
    end_ns: int = 0
    """When it ended."""
    pss_bytes: int | None = None
    """Of this process when the loop had ended; the kernel takes milliseconds for it, so it is not in the trace."""

    def facts(self, end_to_end_ns: Sequence[int], *, gpu: bool = False) -> dict[str, Any]:
        """Give the fields of `BenchResult` that say what went on, as JSON values; `gpu` = frames were answered on one."""
        assert self.trace is not None, "facts before the loop ended"
        seconds = sum(end_to_end_ns) / 1e9
        during_s = ((self.start_ns - self.trace.start_ns) / 1e9, (self.end_ns - self.trace.start_ns) / 1e9)
        windows = latency_windows(end_to_end_ns, window_s=max(1.0, seconds / MOST_WINDOWS), offset_s=during_s[0])
        found = energy_per_frame(self.trace, self.idle, len(end_to_end_ns), seconds=seconds, during_s=during_s)
        moved = drift(windows)
        return {
            "trace": self.trace.to_json(),
            "pss_bytes": self.pss_bytes,
            "windows": [list(window) for window in windows],
            "throttling": throttling_verdict(self.trace, windows, gpu=gpu).to_json(),
            "drift": None if moved is None else moved.to_json(),
            "energy": None if isinstance(found, Absent) else found.to_json(),
            "energy_absent": found.why if isinstance(found, Absent) else "",
            "load": load_facts(self.load_average, self.idle, self.trace),
        }


@dataclass(frozen=True)
class Watch:
    """Rests first, then watches; one a process."""

    target: Target
    clock: Clock
    quick: bool
    meter: str = ""
    """A command that prints watts (`targets.telemetry.command.power_command`); empty = none. It runs until `close`."""
    period_s: float = PERIOD_S
    recorder: Recorder = field(init=False)
    _kept: KeptMeter | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Look for the meter first: it measures all of the machine, and the first sensor that gives power counts."""
        kept = KeptMeter(self.meter) if self.meter else None
        sensors: list[str | Sensor] = [*([kept.sensor] if kept else []), *self.target.sensors]
        object.__setattr__(self, "_kept", kept)
        object.__setattr__(self, "recorder", Recorder(sensors, clock=self.clock, period_s=self.period_s))

    def close(self) -> None:
        """End the meter."""
        if self._kept is not None:
            self._kept.close()

    def rest(self) -> Surroundings:
        """Do nothing for a while and watch the machine."""
        before, idle = load_average(), measure_idle(self.recorder, LOOK_S[self.quick])
        if has_power(idle):
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
            surroundings.end_ns = self.clock()
            surroundings.trace = self.recorder.stop()
            surroundings.pss_bytes = pss_bytes()


def load_facts(before: float | None, idle: Trace, trace: Trace) -> dict[str, float | None]:
    """Load averages, and the shares of all processors that others took: `idle` was recorded before, `trace` meanwhile."""
    return {
        "load_average_before": before, "load_average_after": load_average(), "others_before": share_of_others(idle, "other_cpu_s"),
        "others_during": share_of_others(trace, "other_cpu_s"), "stolen_during": share_of_others(trace, "stolen_cpu_s"),
    }


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
