"""Speed of every bundle for every target, int8 against its own fp32, and what pruning gained: measured; what is not says "about"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeseg.core.errors import BusyError, DeviceError, MissingExtraError, RuntimeFailure, TargetError
from edgeseg.core.files import read_json, write_json
from edgeseg.core.lazy import require
from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.compress.network_latency import NetworkTimer, frame_files, place_key, precision_of
from edgeseg.workflow.compress.pruning_latency import missed_words
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.measure.run_tuning import TunedPlan, tuned_plan
from edgeseg.workflow.places import HERE, Place
from edgeseg.workflow.steps import StepResult
from targets.boards import Plan, Target, find_target
from targets.measure.bench import bench, compare
from targets.measure.result import MEASURING

__all__ = ["Measured", "frame_files", "gain_words", "measure_all", "method_words", "pruning_gain"]


@dataclass(frozen=True)
class Measured:
    """One bundle for one target: `result` is `BenchResult.to_json()`, or `None` with the reason why it was not measured."""

    target: str
    bundle: SealedBundle
    result: dict[str, Any] | None
    why_not: str
    speedup: dict[str, Any] | None
    """`SpeedRatio.to_json()` against the fp32 bundle of the same format; `None` for fp32 itself."""
    own_speedup: dict[str, Any] | None = None
    """The same against that bundle in the runtime's own arithmetic, where that is not f32."""


def measure_all(ctx: RunContext, data: RunData, bundles: list[SealedBundle], places: Mapping[str, Place]) -> list[Measured]:
    """Measure each bundle with the settings of each target that runs its format: on the target's device, or without one on this machine."""
    return [
        _measure(ctx, data, target, bundle, bundles, places.get(target.name, HERE))
        for target in map(find_target, ctx.config.targets)
        for bundle in bundles
        if bundle.bundle.manifest.format in target.formats
    ]


def _measure(
    ctx: RunContext, data: RunData, target: Target, bundle: SealedBundle, bundles: list[SealedBundle], place: Place,
) -> Measured:
    try:
        return _measured(ctx, data, target, bundle, bundles, place)
    except (TargetError, MissingExtraError, DeviceError, BusyError, RuntimeFailure) as error:  # never replaced by another way to run
        if isinstance(error, RuntimeFailure) and place.is_here:
            raise
        ctx.ui.say(f"{target.name}: {bundle.name} not measured: {error}")
        return Measured(target.name, bundle, None, str(error), None)


def _measured(
    ctx: RunContext, data: RunData, target: Target, bundle: SealedBundle, bundles: list[SealedBundle], place: Place,
) -> Measured:
    manifest = bundle.bundle.manifest
    how, tuned = _plan(ctx, data, target, bundle, place)
    result = _bench_step(ctx, data, target, bundle, how, place)
    if tuned:
        result = {**result, "settings": {**result["settings"], "tuned": tuned}}
    floats = [b for b in bundles if b.bundle.manifest.format == manifest.format and b.bundle.manifest.precision == "fp32"]
    same = [b for b in floats if b is not bundle and "fp32" in target.precisions]
    twin = next((b for b in same if b.float_twin), None)
    own = next((b for b in same if not b.float_twin), None) if manifest.precision in ("int8", "mixed") else None
    speedup = None if twin is None or bundle.float_twin else _speed_step(ctx, data, target, twin, bundle, how, place)
    own_speedup = None if own is None else _speed_step(ctx, data, target, own, bundle, how, place)
    return Measured(target.name, bundle, result, "", speedup, own_speedup)


def _plan(ctx: RunContext, data: RunData, target: Target, bundle: SealedBundle, place: Place) -> TunedPlan:
    how = place.plan(target.name, bundle.bundle.manifest, num_threads=ctx.config.bench.threads, precision_hint=bundle.precision_hint)
    return tuned_plan(ctx, data, target, bundle, how, place)


def _bench_step(ctx: RunContext, data: RunData, target: Target, bundle: SealedBundle, how: Plan, place: Place) -> dict[str, Any]:
    quick = ctx.config.bench.quick

    def make(output: Path) -> None:
        result = bench(
            bundle.bundle, frame_files(data), target=target, how=how, quick=quick, on_progress=_progress(ctx, f"measuring {bundle.name}"),
            device=place.device,
        )
        write_json(output, result.to_json())

    name = f"bench-{target.name}-{bundle.name}"
    key = {
        "measuring": MEASURING, "bundle": bundle.step.sha256, "quick": quick, "frames": data.dataset.sha256,
        **place_key(target, how, place),
    }
    step = ctx.steps.do(name, kind="bench", key=key, output=ctx.folder / "bench" / f"{target.name}--{bundle.name}.json", make=make)
    result: dict[str, Any] = read_json(step.output)
    return result


