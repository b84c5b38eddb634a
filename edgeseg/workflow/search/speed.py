"""Latency on a machine that is busy training: each bundle in blocks between those of one fixed network, the baseline.

What slows the machine slows both, so their ratio holds; times the baseline's own latency, taken before the first training began, it is
the latency of the bundle on an idle machine. One measurement at a time, by a file lock.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeseg.core.bundle import Bundle, BundleInfo, open_bundle, seal_bundle
from edgeseg.core.config import Config
from edgeseg.core.errors import TargetError
from edgeseg.core.files import atomic_folder, patient_lock, read_json, write_json
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract
from edgeseg.workflow.bundle.bundling import EXPORT_TOOLS, QUANTIZE_TOOLS, own_answer
from edgeseg.workflow.bundle.pictures import spread
from edgeseg.workflow.learn.learning import RunData, contract_of
from edgeseg.workflow.learn.reference import model_inputs
from edgeseg.workflow.steps import Steps, tools
from edgeseg.workflow.ui import Ui
from targets.boards import Plan, find_target, measured_on, plan
from targets.machine import describe_machine
from targets.measure.bench import bench, compare
from targets.runtimes import RUNTIMES, available_providers

_CALIBRATION_FRAMES = 4
"""Frames that an untrained network is quantized with: its ranges do not matter, its speed does."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A way to execute: the format and settings of one target, or of several that agree."""

    targets: tuple[str, ...]
    format: str
    how: Plan

    def facts(self) -> dict[str, Any]:
        """What makes a measurement another one."""
        target, machine = find_target(self.targets[0]), describe_machine()
        return {
            "targets": list(self.targets), "format": self.format, "runtime": self.how.runtime, "options": asdict(self.how.options),
            "runtime_version": RUNTIMES[self.how.runtime].version(), "machine": measured_on(target, machine).machine,
            "cores": machine.cores,
        }


def places_of(config: Config, *, say: Callable[[str], None]) -> tuple[Place, ...]:
    """For each target the first of its formats that `[export] formats` makes and this machine can execute.

    Raises:
        TargetError: this machine can execute none of them.
    """
    found: dict[tuple[str, Plan], list[str]] = {}
    for name in config.targets:
        target = find_target(name)
        if "fp32" not in target.precisions:
            say(f"{name} is left out: it does not run fp32, which every latency is compared with")
            continue
        for format_ in (f for f in target.formats if f in config.export.formats):
            how = plan(target, format_, "fp32", num_threads=config.bench.threads)
            here = RUNTIMES[how.runtime].version() is not None
            if here and (how.options.provider == "cpu" or how.options.provider in available_providers(how.runtime)):
                found.setdefault((format_, how), []).append(name)
                break
        else:
            say(f"{name} is left out: this machine has no runtime of it for {', '.join(config.export.formats)}")
    if not found:
        raise TargetError(f"this machine can measure none of {', '.join(config.targets)}; set targets = [\"host\"]; see edgeseg doctor")
    return tuple(Place(targets=tuple(names), format=format_, how=how) for (format_, how), names in found.items())


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast and how large a bundle is."""

    p90_ms: float
    """On this machine when idle: the baseline's 90th percentile over the ratio of the two."""
    low_ms: float
    high_ms: float
    """From the 95 % interval of the ratio."""
    size_bytes: int


