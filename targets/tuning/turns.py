"""Settings on a device: each tried once, and several measured in turns. What breaks is left out and remembered."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import RuntimeFailure
from targets.devices import Device, Job
from targets.measure.loop import Progress, bootstrap_ratio
from targets.measure.result import FULL, QUICK
from targets.runtimes import RuntimeOptions

CALL_LIMIT_S: Final = 60.0
"""A call that takes longer is ended."""
MAX_FRAMES: Final = 16
_SLACK_S: Final = 120.0


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
        left, result = self._run("tune-try", range(len(self._options)), "trying settings", needed=True)
        self.tried = dict(zip(left, result["rows"], strict=True))
        compared = ("golden", "same") if self._options[0].precision_hint == "f32" else ("same",)
        for row in self.tried.values():
            if "refused" not in row:
                row["answers"] = min(row[name] for name in compared)
                row["same"] = row["same"] if row["golden"] >= self.tried[0]["golden"] else row["answers"]

    def race(self, settings: Sequence[int], blocks: int) -> dict[int, list[float]]:
        """See `targets.tuning.search.Race`."""
        self._round += 1
        left, result = self._run("tune-race", settings, f"round {self._round}, {len(settings)} settings", **self._lengths(blocks))
        return dict(zip(left, result["costs"], strict=True)) if left else {}

    def check(self, best: int, pairs: int) -> tuple[float, float, float] | None:
        """Cost of the default over that of `best`, median over pairs of blocks, with its interval; `None` where `best` breaks now."""
        left, result = self._run("tune-race", [0, best], "check", needed=True, **self._lengths(pairs))
        return bootstrap_ratio(*result["costs"]) if len(left) == 2 else None

    def _lengths(self, blocks: int) -> dict[str, Any]:
        return {"blocks": blocks, "block_s": self._limits.block_seconds, "warm_up_s": self._limits.block_seconds * 4}

    def _run(
        self, job: str, settings: Sequence[int], stage: str, *, needed: bool = False, **more: Any  # noqa: ANN401 - JSON values
    ) -> tuple[list[int], dict[str, Any]]:
        """Run a job over settings, again without each that breaks it. Gives those that came through.

        Raises:
            RuntimeFailure: the first of them breaks it and is `needed`, or nobody knows which it was.
        """
        left, at = list(settings), -1

        def on_progress(said: str, done: float) -> None:
            nonlocal at
            word, _, number = said.partition(" ")
            at = int(number) if word == "setting" else at
            self._on_progress(stage if word == "setting" else said, done)

        while left:
            raw = [(number, asdict(self._options[number])) for number in left]
            request = {"job": job, **self._request, "settings": raw, **more}
            try:
                return left, self._device.run(Job(request, self._uploads), what=self._what, timeout_s=self._patience_s(len(left), more),
                                              on_progress=on_progress)
            except RuntimeFailure as error:
                if at not in left or (needed and at == settings[0]):
                    raise
                hung = f"killed by {signal.SIGALRM.name}" in str(error)
                self.broken[at] = f"a call did not come back within {CALL_LIMIT_S:.0f} s" if hung else str(error)
                left.remove(at)
                at = -1
        return [], {}

    def _patience_s(self, count: int, more: Mapping[str, Any]) -> float:
        """A bound that only a dead device reaches: what hangs is ended there (`CALL_LIMIT_S`)."""
        slowest_s: float = max((row.get("cost_ms", 0.0) for row in self.tried.values()), default=0.0) / 1e3
        block_s: float = more.get("block_s", 0.0) + 20 * (slowest_s or 1.0)
        blocks: int = more.get("blocks", 0)
        return _SLACK_S + count * (2 * CALL_LIMIT_S + (blocks + 2) * block_s)