def _speed_step(
    ctx: RunContext, data: RunData, target: Target, fp32: SealedBundle, other: SealedBundle, how: Plan, place: Place,
) -> dict[str, Any]:
    quick = ctx.config.bench.quick
    how_fp32 = _plan(ctx, data, target, fp32, place).how
    against = "fp32" if fp32.float_twin else f"fp32-{fp32.arithmetic}"

    def make(output: Path) -> None:
        label = f"comparing {other.name} with its {against}"
        ratio = compare(
            fp32.bundle,
            other.bundle,
            frame_files(data),
            target=target,
            how_a=how_fp32,
            how_b=how,
            quick=quick,
            on_progress=_progress(ctx, label),
            device=place.device,
        )
        write_json(output, ratio.to_json())

    key = {
        "measuring": MEASURING, "a": fp32.step.sha256, "b": other.step.sha256, "quick": quick, "frames": data.dataset.sha256,
        **place_key(target, how, place),
    }
    if ctx.config.bench.tune:  # fp32 has settings of its own then
        key["how_fp32"] = asdict(how_fp32.options)
    output = ctx.folder / "bench" / f"{target.name}--{other.name}--vs-{against}.json"
    name = f"speed-{target.name}-{other.name}" + ("" if fp32.float_twin else f"-vs-{fp32.arithmetic}")
    step = ctx.steps.do(name, kind="bench", key=key, output=output, make=make)
    ratio: dict[str, Any] = read_json(step.output)
    return ratio


def pruning_gain(ctx: RunContext, data: RunData, trained: StepResult, pruned: StepResult) -> dict[str, Any] | None:
    """Latency before and after pruning, interleaved, in the precision that `[prune]` is about; `None` without pruning.

    Measured for the first target that this machine can run (else with the settings of `host`), in its first format; the result says which.
    """
    if pruned is trained:
        return None
    with NetworkTimer(ctx, data, precision_of(ctx.config)) as timer:
        quick = ctx.config.bench.quick
        key = {
            "measuring": MEASURING, "before": trained.sha256, "after": pruned.sha256, "format": timer.format, "precision": timer.precision,
            "quick": quick, **timer.place,
        }

        def make(output: Path) -> None:
            require("torch", extra="export")
            from edgeseg.training.checkpoint import load_checkpoint

            nets = {name: load_checkpoint(step.output)[0] for name, step in (("before", trained), ("after", pruned))}
            ratio = timer.compare(*(timer.bundle(name, net) for name, net in nets.items()), quick=quick)
            write_json(output, {**ratio.to_json(), "format": timer.format, "precision": timer.precision, "runtime": timer.how.runtime,
                                "target": timer.target.name})

        step = ctx.steps.do("pruning-gain", kind="prune", key=key, output=ctx.folder / "bench" / "pruning.json", make=make)
    gain: dict[str, Any] = read_json(step.output)
    return gain


def gain_words(gain: dict[str, Any], cut: dict[str, Any]) -> str:
    """Say whether pruning paid off, only if the whole interval lies above 1, and how much of what it saves in MACs it saves in time.

    A latency that was asked for and is missed is said here too.
    """
    macs_gain = cut["macs_before"] / max(1, cut["macs_after"])
    interval = f"95 % interval {gain['low']:.2f} to {gain['high']:.2f}"
    where = f" in {gain['runtime']} {gain['precision']}" if "runtime" in gain else ""
    said = (f"{gain['ratio']:.2f} times as fast{where} ({interval}) for {macs_gain:.2f} times fewer MACs, "
            f"latency gain over MAC gain {gain['ratio'] / macs_gain:.2f}")
    missed = missed_words(cut["latency"]) if "latency" in cut else ""
    verdict = f"Pruning paid off: {said}." if gain["low"] > 1 else f"Pruning did not make it faster here: {said}."
    return f"{verdict} {missed}".rstrip()


def method_words(cut: dict[str, Any]) -> str:
    """Say how channels were chosen; for a latency what was asked for, predicted and measured."""
    scope = {"global": "all layers weighed at once", "per_layer": "every layer by one share"}[cut["scope"]]
    words = f"Channels by {cut['importance']}, {scope}, multiples of {cut['round_to']}, cuts: {cut['cuts']}."
    found = cut.get("latency")
    if found is None:
        return words
    return (
        f"{words} Asked for {found['asked_share']:.1%} of the latency of the unpruned network in {found['runtime']} {found['precision']}; "
        f"for the first cut the cost table foretold {found['first_predicted_share']:.1%}, measured were "
        f"{found['first_measured_share']:.1%}; "
        f"of {found['cuts_measured']} tried, one with {found['measured_share']:.1%} is kept: "
        f"p90 {found['whole_p90_ms']:.2f} -> about {found['estimated_p90_ms']:.2f} ms. "
        f"Cut to the least, the network would take {found['least_share']:.1%}."
    )


def _progress(ctx: RunContext, label: str) -> Any:  # noqa: ANN401 - targets.measure.loop.Progress
    def show(stage: str, done: float) -> None:
        ctx.ui.progress(f"{label}: {stage}", round(100 * min(done, 1.0)), 100)

    return show
