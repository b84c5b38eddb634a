"""Rungs of the rescue ladder that need no training: which calibrator, and which layers stay float. The answers decide, never tensor errors.

Every trial is a model file that the caller's judge runs in the real runtime on frames held back from calibration. Layers are tried in at
most `WINDOWS` windows of neighbours, so that a ladder costs at most `MOST_TRIALS` trials however deep the network is.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle, ModelFiles
from quantization.base import Int8Writer
from quantization.plan import Int8Plan
from quantization.tensors import LayerFacts

WINDOWS: Final = 8
"""Windows of neighbouring layers that are made float one at a time."""
MOST_TRIALS: Final = 24
"""Trials of `keep_layers`: one a window, then joining windows, then leaving layers out again."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a model's answers on the held-back frames are worth."""

    cost: float
    """Less is better; at most 1 = the goals are reached."""
    miou: float | None = None
    """`None` without labels."""
    miou_drop: float | None = None
    miou_drop_high: float | None = None
    """Bad end of its 95 % interval."""
    worst_class: str = ""
    worst_drop: float | None = None
    agreement: float | None = None
    """Share of pixels (objects) as the float model answers."""

    @property
    def reached(self) -> bool:
        """Whether the goals are reached."""
        return self.cost <= 1

    @property
    def order(self) -> tuple[int, float]:
        """Less is better: of what reaches the goals, what changes the fewest answers, which a few frames tell more surely than mIoU."""
        return (0, -self.agreement) if self.reached and self.agreement is not None else (int(not self.reached), self.cost)

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        values = {
            "miou": self.miou, "miou_drop": self.miou_drop, "miou_drop_high": self.miou_drop_high,
            "worst_class": self.worst_class or None, "worst_class_drop": self.worst_drop, "agreement": self.agreement,
        }
        return {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items() if value is not None}


Judge = Callable[[Bundle], Judged]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One plan and what its answers are worth."""

    plan: Int8Plan
    judged: Judged
    size_bytes: int
    label: str

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {"tried": self.label, "size_bytes": self.size_bytes, **self.judged.facts()}


class Bench:
    """Writes the models of plans, one at a time, and has them judged. The files are gone afterwards: the same plan gives the same bytes."""

    def __init__(
        self, bundle: Bundle, writer: Int8Writer, judge: Judge, folder: Path, *, on_trial: Callable[[Trial], None] = lambda _: None
    ) -> None:
        self.bundle, self.writer, self.judge, self.folder, self.on_trial = bundle, writer, judge, folder, on_trial
        self.tried: list[Trial] = []
        self._known: dict[str, Trial] = {}

    def try_plan(self, plan: Int8Plan, label: str) -> Trial:
        """Write and judge the model of `plan`; the same plan is tried once."""
        key = repr(plan)
        if key not in self._known:
            with tempfile.TemporaryDirectory(dir=self.folder, prefix="trial-") as folder:
                model = self.writer.write(plan, Path(folder))
                judged = self.judge(as_bundle(self.bundle, model))
                size = sum((Path(folder) / name).stat().st_size for name in model.files)
            trial = Trial(plan=plan, judged=judged, size_bytes=size, label=label)
            self._known[key] = trial
            self.tried.append(trial)
            self.on_trial(trial)
        return self._known[key]


def as_bundle(parent: Bundle, model: ModelFiles) -> Bundle:
    """The model's files as a bundle that was never sealed, to be opened by a runtime."""
    manifest = replace(parent.manifest, entry=model.entry, precision=model.precision, scheme=dict(model.scheme), files=(), golden=())
    return Bundle(model.folder, manifest)


