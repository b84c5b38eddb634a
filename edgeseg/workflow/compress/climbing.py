"""The rescue ladder of one format: int8 by calibration, then with a few layers float, then fine-tuned for int8; then the plain truth.

A rung is climbed only where the one below misses the goals as measured: what is not decided on the frames held back is no miss, and the
last word has `verify`. What is kept is the best found, and the table says what each rung did and cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import ConfigError, TrainingError
from edgeseg.core.images import Frame
from edgeseg.workflow.compress.judging import VERDICTS, Limits
from quantization import QUANTIZERS, Int8Plan, Int8Writer
from quantization.ladder import MOST_TRIALS, Bench, Judge, Trial, choose_plan, describe, float_share, keep_layers, short_name

RUNGS: Final = ("off", "post_training", "mixed", "qat")
"""Names of the last rung allowed, in the order of the ladder; `off` = the format's default, unjudged."""

PRECISIONS: Final = ("int8", "mixed")
"""Of what is kept; which one is known after the climb."""


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
    limits: Limits
    """Those that `judge` judges by."""
    on_trial: Callable[[int, int], None] = lambda done, total: None
    fine_tune: Callable[[], FineTuned] | None = None
    """Gives what rung c starts from; `None` = there is nothing to train. Its ConfigError or TrainingError = that rung is not possible."""


@dataclass(frozen=True, kw_only=True)
class Climbed:
    """The model kept and the table of rungs."""

    model: ModelFiles
    rungs: tuple[dict[str, Any], ...]
    reached: bool
    """The limits are kept, at the bad end of the interval too."""
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
    limits = request.limits
    calibrated = _calibrated(bench, quantizer.offers, limits)
    rungs = [_rung("post_training", bench.tried, calibrated, writer, limits)]
    found = [_Candidate(calibrated, writer)]
    if _missed(calibrated, limits) and allowed >= RUNGS.index("mixed"):
        found.append(_Candidate(_mixed(bench, calibrated, writer, rungs, limits), writer))
    if _missed(found[-1].trial, limits) and allowed >= RUNGS.index("qat") and request.fine_tune is not None:
        try:
            start = request.fine_tune()
        except (ConfigError, TrainingError) as error:  # what the rungs below found is not lost with it
            rungs.append(_not_possible("qat", str(error)))
        else:
            found += _fine_tuned(request, start, calibrated.plan, rungs)
    kept = next((one for one in found if not _missed(one.trial, limits)), min(found, key=lambda one: one.trial.judged.cost))
    model = kept.writer.write(kept.trial.plan, output)
    tuned = kept.fine_tuned
    if tuned is not None:
        model = replace(model, scheme={**model.scheme, "method": "quantization-aware training", "carried": dict(tuned.facts)})
    for index, one in enumerate(found):
        rungs[index]["kept"] = one is kept
    return Climbed(
        model=model, rungs=tuple(rungs), reached=kept.trial.judged.reached, parent_sha256=None if tuned is None else tuned.parent_sha256
    )


def _missed(trial: Trial, limits: Limits) -> bool:
    return limits.verdict(trial.judged) == "missed"


def _calibrated(bench: Bench, offers: Sequence[Int8Plan], limits: Limits) -> Trial:
    """Climb rung a: the best verdict, then what changes the fewest answers; of what misses the limits the least cost."""
    first = choose_plan(bench, offers)

    def order(trial: Trial) -> tuple[int, float]:
        judged, verdict = trial.judged, limits.verdict(trial.judged)
        by_answers = verdict != "missed" and judged.agreement is not None
        return VERDICTS.index(verdict), -(judged.agreement or 0.0) if by_answers else judged.cost

    return first if first.judged.reached else min(bench.tried, key=order)


def _mixed(
    bench: Bench, start: Trial, writer: Int8Writer, rungs: list[dict[str, Any]], limits: Limits, name: str = "mixed"
) -> Trial:
    """Climb rung b from `start`. Where no trial is decided, the one that keeps the limits as measured with the least float is enough."""
    before = len(bench.tried)
    kept = keep_layers(bench, start, writer.layers)
    tried, best = bench.tried[before:], kept.trial
    if not best.judged.reached:
        enough = [trial for trial in tried if not _missed(trial, limits)]
        best = min(enough, key=lambda trial: (float_share(writer.layers, trial.plan), trial.judged.cost), default=best)
    facts = _rung(name, tried, best, writer, limits)
    facts["layers"] = [
        {"layers": [short_name(layer) for layer in part], "gain": gain, "float": bool(set(part) & set(best.plan.float_layers))}
        for part, gain in kept.gains
    ]
    rungs.append(facts)
    return best


def _fine_tuned(request: Climb, start: FineTuned, calibrated: Int8Plan, rungs: list[dict[str, Any]]) -> list[_Candidate]:
    """Climb rung c: with the ranges that were learnt, with calibrated ones, and where both miss the goals with float layers as well."""
    writer = QUANTIZERS[start.bundle.manifest.format].prepare(start.bundle, request.frames)
    bench = Bench(start.bundle, writer, request.judge, request.work)
    plans = [replace(calibrated, float_layers=())]
    if start.ranges:
        plans.insert(0, replace(plans[0], ranges=dict(start.ranges), activations="asymmetric"))
    limits = request.limits
    best = _calibrated(bench, plans, limits)
    rungs.append({**_rung("qat", bench.tried, best, writer, limits), "carried": dict(start.facts)})
    found = [_Candidate(best, writer, start)]
    if _missed(best, limits):
        found.append(_Candidate(_mixed(bench, best, writer, rungs, limits, "qat and mixed"), writer, start))
    return found


def _not_possible(name: str, why: str) -> dict[str, Any]:
    """A row of the table without a model."""
    return {
        "rung": name, "best": f"not possible: {why}", "not_possible": why, "size_bytes": 0, "reached": False, "verdict": "missed",
        "kept": False, "float_layers": [], "float_macs_share": 0.0, "tried": [],
    }


def _rung(name: str, tried: Sequence[Trial], best: Trial, writer: Int8Writer, limits: Limits) -> dict[str, Any]:
    """A row of the table."""
    return {
        "rung": name, "best": describe(best.plan), **best.judged.facts(), "size_bytes": best.size_bytes, "reached": best.judged.reached,
        "verdict": limits.verdict(best.judged),
        "float_layers": [short_name(layer) for layer in best.plan.float_layers],
        "float_macs_share": round(float_share(writer.layers, best.plan), 6), "tried": [trial.facts() for trial in tried],
    }
