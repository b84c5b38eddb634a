"""Records sensors while something else runs: one thread, about a sample a second.

A sample opens a few small files; it costs the program that is measured well under 1 % of a processor, and the trace says how much it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from targets.telemetry.base import Absent, Column, Held, Probe, Reading, Sensor, explain
from targets.telemetry.sensors import find_sensors
from targets.telemetry.trace import Gap, Trace

Clock = Callable[[], int]
"""Monotonic, in nanoseconds; the one the measured loop uses, so that both share their times."""

PERIOD_S: Final = 1.0


@dataclass
class _Asked:
    """An open probe and when it was asked last."""

    probe: Probe
    every_s: float
    answer: Mapping[str, Reading] = field(default_factory=dict)
    at_s: float = 0.0

    def read(self, now_s: float, *, anew: bool) -> Mapping[str, Reading]:
        if self.answer and not anew and now_s - self.at_s < self.every_s:
            return {name: reading if isinstance(reading, str) else Held(reading) for name, reading in self.answer.items()}
        self.answer = {}
        self.answer, self.at_s = self.probe.read(), now_s
        return self.answer


class Sampler:
    """Open probes and the samples taken of them so far."""

    def __init__(self, sensors: Sequence[Sensor], root: Path, clock: Clock) -> None:
        """Look for each sensor; those that are not there are remembered with the reason."""
        self._clock = clock
        self._asked: list[_Asked] = []
        self._sensors: dict[str, tuple[str, ...]] = {}
        self._absent: dict[str, str] = {}
        self._no_power: list[str] = []
        for sensor in sensors:
            try:
                probe = sensor.open(root)
            except OSError as error:
                probe = Absent(explain(error))
            if isinstance(probe, Absent):
                self._absent[sensor.name] = probe.why
                if sensor.gives_power:
                    self._no_power.append(f"{sensor.name}: {probe.why}")
                continue
            self._asked.append(_Asked(probe, sensor.every_s))
            self._sensors[sensor.name] = tuple(column.name for column in probe.columns)
        self._columns: tuple[Column, ...] = tuple(column for one in self._asked for column in one.probe.columns)
        self._readings: dict[str, list[Reading]] = {column.name: [] for column in self._columns}
        self._held: dict[str, list[int]] = {}
        self._times_s: list[float] = []
        self._cost_s = 0.0
        self._start_ns = clock()

    def sample(self, *, anew: bool = False) -> None:
        """Read every probe once; whatever one of them raises becomes a gap of its columns.

        Those that are asked less often hold their answer, unless all are to be asked `anew`.
        """
        before = _own_cpu_s()
        now_s = (self._clock() - self._start_ns) / 1e9
        self._times_s.append(round(now_s, 4))
        for one in self._asked:
            try:
                readings = one.read(now_s, anew=anew)
            except (OSError, ValueError) as error:
                why = explain(error)
                readings = {column.name: why for column in one.probe.columns}
            for column in one.probe.columns:
                reading = readings.get(column.name, "no answer")
                if isinstance(reading, Held):
                    self._held.setdefault(column.name, []).append(len(self._times_s) - 1)
                self._readings[column.name].append(reading if isinstance(reading, str) else round(reading, 6))
        self._cost_s += _own_cpu_s() - before

    def close(self) -> Trace:
        """Give back what the probes hold, and the trace."""
        for one in self._asked:
            one.probe.close()
        times = tuple(self._times_s)
        values = {name: tuple(None if isinstance(r, str) else r for r in readings) for name, readings in self._readings.items()}
        gaps = tuple(gap for name, readings in self._readings.items() for gap in _gaps(name, readings, times))
        return Trace(start_ns=self._start_ns, times_s=times, columns=self._columns, values=values, sensors=self._sensors,
                     absent=self._absent, no_power="; ".join(self._no_power), gaps=gaps,
                     held={name: tuple(places) for name, places in self._held.items()}, cost_cpu_s=self._cost_s)


class Recorder:
    """Samples sensors in a thread between `start` and `stop`; can be started again for another trace."""

    def __init__(
        self, sensors: Sequence[str | Sensor], root: Path | str = "/", clock: Clock = time.perf_counter_ns, *, period_s: float = PERIOD_S,
    ) -> None:
        """Take the sensors by name (`SENSORS`) or as they are; nothing is opened yet.

        Raises:
            ConfigError: no sensor of this name.
        """
        self._sensors = find_sensors(sensors)
        self._root = Path(root)
        self._clock = clock
        self._period_s = period_s
        self._stop = threading.Event()
        self._sampler: Sampler | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the sensors, take the first sample here and the next ones in the thread."""
        assert self._thread is None, "started twice"
        self._sampler = Sampler(self._sensors, self._root, self._clock)
        self._sampler.sample(anew=True)
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(self._sampler,), name="telemetry", daemon=True)
        self._thread.start()

    def stop(self) -> Trace:
        """End the thread, take the last sample here, and give everything."""
        assert self._thread is not None, "not started"
        assert self._sampler is not None
        self._stop.set()
        self._thread.join()
        self._thread = None
        self._sampler.sample(anew=True)
        return self._sampler.close()

    def _run(self, sampler: Sampler) -> None:
        due = time.monotonic()
        while True:
            due = max(due + self._period_s, time.monotonic())  # a sample that took long is not made up for
            if self._stop.wait(due - time.monotonic()):
                return
            sampler.sample()


def measure_idle(recorder: Recorder, seconds: float, sleep: Callable[[float], None] = time.sleep) -> Trace:
    """Record `seconds` in which this process does nothing, for the power that is drawn anyway."""
    recorder.start()
    try:
        sleep(seconds)
    finally:
        trace = recorder.stop()
    return trace


def _own_cpu_s() -> float:
    import resource

    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.thread_time() + children.ru_utime + children.ru_stime


def _gaps(name: str, readings: Sequence[Reading], times_s: Sequence[float]) -> list[Gap]:
    gaps: list[Gap] = []
    first = None
    for i, reading in enumerate([*readings, 0.0]):
        if isinstance(reading, str):
            first = i if first is None else first
        elif first is not None:
            gaps.append(Gap(column=name, start_s=times_s[first], end_s=times_s[i - 1], samples=i - first, why=str(readings[first])))
            first = None
    return gaps
