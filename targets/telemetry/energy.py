"""Energy of a trace, and of a frame with what the machine draws anyway taken off."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

from targets.telemetry.base import Absent, Column
from targets.telemetry.trace import Trace

LEAST_COVERED: Final = 0.9
"""Share of the time in which the power must be known."""
LEAST_FRESH: Final = 10
"""Samples of a power, not repeated and inside the loop, that the energy of a frame needs; a counter needs none inside."""


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What one source says was drawn during a trace."""

    energy_j: float
    seconds: float
    source: str
    """The sensor."""
    covers: str
    """Which part of the machine it measures; two energies compare only where this is the same."""
    covered_share: float
    """Share of the time in which it answered; the rest counts with the mean of that."""
    samples: int
    """How many of its samples answered, those that repeat an earlier answer not counted."""

    @property
    def mean_w(self) -> float:
        """Mean power."""
        return self.energy_j / self.seconds

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {**asdict(self), "mean_w": self.mean_w}


@dataclass(frozen=True, kw_only=True)
class FrameEnergy:
    """Energy of one frame."""

    per_frame_j: float
    """What was drawn above idle, over the frames."""
    per_frame_with_idle_j: float
    """All that was drawn, over the frames: what a battery gives."""
    mean_w: float
    idle_w: float
    samples: int
    idle_samples: int
    frames: int
    seconds: float
    source: str
    covers: str

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return asdict(self)


def has_power(trace: Trace) -> bool:
    """Whether a sensor that covers a part of the machine answered at all."""
    return any(column.covers and trace.points(column.name) for column in trace.columns)


def energy(trace: Trace, *, during_s: tuple[float, float] | None = None, least_fresh: int = 2) -> Energy | Absent:
    """Energy from the first sample to the last, by the first of its sensors that covers a part of the machine.

    A counter gives its difference (powercap, docs.kernel.org/power/powercap). A power of the moment is integrated by the trapezoidal rule,
    a mean counts for the time since the one before; what repeats an earlier answer says nothing new and is passed over.

    Args:
        trace: what was recorded.
        during_s: first and last second, in those of the trace, in which a power must have been read: its first and last samples are taken
            before and after what is measured. Left out = all of the trace. A counter always counts over all of it.
        least_fresh: samples of a power that are needed.
    """
    covering = {column.name: column for column in trace.columns if column.covers}
    source = next((name for name, columns in trace.sensors.items() if any(column in covering for column in columns)), None)
    if source is None:
        return Absent(f"no power sensor answers ({_no_power(trace)})")
    if any(covering[name].kind != "counter" for name in trace.sensors[source] if name in covering) and during_s is not None:
        trace = trace.between(*during_s)
    parts = [_energy_of(trace, covering[name], source, least_fresh) for name in trace.sensors[source] if name in covering]
    for part in parts:
        if isinstance(part, Absent):
            return part
    known = [part for part in parts if not isinstance(part, Absent)]
    covers = dict.fromkeys(covering[name].covers for name in trace.sensors[source] if name in covering)
    return Energy(energy_j=sum(joules for joules, _ in known), seconds=trace.duration_s, source=source, covers=" and ".join(covers),
                  covered_share=min(share for _, share in known),
                  samples=min(len(trace.fresh(name)) for name in trace.sensors[source] if name in covering))


def energy_per_frame(
    trace: Trace, idle: Trace, frames: int, *, seconds: float | None = None, during_s: tuple[float, float] | None = None,
) -> FrameEnergy | Absent:
    """Energy of a frame: (mean power while busy - mean power while idle) x seconds / frames.

    Args:
        trace: recorded around the measured loop.
        idle: recorded on the same machine while nothing ran (`measure_idle`).
        frames: how many the loop took.
        seconds: how long the loop took; the length of `trace`, if left out.
        during_s: when the loop began and ended, in the seconds of the trace; from its first sample to its last, if left out.
    """
    busy, rest = energy(trace, during_s=during_s, least_fresh=LEAST_FRESH), energy(idle)
    if isinstance(busy, Absent):
        return busy
    if isinstance(rest, Absent):
        return Absent(f"while idle: {rest.why}")
    if (busy.source, busy.covers) != (rest.source, rest.covers):
        return Absent(f"idle was measured by {rest.source}, the frames by {busy.source}")
    if frames < 1:
        return Absent("no frames")
    above_w, length_s = busy.mean_w - rest.mean_w, trace.duration_s if seconds is None else seconds
    if above_w <= 0:
        return Absent(f"{busy.mean_w:.2f} W while busy is not above {rest.mean_w:.2f} W while idle")
    return FrameEnergy(
        per_frame_j=above_w * length_s / frames, per_frame_with_idle_j=busy.mean_w * length_s / frames, mean_w=busy.mean_w,
        idle_w=rest.mean_w, samples=busy.samples, idle_samples=rest.samples,
        frames=frames, seconds=length_s, source=busy.source, covers=busy.covers,
    )


def _no_power(trace: Trace) -> str:
    """Why nothing gives the power: what was not there, and what answered but is only a part."""
    parts = [trace.no_power] if trace.no_power else []
    rails = {column.name for column in trace.with_role("power")}
    parts += [f"{name}: no rail of the whole machine" for name, columns in trace.sensors.items() if rails & set(columns)]
    return "; ".join(parts) or "none was asked"


def _energy_of(trace: Trace, column: Column, source: str, least_fresh: int) -> tuple[float, float] | Absent:
    """Joules over the whole trace and the share of it in which the column answered."""
    points = trace.points(column.name)
    if column.kind == "counter":
        spans = [(after - before, (b - a) / (after - before)) for (before, a), (after, b) in pairwise(points)]
        covered_s, enough = sum(length for length, _ in spans), 2
    else:
        spans, enough = _spans(trace, column), least_fresh
        covered_s = sum(after - before for (before, a), (after, b) in pairwise(zip(trace.times_s, trace.values[column.name], strict=True))
                        if a is not None and b is not None)
    if covered_s < LEAST_COVERED * trace.duration_s:
        return Absent(f"{column.name} answered in {covered_s / trace.duration_s:.0%} of the time, at least {LEAST_COVERED:.0%} is needed")
    fresh = len(trace.fresh(column.name))
    if not spans or fresh < enough:
        return Absent(f"{source} gave {fresh} new values of {column.name} in {trace.duration_s:.0f} s, at least {enough} are needed: "
                      "measure longer")
    mean_w = sum(length * watts for length, watts in spans) / sum(length for length, _ in spans)
    return mean_w * trace.duration_s, covered_s / trace.duration_s


def _spans(trace: Trace, column: Column) -> list[tuple[float, float]]:
    """Seconds between two fresh samples with no gap between them, and the watts that count for them."""
    held = set(trace.held.get(column.name, ()))
    spans: list[tuple[float, float]] = []
    last: tuple[float, float] | None = None
    for i, (time, watts) in enumerate(zip(trace.times_s, trace.values[column.name], strict=True)):
        if watts is None:
            last = None
        elif i not in held:
            if last is not None:
                spans.append((time - last[0], watts if column.averages else (last[1] + watts) / 2))
            last = (time, watts)
    return spans
