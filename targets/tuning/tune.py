"""Find the fastest settings of a bundle on a device by measuring: try each, race those that are left, check the winner against the default.

Nothing is guessed from the machine but which values are worth trying. What is slower, refused, crashes, hangs or answers otherwise is a row
with its reason. The winner is measured once more, alone with the default and in fresh blocks, since the best of many is partly luck.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BundleError, ConfigError, InputMissingError, TargetError
from targets.boards.base import Plan
from targets.devices import Device
from targets.measure.loop import Progress
from targets.measure.result import FULL, QUICK
from targets.runtimes import RuntimeOptions
from targets.tuning.knobs import PURPOSES, fields_of, knobs_of, settings_of
from targets.tuning.look import look_at
from targets.tuning.result import Row, TuneResult
from targets.tuning.search import Standing, halve
from targets.tuning.turns import Turns
from targets.verify import golden_limit

HOPELESS: Final = 2.0
"""A setting whose first calls take so many times as long as the best's takes no part in the race."""
MAX_RACING: Final = 24
"""Besides the default; all of them are open at the same time. The rest have lost by their first calls."""
FIRST_BLOCKS: Final = {False: 8, True: 4}
"""Blocks of the race's first round, for each setting; by `quick`."""


def tune(
    bundle: Bundle, frames: Sequence[Path], *, device: Device, target: str, how: Plan, purpose: str = "latency",
    quick: bool = False, allow_arithmetic: bool = False, keep: Collection[str] = (), on_progress: Progress = lambda stage, done: None,
) -> TuneResult:
    """Find the fastest settings of a bundle on a device.

    Args:
        bundle: what to tune.
        frames: image files of this machine; at most 16 are used.
        device: where.
        target: the board whose own settings `how` are: the default that has to be beaten.
        how: runtime and options of the default.
        purpose: `latency` = p90 of a call, `throughput` = frames a second of all streams together.
        quick: fewer and shorter blocks; stamped in the result.
        allow_arithmetic: take settings whose answers differ by more than the golden limit; the result says by how much.
        keep: fields that stay as they are in the default.
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
    refuse_emulated(device)
    knobs_of(how)
    seen = look_at(device, target=target, how=how, on_progress=on_progress)
    options = settings_of(how, seen.board, purpose, keep=keep)
    turns = Turns(bundle, frames, device, target, how.runtime, purpose, quick, options, on_progress)
    turns.try_out()
    limit = golden_limit(bundle.manifest.contract.task)
    if turns.tried[0]["answers"] < limit:
        raise BundleError(
            f"{bundle.folder} does not answer on {device.name} as it was sealed ({turns.tried[0]['answers']:.4%} of the answers, at least "
            f"{limit:.1%} are asked for); type: edgeseg verify {bundle.folder}"
        )
    reasons = _not_raced(turns, options, limit=0.0 if allow_arithmetic else limit)
    racing = [number for number in range(len(options)) if number not in reasons]
    standings = halve(racing, turns.race, blocks=FIRST_BLOCKS[quick])
    checked = _check(turns, standings, pairs=(QUICK if quick else FULL).min_pairs)
    reasons.update(turns.broken)
    best, chosen = checked.best, checked.best if checked.low > 1 else 0
    plans = [fields_of(Plan(how.runtime, one)) for one in options]
    return TuneResult(
        bundle=bundle.manifest.name, bundle_sha256=bundle.manifest.sha256, target=target, purpose=purpose, quick=quick,
        runtime=how.runtime, provider=how.options.provider, version=seen.version, default=plans[0], chosen=plans[chosen],
        best=plans[best], gain=checked.gain, low=checked.low, high=checked.high, blocks=checked.pairs,
        same_answers=turns.tried[chosen]["same"], rows=_rows(plans, standings, reasons, turns.tried),
        machine=seen.machine, measured_on=seen.measured_on,
    )


def refuse_emulated(device: Device) -> None:
    """Refuse a device whose times mean nothing, before it is asked anything (`TargetError`)."""
    if device.address.startswith("emulated:"):
        raise TargetError(f"{device.name} is emulated: it gives answers only, and its times mean nothing; tune on the board itself")


class _Checked(NamedTuple):
    """How the winner stood against the default."""

    best: int = 0
    """0 = the default: nothing that was faster in the race came through."""
    pairs: int = 0
    gain: float = 1.0
    low: float = 1.0
    high: float = 1.0


def _check(turns: Turns, standings: Sequence[Standing], *, pairs: int) -> _Checked:
    """Let the winner of the race meet the default alone; where it breaks then, the next one that was faster than the default."""
    for one in standings:
        if one.setting == 0:
            break
        found = turns.check(one.setting, pairs)
        if found is not None:
            return _Checked(one.setting, pairs, *found)
    return _Checked()


def _not_raced(turns: Turns, options: Sequence[RuntimeOptions], *, limit: float) -> dict[int, str]:
    """Settings that take no part in the race, and why. The default always does."""
    reasons = dict(turns.broken)
    seen: dict[tuple[object, ...], int] = {}
    tried = {number: row for number, row in turns.tried.items() if "refused" not in row}
    fastest_ms = min(row["cost_ms"] for row in tried.values() if row["answers"] >= limit)
    for number, row in turns.tried.items():
        one = options[number]
        kind = (one.num_threads, one.streams, one.precision_hint, one.delegate, tuple(sorted(row.get("settings", {}).items())))
        if "refused" in row:
            reasons[number] = row["refused"]
        elif seen.setdefault(kind, number) != number:
            reasons[number] = "the runtime then runs with the very settings of another row"
        elif number and row["answers"] < limit:
            reasons[number] = f"{row['answers']:.3%} of the answers as before, below the limit of {limit:.1%}; --allow-arithmetic takes it"
        elif number and row["cost_ms"] > HOPELESS * fastest_ms:
            reasons[number] = f"its first calls took {row['cost_ms'] / fastest_ms:.1f} times as long as the best"
    for number in sorted(tried.keys() - reasons.keys() - {0}, key=lambda number: float(tried[number]["cost_ms"]))[MAX_RACING:]:
        reasons[number] = f"{MAX_RACING} others were faster in their first calls"
    return reasons


def _rows(
    plans: Sequence[Mapping[str, Any]], standings: Sequence[Standing], reasons: Mapping[int, str], tried: Mapping[int, Mapping[str, Any]],
) -> tuple[Row, ...]:
    def row(number: int) -> Row:
        return Row(fields=plans[number], same_answers=tried.get(number, {}).get("same"), reason=reasons.get(number, ""))

    raced = [
        replace(row(one.setting), cost_ms=one.cost_ms, ratio=one.ratio, low=one.low, high=one.high, rounds=one.rounds) for one in standings
    ]
    there = {one.setting for one in standings}
    return (*raced, *(row(number) for number in range(len(plans)) if number not in there))
