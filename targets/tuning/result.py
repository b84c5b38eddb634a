"""What tuning found: the settings, what became of each, and what is kept of it beside the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from targets.boards.base import MeasuredOn
from targets.machine import Machine
from targets.tuned import Entry, fingerprint


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting, and what became of it."""

    fields: Mapping[str, Any]
    """What the knobs stood at."""
    same_answers: float | None = None
    """Least share of pixels, or of objects, that came out as with the default; `None` = it did not answer."""
    cost_ms: float | None = None
    """Median over its blocks: p90 of a call for `latency`, time over frames for `throughput`; `None` = it was not raced."""
    ratio: float | None = None
    """Its cost over that of the best it was measured with last; with `low` and `high`."""
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    """Rounds of the race it took part in."""
    reason: str = ""
    """Why it was not raced; or, where it was, how it broke in the check."""


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """What was found."""

    bundle: str
    bundle_sha256: str
    target: str
    purpose: str
    quick: bool
    runtime: str
    provider: str
    version: str
    default: Mapping[str, Any]
    chosen: Mapping[str, Any]
    """The default, where nothing is clearly faster."""
    best: Mapping[str, Any]
    """The winner of the race, chosen or not; of those that came through the check."""
    gain: float
    """Cost of the default over the best's, median over the blocks of the check; 1 where they are the same setting."""
    low: float
    high: float
    blocks: int
    """Pairs of blocks of the check; 0 where there was nothing to check."""
    same_answers: float
    """Of what was chosen."""
    rows: tuple[Row, ...]
    """All settings: those that stayed longest in the race first, those that were not raced last."""
    machine: Machine
    measured_on: MeasuredOn

    @property
    def faster(self) -> bool:
        """The best is clearly faster than the default: the whole interval lies above 1."""
        return self.low > 1

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {**asdict(self), "faster": self.faster, "machine": self.machine.to_json(), "measured_on": self.measured_on.words,
                "is_target": self.measured_on.is_target}

    def entry(self) -> Entry:
        """What is kept of it beside the bundle."""
        return Entry(
            machine=fingerprint(self.machine), target=self.target, runtime=self.runtime, provider=self.provider, version=self.version,
            purpose=self.purpose, fields=self.chosen, default=self.default, gain=self.gain if self.faster else 1.0,
            low=self.low if self.faster else 1.0, high=self.high if self.faster else 1.0, same_answers=self.same_answers, quick=self.quick,
        )