@dataclass(frozen=True)
class Stopwatch:
    """Measures bundles against the baseline of their place."""

    folder: Path
    steps: Steps
    frames: Sequence[Path]
    ui: Ui

    def idle(self, place: Place, make_baseline: Callable[[Path], Bundle], key: dict[str, Any]) -> dict[str, Any]:
        """Latency of the baseline, measured once and before any training: `p50_ms`, `p90_ms`, `load` = other processes a core."""

        def make(output: Path) -> None:
            with patient_lock(self.folder / "measuring.lock", holder="edgeseg search"), atomic_folder(output) as folder:
                bundle = make_baseline(folder / "bundle")
                load = others_running()
                result = bench(bundle, self.frames, target=place.targets[0], how=place.how, quick=True,
                               on_progress=self._show("the baseline"))
                write_json(folder / "idle.json", {"p50_ms": result.inference.p50_ms, "p90_ms": result.inference.p90_ms, "load": load})

        self.steps.do(f"baseline-{_slug(place)}", kind="bench", key={**key, **place.facts()}, output=self._baseline(place), make=make)
        return self.baseline_facts(place)

    def measure(self, steps: Steps, name: str, key: dict[str, Any], place: Place, make_bundle: Callable[[Path], Bundle]) -> Speed:
        """Measure a bundle against the baseline, one at a time on this machine; as step `name` of `steps`, done once for `key`.

        What is kept is the ratio to this very baseline, so that one that is measured again corrects all of it, and another network has
        ratios of its own. `make_bundle` is given an empty folder.
        """
        def make(output: Path) -> None:
            with tempfile.TemporaryDirectory(prefix="edgeseg-search-") as work:
                write_json(output, self._compare(make_bundle(Path(work)), place))

        output = steps.folder / "bench" / f"{name}--{_slug(place)}.json"
        baseline = open_bundle(self._baseline(place) / "bundle").manifest.sha256
        facts = {**key, **place.facts(), "baseline": baseline}
        found = read_json(steps.do(f"{name}--{_slug(place)}", kind="bench", key=facts, output=output, make=make).output)
        p90_ms = float(self.baseline_facts(place)["p90_ms"])
        return Speed(p90_ms=p90_ms / found["ratio"], low_ms=p90_ms / found["high"], high_ms=p90_ms / found["low"],
                     size_bytes=found["size_bytes"])

    def _compare(self, bundle: Bundle, place: Place) -> dict[str, Any]:
        baseline, precision = open_bundle(self._baseline(place) / "bundle"), bundle.manifest.precision
        how = plan(place.targets[0], place.format, precision, num_threads=place.how.options.num_threads)
        lock = self.folder / "measuring.lock"
        with patient_lock(lock, holder="edgeseg search", on_wait=lambda who: self.ui.say(f"waiting: {who} measures")):
            ratio = compare(baseline, bundle, self.frames, target=place.targets[0], how_a=place.how, how_b=how, quick=True,
                            on_progress=self._show(bundle.manifest.name))
        return {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high, "size_bytes": bundle.size_bytes}

    def baseline_facts(self, place: Place) -> dict[str, Any]:
        """What `idle` wrote."""
        facts: dict[str, Any] = read_json(self._baseline(place) / "idle.json")
        return facts

    def _baseline(self, place: Place) -> Path:
        return self.folder / "baseline" / _slug(place)

    def _show(self, what: str) -> Callable[[str, float], None]:
        return lambda stage, done: self.ui.progress(f"measuring {what}: {stage}", round(100 * min(done, 1.0)), 100)


def others_running(samples: int = 20) -> float:
    """Processes that could run besides this one, a core: the mean of a few looks within 0.2 s.

    The load average would still count what this process itself did in the minute before.
    """
    cores = os.cpu_count() or 1
    try:
        seen = []
        for _ in range(samples):
            runnable = Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0]
            seen.append(max(0, int(runnable) - 1))
            time.sleep(0.01)
    except OSError:  # not Linux
        return max(0.0, os.getloadavg()[0] - 1) / cores
    return sum(seen) / samples / cores


def _slug(place: Place) -> str:
    return f"{place.targets[0]}-{place.format}"


def untrained(config: Config, data: RunData, format_: str, precision: str, target: Path) -> Bundle:
    """Seal a bundle of the configured network with random weights: as fast and as large as a trained one, and of no other use."""
    require("torch", extra="export")
    from edgeseg.models import start
    from edgeseg.workflow.zoo_worker import settle

    net = start(config.model, len(data.dataset.classes), seed=config.train.seed, size_hw=config.data.size, crop_hw=(0, 0))
    contract = contract_of(config)
    count = len(data.dataset.splits["train"])
    settle(net, model_inputs(data, "train", contract, list(spread(count, _CALIBRATION_FRAMES))))
    return _seal(net, contract, data, format_, precision, target)


def smallest(contract: Contract, data: RunData, num_scores: int, format_: str, target: Path) -> Bundle:
    """Seal the smallest network that obeys the contract: one convolution at stride 8 and the decision head, random weights."""
    require("torch", extra="export")
    import torch
    from torch import nn

    torch.manual_seed(0)
    return _seal(nn.Sequential(nn.Conv2d(3, num_scores, 3, stride=8, padding=1)), contract, data, format_, "fp32", target)


def _seal(net: Any, contract: Contract, data: RunData, format_: str, precision: str, target: Path) -> Bundle:  # noqa: ANN401 - nn.Module
    from exporters import EXPORTERS
    from quantization import QUANTIZERS

    def info(precision: str) -> BundleInfo:
        return BundleInfo(name=f"untrained-{format_}-{precision}", contract=contract, classes=data.dataset.classes,
                          palette=data.dataset.palette, reference=None, parents=(), config_sha256="")

    with tempfile.TemporaryDirectory(prefix="edgeseg-untrained-") as work:
        made = Path(work) / "fp32-model"
        made.mkdir()
        fp32 = seal_bundle(target if precision == "fp32" else Path(work) / "fp32", EXPORTERS[format_](net, contract, made), info("fp32"),
                           golden_frames=[], answer=own_answer)
        if precision == "fp32":
            return fp32
        frames = model_inputs(data, "train", contract, list(spread(len(data.dataset.splits["train"]), _CALIBRATION_FRAMES)))
        quantized = Path(work) / "int8-model"
        quantized.mkdir()
        return seal_bundle(target, QUANTIZERS[format_](fp32, frames, quantized), info(precision), golden_frames=[], answer=own_answer)


def tools_of(format_: str, precision: str) -> dict[str, str]:
    """Versions that the speed of a bundle depends on."""
    return tools(*EXPORT_TOOLS[format_], *(QUANTIZE_TOOLS[format_] if precision != "fp32" else ()))
