"""Find the fastest settings of a bundle on a device by measuring: try each, race those that are left, check the winner against the default.

Nothing is guessed from the machine but which values are worth trying. What is slower, refused, crashes, hangs or answers otherwise is a row
with its reason. The winner is measured once more, alone with the default and in fresh blocks, since the best of many is partly luck.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BundleError, ConfigError, InputMissingError, RuntimeFailure, TargetError
from targets.boards.base import MeasuredOn, Plan, Wishes
from targets.devices import Device, Job
from targets.machine import Machine
from targets.measure.loop import Progress, bootstrap_ratio
from targets.measure.result import FULL, QUICK
from targets.runtimes import RuntimeOptions
from targets.tuned import Entry, fingerprint
from targets.tuning.knobs import PURPOSES, fields_of, settings_of
from targets.tuning.look import bundle_place, look_at
from targets.tuning.search import Standing, halve
from targets.verify import golden_limit

CALL_LIMIT_S: Final = 60.0
"""A call that takes longer is ended."""
HOPELESS: Final = 2.0
"""A setting whose first calls take so many times as long as the best's takes no part in the race."""
FIRST_BLOCKS: Final = {False: 8, True: 4}
"""Blocks of the race's first round, for each setting; by `quick`."""
MAX_FRAMES: Final = 16
_SLACK_S: Final = 120.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting, and what became of it."""

    fields: Mapping[str, Any]
    """What the knobs stood at."""
    same_answers: float | None = None
    """Least share of pixels, or of objects, that came out as sealed and as with the default; `None` = it did not answer."""
    cost_ms: float | None = None
    """Median over its blocks: p90 of a call for `latency`, time over frames for `throughput`; `None` = it was not raced."""
    ratio: float | None = None
    """Its cost over that of the best it was measured with last; with `low` and `high`."""
    low: float | None = None
    high: float | None = None
    rounds: int = 0
    """Rounds of the race it took part in."""
    reason: str = ""
    """Why it was not raced."""


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
    """The winner of the race, chosen or not."""
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
            purpose=self.purpose, fields=self.chosen, gain=self.gain if self.faster else 1.0, low=self.low if self.faster else 1.0,
            high=self.high if self.faster else 1.0, same_answers=self.same_answers, quick=self.quick,
        )


def tune(
    bundle: Bundle, frames: Sequence[Path], *, device: Device, target: str, how: Plan | Wishes, purpose: str = "latency",
    quick: bool = False, allow_arithmetic: bool = False, on_progress: Progress = lambda stage, done: None,
) -> TuneResult:
    """Find the fastest settings of a bundle on a device.

    Args:
        bundle: what to tune.
        frames: image files of this machine; at most 16 are used.
        device: where.
        target: the board whose own settings `how` are: the default that has to be beaten.
        how: runtime and options of the default; for another machine what is wished, since it knows itself what it has.
        purpose: `latency` = p90 of a call, `throughput` = frames a second of all streams together.
        quick: fewer and shorter blocks; stamped in the result.
        allow_arithmetic: take settings whose answers differ by more than the golden limit; the result says by how much.
        on_progress: called with the stage and the share done.

    Raises:
        TargetError: there is nothing to tune in this runtime, or the device is emulated and its times mean nothing.
        BundleError: with the default settings it does not answer there as it was sealed.
        RuntimeFailure: the default itself crashes or hangs.
        DeviceError: the device cannot be used.
        ConfigError: `purpose` is unknown.
        InputMissingError: no frames.
    """
    if purpose not in PURPOSES:
        raise ConfigError(f"--for {purpose}: one of {', '.join(PURPOSES)}")
    if not frames:
        raise InputMissingError("no frames to measure with; give some image files")
    if device.address.startswith("emulated:"):
        raise TargetError(f"{device.name} is emulated: it gives answers only, and its times mean nothing; tune on the board itself")
    seen = look_at(device, bundle, target=target, how=how, on_progress=on_progress)
    options = settings_of(seen.how, seen.board, purpose)
    bench = _Bench(bundle, frames, device, target, seen.how.runtime, purpose, quick, options, on_progress)
    bench.try_out()
    limit = golden_limit(bundle.manifest.contract.task)
    if bench.tried[0]["golden"] < limit:
        raise BundleError(
            f"{bundle.folder} does not answer on {device.name} as it was sealed ({bench.tried[0]['golden']:.4%} of the answers, at least "
            f"{limit:.1%} are asked for); type: edgeseg verify {bundle.folder}"
        )
    reasons = _not_raced(bench, options, limit=0.0 if allow_arithmetic else limit)
    racing = [number for number in range(len(options)) if number not in reasons]
    standings = halve(racing, bench.race, blocks=FIRST_BLOCKS[quick])
    best = standings[0].setting if standings else 0
    pairs = (QUICK if quick else FULL).min_pairs if best else 0
    gain, low, high = bench.check(best, pairs) if best else (1.0, 1.0, 1.0)
    reasons.update(bench.broken)
    chosen = best if low > 1 else 0
    plans = [fields_of(Plan(seen.how.runtime, one)) for one in options]
    return TuneResult(
        bundle=bundle.manifest.name, bundle_sha256=bundle.manifest.sha256, target=target, purpose=purpose, quick=quick,
        runtime=seen.how.runtime, provider=seen.how.options.provider, version=seen.version, default=plans[0], chosen=plans[chosen],
        best=plans[best], gain=gain, low=low, high=high, blocks=pairs, same_answers=_answers(bench.tried[chosen]),
        rows=_rows(plans, standings, reasons, bench.tried), machine=seen.machine, measured_on=seen.measured_on,
    )


class _Bench:
    """Runs jobs on the device; a setting that takes its process along is left out, and the rest goes on."""

    def __init__(
        self, bundle: Bundle, frames: Sequence[Path], device: Device, target: str, runtime: str, purpose: str, quick: bool,
        options: Sequence[RuntimeOptions], on_progress: Progress,
    ) -> None:
        names = [f"frames/{number:06}{path.suffix.lower()}" for number, path in enumerate(frames[:MAX_FRAMES])]
        place = bundle_place(bundle)
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
        """Open every setting once."""
        left, result = self._run("tune-try", range(len(self._options)), "trying settings", needed=True)
        self.tried = dict(zip(left, result["rows"], strict=True))

    def race(self, settings: Sequence[int], blocks: int) -> dict[int, list[float]]:
        """See `targets.tuning.search.Race`."""
        self._round += 1
        left, result = self._run("tune-race", settings, f"round {self._round}, {len(settings)} settings", **self._lengths(blocks))
        return dict(zip(left, result["costs"], strict=True)) if left else {}

    def check(self, best: int, pairs: int) -> tuple[float, float, float]:
        """Cost of the default over that of `best`, median over pairs of blocks, with its interval; (1, 1, 1) where `best` breaks now."""
        left, result = self._run("tune-race", [0, best], "check", needed=True, **self._lengths(pairs))
        return bootstrap_ratio(*result["costs"]) if len(left) == 2 else (1.0, 1.0, 1.0)

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


def _not_raced(bench: _Bench, options: Sequence[RuntimeOptions], *, limit: float) -> dict[int, str]:
    """Settings that take no part in the race, and why. The default always does."""
    reasons = dict(bench.broken)
    seen: dict[tuple[object, ...], int] = {}
    tried = {number: row for number, row in bench.tried.items() if "refused" not in row}
    fastest_ms = min(row["cost_ms"] for row in tried.values() if _answers(row) >= limit)
    for number, row in bench.tried.items():
        one = options[number]
        kind = (one.num_threads, one.streams, one.precision_hint, one.delegate, tuple(sorted(row.get("settings", {}).items())))
        if "refused" in row:
            reasons[number] = row["refused"]
        elif seen.setdefault(kind, number) != number:
            reasons[number] = "the runtime then runs with the very settings of another row"
        elif number and _answers(row) < limit:
            reasons[number] = f"{_answers(row):.3%} of the answers as before, below the limit of {limit:.1%}; --allow-arithmetic takes it"
        elif number and row["cost_ms"] > HOPELESS * fastest_ms:
            reasons[number] = f"its first calls took {row['cost_ms'] / fastest_ms:.1f} times as long as the best"
    return reasons


def _answers(row: Mapping[str, Any]) -> float:
    return float(min(row["golden"], row["same"]))


def _rows(
    plans: Sequence[Mapping[str, Any]], standings: Sequence[Standing], reasons: Mapping[int, str], tried: Mapping[int, Mapping[str, Any]],
) -> tuple[Row, ...]:
    def row(number: int) -> Row:
        answered = "golden" in tried.get(number, {})
        return Row(fields=plans[number], same_answers=_answers(tried[number]) if answered else None, reason=reasons.get(number, ""))

    raced = [
        replace(row(one.setting), cost_ms=one.cost_ms, ratio=one.ratio, low=one.low, high=one.high, rounds=one.rounds) for one in standings
    ]
    there = {one.setting for one in standings}
    return (*raced, *(row(number) for number in range(len(plans)) if number not in there))
