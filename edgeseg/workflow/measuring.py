"""Speed of every bundle for every target, int8 against its own fp32, and what pruning gained: all measured, nothing estimated."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeseg.core.bundle import BundleInfo, seal_bundle
from edgeseg.core.errors import MissingExtraError, TargetError
from edgeseg.core.files import read_json, write_json
from edgeseg.workflow.bundling import SealedBundle, export_model, own_answer
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learning import RunData, contract_of
from edgeseg.workflow.steps import StepResult
from targets.boards import Plan, Target, find_target, measured_on, plan
from targets.machine import describe_machine
from targets.measure.bench import bench, compare
from targets.runtimes import RUNTIMES
from targets.runtimes.onnxruntime import available_providers

_MAX_FRAMES = 64
"""Different frames a measurement cycles through; enough to defeat a cache of one."""


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


def measure_all(ctx: RunContext, data: RunData, bundles: list[SealedBundle]) -> list[Measured]:
    """Measure each bundle with the settings of each target that runs its format, on this machine."""
    return [
        _measure(ctx, data, target, bundle, bundles)
        for target in map(find_target, ctx.config.targets)
        for bundle in bundles
        if bundle.bundle.manifest.format in target.formats
    ]


def _measure(ctx: RunContext, data: RunData, target: Target, bundle: SealedBundle, bundles: list[SealedBundle]) -> Measured:
    manifest = bundle.bundle.manifest
    try:
        how = _plan(ctx, target, bundle)
        result = _bench_step(ctx, data, target, bundle, how)
    except (TargetError, MissingExtraError) as error:  # said in the report, row by row; never replaced by another way to run
        ctx.ui.say(f"{target.name}: {bundle.name} not measured: {error}")
        return Measured(target.name, bundle, None, str(error), None)
    same = [b for b in bundles if b.bundle.manifest.format == manifest.format and b.bundle.manifest.precision == "fp32" and b is not bundle]
    twin = next((b for b in same if b.float_twin), None)
    own = next((b for b in same if not b.float_twin), None) if manifest.precision in ("int8", "mixed") else None
    speedup = None if twin is None or bundle.float_twin else _speed_step(ctx, data, target, twin, bundle, how)
    own_speedup = None if own is None else _speed_step(ctx, data, target, own, bundle, how)
    return Measured(target.name, bundle, result, "", speedup, own_speedup)


def _plan(ctx: RunContext, target: Target, bundle: SealedBundle) -> Plan:
    manifest = bundle.bundle.manifest
    return plan(target, manifest.format, manifest.precision, num_threads=ctx.config.bench.threads, precision_hint=bundle.arithmetic)


def _bench_step(ctx: RunContext, data: RunData, target: Target, bundle: SealedBundle, how: Plan) -> dict[str, Any]:
    quick = ctx.config.bench.quick

    def make(output: Path) -> None:
        result = bench(
            bundle.bundle, frame_files(data), target=target, how=how, quick=quick, on_progress=_progress(ctx, f"measuring {bundle.name}")
        )
        write_json(output, result.to_json())

    name = f"bench-{target.name}-{bundle.name}"
    key = {"bundle": bundle.step.sha256, "quick": quick, "frames": data.dataset.sha256, "executed": 1, **_place(target, how)}
    step = ctx.steps.do(name, kind="bench", key=key, output=ctx.folder / "bench" / f"{target.name}--{bundle.name}.json", make=make)
    result: dict[str, Any] = read_json(step.output)
    return result


def _speed_step(ctx: RunContext, data: RunData, target: Target, fp32: SealedBundle, other: SealedBundle, how: Plan) -> dict[str, Any]:
    quick = ctx.config.bench.quick
    how_fp32 = _plan(ctx, target, fp32)
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
        )
        write_json(output, ratio.to_json())

    key = {"a": fp32.step.sha256, "b": other.step.sha256, "quick": quick, "frames": data.dataset.sha256, **_place(target, how)}
    output = ctx.folder / "bench" / f"{target.name}--{other.name}--vs-{against}.json"
    name = f"speed-{target.name}-{other.name}" + ("" if fp32.float_twin else f"-vs-{fp32.arithmetic}")
    step = ctx.steps.do(name, kind="bench", key=key, output=output, make=make)
    ratio: dict[str, Any] = read_json(step.output)
    return ratio


def pruning_gain(ctx: RunContext, data: RunData, trained: StepResult, pruned: StepResult) -> dict[str, Any] | None:
    """Latency before and after pruning, interleaved, as fp32; `None` without pruning.

    Measured for the first target that this machine can run (else with the settings of `host`), in its first format; the result says which.
    """
    if pruned is trained:
        return None
    target = next((t for t in map(find_target, ctx.config.targets) if _runs_here(t, ctx)), find_target("host"))
    format_ = next(f for f in target.formats if f in ctx.config.export.formats)
    how = plan(target, format_, "fp32", num_threads=ctx.config.bench.threads)
    key = {"before": trained.sha256, "after": pruned.sha256, "format": format_, "quick": ctx.config.bench.quick, **_place(target, how)}

    def make(output: Path) -> None:
        contract = contract_of(ctx.config)
        with tempfile.TemporaryDirectory(dir=ctx.work, prefix=".gain-", suffix=".tmp") as work:
            sides = []
            for name, checkpoint in (("before", trained), ("after", pruned)):
                info = BundleInfo(
                    name=f"pruning-{name}",
                    contract=contract,
                    classes=data.dataset.classes,
                    palette=data.dataset.palette,
                    reference=None,
                    parents=(),
                    config_sha256="",
                )
                (Path(work) / f"{name}-model").mkdir()
                model = export_model(checkpoint.output, contract, format_, Path(work) / f"{name}-model")
                sides.append(seal_bundle(Path(work) / name, model, info, golden_frames=[], answer=own_answer))
            ratio = compare(
                sides[0],
                sides[1],
                frame_files(data),
                target=target,
                how_a=how,
                how_b=how,
                quick=ctx.config.bench.quick,
                on_progress=_progress(ctx, "measuring what pruning gained"),
            )
        write_json(output, {**ratio.to_json(), "format": format_, "runtime": how.runtime, "target": target.name})

    step = ctx.steps.do("pruning-gain", kind="prune", key=key, output=ctx.folder / "bench" / "pruning.json", make=make)
    gain: dict[str, Any] = read_json(step.output)
    return gain


def _runs_here(target: Target, ctx: RunContext) -> bool:
    """Whether this machine has what the target executes with, so that a latency can be measured at all."""
    how = plan(target, next(f for f in target.formats if f in ctx.config.export.formats), "fp32")
    return how.options.provider == "cpu" or how.options.provider in available_providers()


def gain_words(gain: dict[str, Any], cut: dict[str, Any]) -> str:
    """Say whether pruning paid off, in one sentence: only if the whole interval lies above 1."""
    macs_ratio = cut["macs_before"] / max(1, cut["macs_after"])
    interval = f"95 % interval {gain['low']:.2f} to {gain['high']:.2f}"
    said = f"{gain['ratio']:.2f} times as fast ({interval}) for {macs_ratio:.2f} times fewer MACs"
    return f"Pruning paid off: {said}." if gain["low"] > 1 else f"Pruning did not make it faster here: {said}."


def frame_files(data: RunData) -> list[Path]:
    """Image files of the evaluation split, spread evenly over it."""
    samples = data.dataset.splits[data.eval_split]
    step = max(1, len(samples) // _MAX_FRAMES)
    return [sample.image for sample in samples[::step][:_MAX_FRAMES]]


def _place(target: Target, how: Plan) -> dict[str, Any]:
    """What makes a measurement another one: settings, runtime version and the machine itself."""
    machine = describe_machine()
    return {
        "version": 1,
        "target": target.name,
        "runtime": how.runtime,
        "runtime_version": RUNTIMES[how.runtime].version(),
        "options": asdict(how.options),
        "machine": measured_on(target, machine).words,
        "cores": machine.cores,
    }


def _progress(ctx: RunContext, label: str) -> Any:  # noqa: ANN401 - targets.measure.loop.Progress
    def show(stage: str, done: float) -> None:
        ctx.ui.progress(f"{label}: {stage}", round(100 * min(done, 1.0)), 100)

    return show
