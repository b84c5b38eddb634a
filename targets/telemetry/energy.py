"""Energy of a trace, and of a frame with what the machine draws anyway taken off."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

from targets.telemetry.base import Absent, Column
from targets.telemetry.trace import Trace

LEAST_COVERED: Final = 0.9
"""Share of the time in which the power must be known."""


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
    """How many of its samples answered."""

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


def energy(trace: Trace) -> Energy | Absent:
    """Energy from the first sample to the last, by the first of its sensors that covers a part of the machine.

    A counter gives its difference (powercap, docs.kernel.org/power/powercap); a power is integrated by the trapezoidal rule.
    """
    covering = {column.name: column for column in trace.columns if column.covers}
    source = next((name for name, columns in trace.sensors.items() if any(column in covering for column in columns)), None)
    if source is None:
        return Absent(f"no power sensor answers ({trace.no_power or 'none was asked'})")
    parts = [_energy_of(trace, covering[name]) for name in trace.sensors[source] if name in covering]
    for part in parts:
        if isinstance(part, Absent):
            return part
    known = [part for part in parts if not isinstance(part, Absent)]
    covers = dict.fromkeys(covering[name].covers for name in trace.sensors[source] if name in covering)
    return Energy(energy_j=sum(joules for joules, _ in known), seconds=trace.duration_s, source=source, covers=" and ".join(covers),
                  covered_share=min(share for _, share in known),
                  samples=min(len(trace.points(name)) for name in trace.sensors[source] if name in covering))


def energy_per_frame(trace: Trace, idle: Trace, frames: int, *, seconds: float | None = None) -> FrameEnergy | Absent:
    """Energy of a frame: (mean power while busy - mean power while idle) x seconds / frames.

    Args:
        trace: recorded around the measured loop.
        idle: recorded on the same machine while nothing ran (`measure_idle`).
        frames: how many the loop took.
        seconds: how long the loop took; the length of `trace`, if left out.
    """
    busy, rest = energy(trace), energy(idle)
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


def _energy_of(trace: Trace, column: Column) -> tuple[float, float] | Absent:
    """Joules over the whole trace and the share of it in which the column answered."""
    points = trace.points(column.name)
    if trace.duration_s <= 0 or len(points) < 2:
        return Absent(f"{column.name}: fewer than two samples")
    if column.kind == "counter":
        covered_s = points[-1][0] - points[0][0]
        joules = points[-1][1] - points[0][1]
    else:
        values = trace.values[column.name]
        whole = [
            (after - before, (a + b) / 2)
            for (before, after), (a, b) in zip(pairwise(trace.times_s), pairwise(values), strict=True) if a is not None and b is not None
        ]
        covered_s = sum(length for length, _ in whole)
        joules = sum(length * watts for length, watts in whole)
    share = covered_s / trace.duration_s
    if share < LEAST_COVERED:
        return Absent(f"{column.name} answered in {share:.0%} of the time, at least {LEAST_COVERED:.0%} is needed")
    return joules / share, share
