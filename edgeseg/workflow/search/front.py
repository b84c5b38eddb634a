"""Which points are worth having: the Pareto front, and the one that meets the goals with the highest mIoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeseg.core.config import GoalsSection


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a device must reach; `None` = not asked for."""

    p90_ms: float | None = None
    size_bytes: float | None = None
    miou: float | None = None

    @classmethod
    def of(cls, goals: GoalsSection) -> Limits:
        """Read `[goals]`; `fps` is met where the p90 is at most 1000 / fps, which is a little more than it asks for."""
        times = [value for value in (goals.p90_ms, 1000 / goals.fps if goals.fps else None) if value is not None]
        return cls(p90_ms=min(times, default=None), size_bytes=None if goals.size_mb is None else goals.size_mb * 1e6, miou=goals.miou)

    @property
    def asked(self) -> bool:
        """Whether there is any."""
        return any(value is not None for value in (self.p90_ms, self.size_bytes, self.miou))


@dataclass(frozen=True, kw_only=True)
class Value:
    """What a trial gave."""

    miou: float
    """On val, of the bundle, its worst format."""
    p90_ms: float
    """Of the slowest target."""
    size_bytes: int
    """Of the largest bundle."""
    miou_low: float | None = None
    """Lower end of the 95 % interval of mIoU, by which that goal is judged as everywhere; `None` = val has too few frames for one."""

    def excess(self, limits: Limits) -> dict[str, float]:
        """By what share each limit is missed: above 0 = missed, 0 or below = met. Limits that were not asked for are left out."""
        found = {}
        if limits.p90_ms is not None:
            found["p90_ms"] = self.p90_ms / max(limits.p90_ms, 1e-9) - 1
        if limits.size_bytes is not None:
            found["size_mb"] = self.size_bytes / max(limits.size_bytes, 1e-9) - 1
        if limits.miou is not None:
            found["miou"] = 1 - self._judged_miou / max(limits.miou, 1e-9)
        return found

    def meets(self, limits: Limits) -> bool:
        """Whether every limit is met."""
        return all(share <= 0 for share in self.excess(limits).values())

    @property
    def _judged_miou(self) -> float:
        return self.miou if self.miou_low is None else self.miou_low


def pareto(values: Sequence[Value]) -> list[int]:
    """Positions of the values that no other one beats: none is at least as accurate and as fast, and better in one of the two.

    Fastest first; of equal ones the first given.
    """
    order = sorted(range(len(values)), key=lambda i: (values[i].p90_ms, -values[i].miou, i))
    front: list[int] = []
    for i in order:
        if not front or values[i].miou > values[front[-1]].miou:
            front.append(i)
    return front


def choose(values: Sequence[Value], limits: Limits) -> int | None:
    """Position of the highest mIoU among those that meet the limits (of equal ones the fastest); `None` = none does."""
    meeting = [i for i, value in enumerate(values) if value.meets(limits)]
    return min(meeting, key=lambda i: (-values[i].miou, values[i].p90_ms, i), default=None)


def nearest(values: Sequence[Value], limits: Limits) -> int | None:
    """Position of the value whose worst miss is the smallest; `None` = there are no values."""
    return min(range(len(values)), key=lambda i: (max(values[i].excess(limits).values(), default=0.0), -values[i].miou, i), default=None)


def shortfall(value: Value, limits: Limits) -> str:
    """Say by how much `value` misses each limit that it misses."""
    excess, parts = value.excess(limits), []
    if excess.get("p90_ms", 0) > 0:
        parts.append(f"p90 {value.p90_ms:.3g} ms where {limits.p90_ms:g} were asked for ({excess['p90_ms']:+.0%})")
    if excess.get("size_mb", 0) > 0 and limits.size_bytes is not None:
        parts.append(f"{value.size_bytes / 1e6:.3g} MB where {limits.size_bytes / 1e6:g} were asked for ({excess['size_mb']:+.0%})")
    if excess.get("miou", 0) > 0 and limits.miou is not None:
        low = "" if value.miou_low is None else f" (95 % interval from {value.miou_low:.4f}, by which it is judged)"
        parts.append(f"mIoU {value.miou:.4f}{low} where {limits.miou:g} was asked for")
    return ", ".join(parts)
