"""Settings on a device: each tried once, and several measured in turns. What breaks is left out and remembered."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import RuntimeFailure
from edgeseg.core.stats import ABOVE_0
from targets.devices import Device, Job
from targets.devices.received import received
from targets.devices.words import nonsense
from targets.measure.loop import Progress, bootstrap_ratio
from targets.measure.result import FULL, QUICK
from targets.runtimes import RuntimeOptions

CALL_LIMIT_S: Final = 60.0
"""A call that takes longer is ended."""
MAX_FRAMES: Final = 16
_SLACK_S: Final = 120.0


@dataclass(frozen=True)
class _Answered:
    """A setting that job `tune-try` could open."""

    golden: float
    same: float
    settings: Mapping[str, str]
    cost_ms: Annotated[float, ABOVE_0]


@dataclass(frozen=True)
class _Refused:
    """One that it could not, and why."""

    refused: str


@dataclass(frozen=True)
class _Tried:
    """The result of job `tune-try`."""

    rows: tuple[_Answered | _Refused, ...]


@dataclass(frozen=True)
class _Raced:
    """The result of job `tune-race`."""

    costs: tuple[tuple[Annotated[float, ABOVE_0], ...], ...]


T = TypeVar("T")


class Turns:
    """The settings of one bundle on one device, by number; one that takes its process along is left out, and the rest goes on."""

    def __init__(
        self, bundle: Bundle, frames: Sequence[Path], device: Device, target: str, runtime: str, purpose: str, quick: bool,
        options: Sequence[RuntimeOptions], on_progress: Progress,
    ) -> None:
        names = [f"frames/{number:06}{path.suffix.lower()}" for number, path in enumerate(frames[:MAX_FRAMES])]
        place = f"bundles/{bundle.folder.resolve().name}"
        self._uploads = {place: bundle.folder, **dict(zip(names, frames, strict=False))}
        self._request = {"target": target, "bundle": place, "files": names, "runtime": runtime, "purpose": purpose, "limit_s": CALL_LIMIT_S}
        self._device, self._options, self._on_progress = device, options, on_progress
        self._what = f"tuning {bundle.manifest.name} with {runtime}"
        self._limits = QUICK if quick else FULL
        self._round = 0
        self.tried: dict[int, dict[str, Any]] = {}
        """What came of opening each setting once."""
        self.broken: dict[int, str] = {}
        """Settings that took their process along, and how."""

    def try_out(self) -> None:
        """Open every setting once.

        `answers` of a row is the share that is as sealed (in f32) and as with the first setting, which is what is asked for; `same` is the
        share as with the first setting alone. Golden frames tell of that only where fewer came out as sealed than with the first.
        """
        left, result = self._run(_Tried, "tune-try", range(len(self._options)), "trying settings", needed=True)
        if result is None or len(result.rows) != len(left) or not isinstance(result.rows[0], _Answered):
            raise nonsense(self._device.name, "not an answer for each setting")
        self.tried = dict(zip(left, map(asdict, result.rows), strict=True))
        compared = ("golden", "same") if self._options[0].precision_hint == "f32" else ("same",)
        for row in self.tried.values():
            if "refused" not in row:
                row["answers"] = min(row[name] for name in compared)
                row["same"] = row["same"] if row["golden"] >= self.tried[0]["golden"] else row["answers"]

    def race(self, settings: Sequence[int], blocks: int) -> dict[int, list[float]]:
        """See `targets.tuning.search.Race`."""
        self._round += 1
        return self._raced(settings, f"round {self._round}, {len(settings)} settings", blocks)

    def check(self, best: int, pairs: int) -> tuple[float, float, float] | None:
        """Cost of the default over that of `best`, median over pairs of blocks, with its interval; `None` where `best` breaks now."""
        costs = self._raced([0, best], "check", pairs, needed=True)
        return bootstrap_ratio(costs[0], costs[best]) if len(costs) == 2 else None

    def _raced(self, settings: Sequence[int], stage: str, blocks: int, *, needed: bool = False) -> dict[int, list[float]]:
        """Cost of each block of each setting that came through."""
        lengths = {"blocks": blocks, "block_s": self._limits.block_seconds, "warm_up_s": self._limits.block_seconds * 4}
        left, result = self._run(_Raced, "tune-race", settings, stage, needed=needed, **lengths)
        if result is None:
            return {}
        if [len(costs) for costs in result.costs] != [blocks] * len(left):
            raise nonsense(self._device.name, "not a cost for each block")
        return {number: list(costs) for number, costs in zip(left, result.costs, strict=True)}

    def _run(
        self, kind: type[T], job: str, settings: Sequence[int], stage: str, *, needed: bool = False, **more: Any,  # noqa: ANN401 - JSON
    ) -> tuple[list[int], T | None]:
        """Run a job over settings, again without each that breaks it. Gives those that came through, and the result where there are some.

        Raises:
            RuntimeFailure: the first of them breaks it and is `needed`, or nobody knows which it was.
        """
        left, at = list(settings), -1

        def on_progress(said: str, done: float) -> None:
            nonlocal at
            found = next((number for number in left if said == f"setting {number}"), None)
            at = at if found is None else found
            self._on_progress(said if found is None else stage, done)

        while left:
            raw = [(number, asdict(self._options[number])) for number in left]
            request = {"job": job, **self._request, "settings": raw, **more}
            try:
                result = self._device.run(
                    Job(request, self._uploads), what=self._what, timeout_s=self._patience_s(len(left), more), on_progress=on_progress,
                )
                return left, received(kind, result, self._device.name)
            except RuntimeFailure as error:
                if at not in left or (needed and at == settings[0]):
                    raise
                hung = f"killed by {signal.SIGALRM.name}" in str(error)
                self.broken[at] = f"a call did not come back within {CALL_LIMIT_S:.0f} s" if hung else str(error)
                left.remove(at)
                at = -1
        return [], None

    def _patience_s(self, count: int, more: Mapping[str, Any]) -> float:
        """A bound that only a dead device reaches: what hangs is ended there (`CALL_LIMIT_S`)."""
        slowest_s: float = max((row.get("cost_ms", 0.0) for row in self.tried.values()), default=0.0) / 1e3
        block_s: float = more.get("block_s", 0.0) + 20 * (slowest_s or 1.0)
        blocks: int = more.get("blocks", 0)
        return _SLACK_S + count * (2 * CALL_LIMIT_S + (blocks + 2) * block_s)
