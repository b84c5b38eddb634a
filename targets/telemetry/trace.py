"""What was seen while something ran: times, columns, gaps. A sample that failed is `None` with a reason, never 0."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from targets.telemetry.base import Column

Values = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Samples in a row in which a column had no answer."""

    column: str
    start_s: float
    end_s: float
    samples: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Samples of all columns at the same times."""

    start_ns: int
    """The clock's value that `times_s` counts from."""
    times_s: tuple[float, ...]
    columns: tuple[Column, ...]
    values: Mapping[str, Values]
    """By column, as many as `times_s`; `None` = did not answer."""
    sensors: Mapping[str, tuple[str, ...]]
    """Columns of each sensor that answered."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Sensors looked for and not there, with the reason."""
    no_power: str = ""
    """The reasons of those among them that would give power."""
    gaps: tuple[Gap, ...] = ()
    held: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By column, the samples that repeat an earlier answer, counted from 0; those that never did are left out."""
    cost_cpu_s: float = 0.0
    """Processor time the samples took, with that of the programs they called."""

    @property
    def duration_s(self) -> float:
        """From the first sample to the last."""
        return self.times_s[-1] - self.times_s[0] if self.times_s else 0.0

    @property
    def cost_share(self) -> float | None:
        """Processor time of the samples over the time recorded: 0.01 = 1 % of one processor. `None` for a single sample."""
        return self.cost_cpu_s / self.duration_s if self.duration_s else None

    def with_role(self, role: str) -> tuple[Column, ...]:
        """Columns of one role."""
        return tuple(column for column in self.columns if column.role == role)

    def points(self, column: str) -> list[tuple[float, float]]:
        """Time and value of the samples that answered."""
        return [(time, value) for time, value in zip(self.times_s, self.values[column], strict=True) if value is not None]

    def fresh(self, column: str) -> list[tuple[float, float]]:
        """Of those, the ones that repeat no earlier answer."""
        held = set(self.held.get(column, ()))
        return [
            (time, value) for i, (time, value) in enumerate(zip(self.times_s, self.values[column], strict=True))
            if value is not None and i not in held
        ]

    def between(self, start_s: float, end_s: float) -> Trace:
        """Give the samples from `start_s` to `end_s`, both in the seconds of `times_s`; times keep their origin."""
        kept = [i for i, time in enumerate(self.times_s) if start_s <= time <= end_s]
        gaps = tuple(gap for gap in self.gaps if gap.end_s >= start_s and gap.start_s <= end_s)
        return Trace(
            start_ns=self.start_ns, times_s=tuple(self.times_s[i] for i in kept), columns=self.columns,
            values={name: tuple(values[i] for i in kept) for name, values in self.values.items()}, sensors=self.sensors, absent=self.absent,
            no_power=self.no_power, gaps=gaps, held=_renumbered(self.held, kept),
            cost_cpu_s=self.cost_cpu_s * len(kept) / len(self.times_s) if self.times_s else 0.0,
        )

    def summary(self) -> dict[str, dict[str, float]]:
        """By column: `min`, `mean`, `max` of a gauge, `total` and `per_s` of a counter, `all` (bits or-ed) of flags; and `samples`.

        A column that never answered is left out.
        """
        return {column.name: _summary(column, points) for column in self.columns if (points := self.points(column.name))}

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values; the summary is added for those who read the file."""
        return {
            "start_ns": self.start_ns, "times_s": list(self.times_s), "columns": [asdict(c) for c in self.columns],
            "values": {name: list(values) for name, values in self.values.items()},
            "sensors": {name: list(columns) for name, columns in self.sensors.items()}, "absent": dict(self.absent),
            "no_power": self.no_power, "gaps": [asdict(gap) for gap in self.gaps],
            "held": {name: list(places) for name, places in self.held.items()},
            "cost_cpu_s": self.cost_cpu_s, "summary": self.summary(),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Trace:
        """Rebuild from what `to_json` gave."""
        return cls(
            start_ns=int(raw["start_ns"]), times_s=tuple(raw["times_s"]), columns=tuple(Column(**column) for column in raw["columns"]),
            values={name: tuple(values) for name, values in raw["values"].items()},
            sensors={name: tuple(columns) for name, columns in raw["sensors"].items()}, absent=dict(raw["absent"]),
            no_power=str(raw["no_power"]),
            gaps=tuple(Gap(**gap) for gap in raw["gaps"]),
            held={name: tuple(places) for name, places in raw.get("held", {}).items()}, cost_cpu_s=float(raw["cost_cpu_s"]),
        )


def _renumbered(held: Mapping[str, tuple[int, ...]], kept: list[int]) -> dict[str, tuple[int, ...]]:
    """What of `held` is among the samples `kept`, counted anew."""
    places = {name: tuple(new for new, old in enumerate(kept) if old in numbers) for name, numbers in held.items()}
    return {name: numbers for name, numbers in places.items() if numbers}


def _summary(column: Column, points: list[tuple[float, float]]) -> dict[str, float]:
    values = [value for _, value in points]
    if column.kind == "counter":
        seconds = points[-1][0] - points[0][0]
        total = values[-1] - values[0]
        rate = {"per_s": total / seconds} if seconds else {}
        return {"total": total, **rate, "samples": len(values)}
    if column.kind == "flags":
        bits = 0
        for value in values:
            bits |= int(value)
        return {"all": bits, "samples": len(values)}
    return {"min": min(values), "mean": statistics.fmean(values), "max": max(values), "samples": len(values)}
