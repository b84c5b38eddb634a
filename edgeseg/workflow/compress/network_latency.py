"""How long networks take that are no bundle of the run yet: exported, quantized where int8 is meant, and compared in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.bundle import Bundle, BundleInfo, seal_bundle
from edgeseg.core.config import Config
from edgeseg.workflow.bundle.bundling import own_answer
from edgeseg.workflow.bundle.pictures import spread
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import RunData, contract_of
from edgeseg.workflow.learn.reference import model_inputs
from edgeseg.workflow.places import HERE, Place
from targets.boards import Plan, Target, find_target, measured_on, plan
from targets.measure.bench import bench, compare, sweep
from targets.measure.result import BenchResult, SpeedRatio
from targets.runtimes import available_providers

if TYPE_CHECKING:
    from torch import nn

_MAX_FRAMES: Final = 64
"""Different frames a measurement cycles through; enough to defeat a cache of one."""
_CALIBRATION_FRAMES: Final = 4
"""Frames that a network is quantized with to be timed: its ranges do not matter, its speed does."""


class NetworkTimer:
    """Networks of one run on its first target that this machine can run (else with the settings of `host`), in its first format.

    A context manager: the bundles it makes are gone when it is left.
    """

    def __init__(self, ctx: RunContext, data: RunData, precision: str) -> None:
        self.data, self.precision = data, precision
        self._ctx = ctx
        self.target = next((t for t in map(find_target, ctx.config.targets) if _runs_here(t, ctx.config, precision)), find_target("host"))
        self.format = next(f for f in self.target.formats if f in ctx.config.export.formats)
        self.how = plan(self.target, self.format, precision, num_threads=ctx.config.bench.threads)
        self._bundles: dict[str, Bundle] = {}
        self._work: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> NetworkTimer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._work is not None:
            self._work.cleanup()

    @property
    def place(self) -> dict[str, Any]:
        """What makes a measurement another one."""
        return place_key(self.target, self.how)

    @property
    def words(self) -> str:
        """Runtime and precision, for messages."""
        return f"{self.how.runtime} {self.precision}"

    def bundle(self, name: str, net: nn.Module) -> Bundle:
        """Give the bundle of this name; the network is exported and quantized when it is first asked for."""
        if name not in self._bundles:
            self._bundles[name] = self._seal(name, net)
        return self._bundles[name]

    def latency(self, bundle: Bundle) -> BenchResult:
        """Measure one bundle, briefly."""
        return bench(bundle, frame_files(self.data), target=self.target, how=self.how, quick=True, on_progress=self._shown("measuring"))

    def share(self, whole: Bundle, other: Bundle) -> float:
        """Latency of `other` over that of `whole`, by the least of many calls in turns: to decide by, in a second or two."""
        whole_ms, other_ms = sweep([whole, other], self.how, on_progress=self._shown("comparing"))
        return other_ms / whole_ms

    def compare(self, whole: Bundle, other: Bundle, *, quick: bool = True) -> SpeedRatio:
        """How many times as fast `other` is as `whole`, in interleaved blocks."""
        return compare(
            whole, other, frame_files(self.data), target=self.target, how_a=self.how, how_b=self.how, quick=quick,
            on_progress=self._shown("comparing"),
        )

    def _seal(self, name: str, net: nn.Module) -> Bundle:
        from exporters import EXPORTERS
        from quantization import QUANTIZERS

        ctx, contract = self._ctx, contract_of(self._ctx.config)
        if self._work is None:
            ctx.work.mkdir(parents=True, exist_ok=True)
            self._work = tempfile.TemporaryDirectory(dir=ctx.work, prefix=".latency-", suffix=".tmp")
        folder = Path(self._work.name)
        info = BundleInfo(name=f"pruning-{name}", contract=contract, classes=self.data.dataset.classes, palette=self.data.dataset.palette,
                          reference=None, parents=(), config_sha256="")
        (folder / f"{name}-fp32-model").mkdir()
        model = EXPORTERS[self.format](net, contract, folder / f"{name}-fp32-model")
        bundle = seal_bundle(folder / f"{name}-fp32", model, info, golden_frames=[], answer=own_answer)
        if self.precision == "fp32":
            return bundle
        chosen = list(spread(len(self.data.dataset.splits["train"]), _CALIBRATION_FRAMES))
        frames = model_inputs(self.data, "train", contract, chosen)[:_CALIBRATION_FRAMES]
        (folder / f"{name}-int8-model").mkdir()
        model = QUANTIZERS[self.format](bundle, frames, folder / f"{name}-int8-model")
        return seal_bundle(folder / f"{name}-int8", model, info, golden_frames=[], answer=own_answer)

    def _shown(self, label: str) -> Callable[[str, float], None]:
        def show(stage: str, done: float) -> None:
            self._ctx.ui.progress(f"{label} what pruning gains: {stage}", round(100 * min(done, 1.0)), 100)

        return show


def precision_of(config: Config) -> str:
    """Precision of the bundles whose latency `[prune]` is about."""
    section = config.prune
    if section.precision != "auto":
        return section.precision
    return "int8" if section.to_latency and config.quantize.int8 else "fp32"


def frame_files(data: RunData) -> list[Path]:
    """Image files of the evaluation split, spread evenly over it."""
    samples = data.dataset.splits[data.eval_split]
    step = max(1, len(samples) // _MAX_FRAMES)
    return [sample.image for sample in samples[::step][:_MAX_FRAMES]]


def place_key(target: Target, how: Plan, place: Place = HERE) -> dict[str, Any]:
    """What makes a measurement another one: settings, runtime version and the machine itself."""
    machine = place.machine
    return {
        "version": 1,
        "target": target.name,
        "runtime": how.runtime,
        "runtime_version": place.version(how.runtime),
        "options": asdict(how.options),
        "machine": measured_on(target, machine).words,
        "cores": machine.cores,
        **place.key,
    }


def _runs_here(target: Target, config: Config, precision: str) -> bool:
    """Whether the target runs the precision and this machine has what it executes with, so that a latency can be measured at all."""
    if precision not in target.precisions:
        return False
    how = plan(target, next(f for f in target.formats if f in config.export.formats), precision)
    return how.options.provider == "cpu" or how.options.provider in available_providers(how.runtime)