def choose_plan(bench: Bench, offers: Sequence[Int8Plan]) -> Trial:
    """Rung a: try what the format offers; the best answers win (`Judged.order`), the first of equal ones."""
    return min((bench.try_plan(plan, describe(plan)) for plan in offers), key=lambda trial: trial.judged.order)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Rung b: what was found out about layers."""

    trial: Trial
    gains: tuple[tuple[tuple[str, ...], float], ...]
    """Layers of each window, and by how much the cost falls when it alone is float; the largest first."""


def keep_layers(bench: Bench, start: Trial, layers: Sequence[LayerFacts], *, windows: int = WINDOWS) -> Kept:
    """Rung b: make float the layers that the answers need, and no more.

    Each window of neighbours is made float alone; then windows that helped are joined, the most helpful first, until the goals are reached;
    then layers are made int8 again, halves first and single ones last, while the goals stay reached.
    """
    parts = overlapping(layers, windows)
    macs = {layer.name: layer.macs for layer in layers}
    before = len(bench.tried)

    def attempt(names: Sequence[str], label: str) -> Trial:
        wanted = set(names)
        return bench.try_plan(replace(start.plan, float_layers=tuple(layer.name for layer in layers if layer.name in wanted)), label)

    def may_try() -> bool:
        return len(bench.tried) - before < MOST_TRIALS

    trials = [(part, attempt(part, f"float: {_span(part)}")) for part in parts]
    gains = [(part, start.judged.cost - trial.judged.cost) for part, trial in trials]
    gains.sort(key=lambda pair: (-pair[1], sum(macs[name] for name in pair[0])))
    best, chosen = start, list[str]()
    for part, gained in gains:
        if gained <= 0 or best.judged.reached or not may_try():
            break
        joined = [*chosen, *(name for name in part if name not in chosen)]
        trial = attempt(joined, f"float: {len(joined)} layers, the most helpful windows")
        if trial.judged.cost < best.judged.cost:
            best, chosen = trial, joined
    best = _shrink(best, [layer.name for layer in layers if layer.name in set(chosen)], attempt, may_try)
    return Kept(trial=best, gains=tuple((part, round(gained, 6)) for part, gained in gains))


def _shrink(best: Trial, chosen: list[str], attempt: Callable[[Sequence[str], str], Trial], may_try: Callable[[], bool]) -> Trial:
    """Make int8 again what the goals do not need (delta debugging: Zeller and Hildebrandt 2002, doi:10.1109/32.988498)."""
    size = len(chosen) // 2
    while best.judged.reached and size >= 1:
        for first in range(0, len(chosen), size):
            rest = chosen[:first] + chosen[first + size :]
            if not rest or not may_try():
                continue
            trial = attempt(rest, f"float: {len(rest)} layers, {len(chosen) - len(rest)} left out")
            if trial.judged.reached:
                best, chosen = trial, rest
                size = min(size, len(chosen))
                break
        else:
            size //= 2
    return best


def overlapping(layers: Sequence[LayerFacts], windows: int) -> list[tuple[str, ...]]:
    """At most `windows` windows of neighbouring layers that cover all, each overlapping the next by half.

    So that of two neighbours, between which an activation needs float, both are in one window.
    """
    names = [layer.name for layer in layers]
    step = max(1, -(-len(names) // (windows + 1)))
    starts = range(0, max(len(names) - step, 1), step) if names else range(0)
    return [tuple(names[first : first + 2 * step]) for first in starts]


def float_share(layers: Sequence[LayerFacts], plan: Int8Plan) -> float:
    """Share of the MACs of `layers` (all that could be 8 bit) which a plan leaves float."""
    kept = set(plan.float_layers)
    total = sum(layer.macs for layer in layers)
    return sum(layer.macs for layer in layers if layer.name in kept) / total if total else 0.0


def describe(plan: Int8Plan) -> str:
    """A plan in words."""
    words = [plan.calibrator]
    if plan.bias_correction:
        words.append("bias correction")
    if plan.activations != "asymmetric":
        words.append(f"{plan.activations} activations")
    if plan.weights != "per-channel":
        words.append(f"{plan.weights} weights")
    if plan.ranges:
        words.append(f"{len(plan.ranges)} learnt ranges")
    if plan.float_layers:
        words.append(f"{len(plan.float_layers)} float layers")
    return ", ".join(words)


def _span(part: Sequence[str]) -> str:
    return f"{len(part)} layers from {short_name(part[0])}"


def short_name(layer: str) -> str:
    """The telling end of a layer's name: converters put the whole path of modules into it."""
    words = re.sub(r";\d+$", "", layer.split(";;")[-1])
    parts = [part for part in words.replace("/aten::_convolution", "").split("/") if part]
    telling = parts[-2:] if len(parts[-1]) < 16 else parts[-1:]
    return "/".join(telling)[-60:]
