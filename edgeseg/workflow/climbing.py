"""The rescue ladder of one format: int8 by calibration, then with a few layers float, then fine-tuned for int8; then the plain truth.

A rung is climbed only where the one below misses the goals. What is kept is the best found, and the table says what each rung did and cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.images import Frame
from quantization import QUANTIZERS, Int8Plan, Int8Writer
from quantization.ladder import MOST_TRIALS, Bench, Judge, Trial, choose_plan, describe, float_share, keep_layers, short_name

RUNGS: Final = ("off", "post_training", "mixed", "qat")
"""Names of the last rung allowed, in the order of the ladder; `off` = the format's default, unjudged."""


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """What rung c starts from: the fp32 bundle of the fine-tuned network, and the ranges it learnt."""

    bundle: Bundle
    ranges: Mapping[str, tuple[float, float]]
    facts: Mapping[str, Any]
    """How the ranges were carried, for the manifest."""
    parent_sha256: str
    """Of the fine-tuned checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Climb:
    """One bundle on its way up."""

    parent: Bundle
    frames: Sequence[Frame]
    """Calibration frames at model size."""
    judge: Judge
    last: str
    """One of `RUNGS`."""
    work: Path
    """An existing folder for trials."""
    on_trial: Callable[[int, int], None] = lambda done, total: None
    fine_tune: Callable[[], FineTuned] | None = None
    """Gives what rung c starts from; `None` = there is nothing to train."""


@dataclass(frozen=True, kw_only=True)
class Climbed:
    """The model kept and the table of rungs."""

    model: ModelFiles
    rungs: tuple[dict[str, Any], ...]
    reached: bool
    parent_sha256: str | None
    """Of the fine-tuned checkpoint, where the model kept is of it."""


@dataclass(frozen=True)
class _Candidate:
    """A rung's best."""

    trial: Trial
    writer: Int8Writer
    fine_tuned: FineTuned | None = None


def climb(request: Climb, output: Path) -> Climbed:
    """Climb as far as needed and allowed; the model kept is written into the folder `output`.

    Raises:
        ConfigError, DataError, RuntimeFailure: see `quantization.base.Quantizer`.
    """
    quantizer = QUANTIZERS[request.parent.manifest.format]
    writer = quantizer.prepare(request.parent, request.frames)
    if request.last == "off":
        return Climbed(model=writer.write(quantizer.offers[0], output), rungs=(), reached=False, parent_sha256=None)
    allowed = RUNGS.index(request.last)
    total = len(quantizer.offers) + (MOST_TRIALS if allowed >= RUNGS.index("mixed") else 0)
    bench = Bench(request.parent, writer, request.judge, request.work, on_trial=lambda _: request.on_trial(len(bench.tried), total))
    calibrated = choose_plan(bench, quantizer.offers)
    rungs = [_rung("post_training", bench.tried, calibrated, writer)]
    found = [_Candidate(calibrated, writer)]
    if not calibrated.judged.reached and allowed >= RUNGS.index("mixed"):
        found.append(_Candidate(_mixed(bench, calibrated, writer, rungs), writer))
    if not found[-1].trial.judged.reached and allowed >= RUNGS.index("qat") and request.fine_tune is not None:
        found += _fine_tuned(request, request.fine_tune(), calibrated.plan, rungs)
    kept = next((one for one in found if one.trial.judged.reached), min(found, key=lambda one: one.trial.judged.cost))
    model = kept.writer.write(kept.trial.plan, output)
    tuned = kept.fine_tuned
    if tuned is not None:
        model = replace(model, scheme={**model.scheme, "method": "quantization-aware training", "carried": dict(tuned.facts)})
    for index, one in enumerate(found):
        rungs[index]["kept"] = one is kept
    return Climbed(
        model=model, rungs=tuple(rungs), reached=kept.trial.judged.reached, parent_sha256=None if tuned is None else tuned.parent_sha256
    )


def _mixed(bench: Bench, start: Trial, writer: Int8Writer, rungs: list[dict[str, Any]], name: str = "mixed") -> Trial:
    """Climb rung b from `start`."""
    before = len(bench.tried)
    kept = keep_layers(bench, start, writer.layers)
    facts = _rung(name, bench.tried[before:], kept.trial, writer)
    facts["layers"] = [
        {"layers": [short_name(layer) for layer in part], "gain": gain, "float": bool(set(part) & set(kept.trial.plan.float_layers))}
        for part, gain in kept.gains
    ]
    rungs.append(facts)
    return kept.trial


def _fine_tuned(request: Climb, start: FineTuned, calibrated: Int8Plan, rungs: list[dict[str, Any]]) -> list[_Candidate]:
    """Climb rung c: with the ranges that were learnt, with calibrated ones, and where both miss the goals with float layers as well."""
    writer = QUANTIZERS[start.bundle.manifest.format].prepare(start.bundle, request.frames)
    bench = Bench(start.bundle, writer, request.judge, request.work)
    plans = [replace(calibrated, float_layers=())]
    if start.ranges:
        plans.insert(0, replace(plans[0], ranges=dict(start.ranges), activations="asymmetric"))
    best = choose_plan(bench, plans)
    rungs.append({**_rung("qat", bench.tried, best, writer), "carried": dict(start.facts)})
    found = [_Candidate(best, writer, start)]
    if not best.judged.reached:
        found.append(_Candidate(_mixed(bench, best, writer, rungs, "qat and mixed"), writer, start))
    return found


def _rung(name: str, tried: Sequence[Trial], best: Trial, writer: Int8Writer) -> dict[str, Any]:
    """A row of the table."""
    return {
        "rung": name, "best": describe(best.plan), **best.judged.facts(), "size_bytes": best.size_bytes, "reached": best.judged.reached,
        "float_layers": [short_name(layer) for layer in best.plan.float_layers],
        "float_macs_share": round(float_share(writer.layers, best.plan), 6), "tried": [trial.facts() for trial in tried],
    }
