"""One point, through the chain's own steps: latency of its untrained network first, then training, pruning, bundles, val mIoU, latency.

Everything is cached by content in a run folder of the search, so that no two points train the same thing twice, and a trial that was
killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.config import Config
from edgeseg.core.files import patient_lock, sweep_temporaries, write_text
from edgeseg.workflow.bundle import bundling
from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.check import verifying
from edgeseg.workflow.compress.pruning import prune
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn import learning
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.learn.reference import evaluate_float
from edgeseg.workflow.search.front import Limits, Value
from edgeseg.workflow.search.space import Point, trial_config
from edgeseg.workflow.search.speed import Place, Speed, Stopwatch, tools_of, untrained
from edgeseg.workflow.search.stopping import Rival, falls_behind, is_rung
from edgeseg.workflow.steps import Steps
from edgeseg.workflow.ui import Ui

if TYPE_CHECKING:
    from edgeseg.training.loop import TrainProgress

_HOPELESS: Final = 1.1
"""A network is not trained where it would miss the latency by more than this factor even if pruning paid in full."""
_SUBFOLDERS: Final = ("", "work", "checkpoints", "bundles", "verify", "bench", ".steps")


@dataclass(frozen=True)
class Environment:
    """What every trial of a worker shares."""

    config: Config
    folder: Path
    """`runs/NAME/search`."""
    data: RunData
    """With val as its evaluation split: the test split takes no part in a choice."""
    places: tuple[Place, ...]
    stopwatch: Stopwatch
    limits: Limits
    workers: int
    """Processes that share this machine's threads."""
    ui: Ui


class Dropped(Exception):
    """The point is not worth going on with; `excess` holds the limits it is already known to miss."""

    def __init__(self, kind: str, reason: str, excess: Mapping[str, float]) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.excess = kind, reason, excess


@dataclass(frozen=True)
class Watch:
    """How a trial hears of others and lets them hear of it."""

    note: Callable[[str, Any], None]
    """Write something down beside the trial, at once and for all workers."""
    rivals: Callable[[], Sequence[Rival]]
    """The other trainings."""
    scores: Callable[[], Mapping[int, float]]
    """What this trial's training had reached when another trial, or an earlier attempt, had it."""


@dataclass(frozen=True)
class Outcome:
    """What a point gave: its value, and the same place by place."""

    value: Value
    places: tuple[dict[str, Any], ...]


def evaluate(env: Environment, point: Point, watch: Watch) -> Outcome:
    """Take a point from its untrained network to measured bundles.

    Raises:
        Dropped: it is too slow to be trained, or its training fell behind.
        EdgesegError: whatever a step of the chain raises.
    """
    formats = tuple(dict.fromkeys(place.format for place in env.places))
    config = trial_config(env.config, point, formats)
    shared = env.folder / "points" / point.training
    lock = shared / ".lock"
    with patient_lock(lock, holder="edgeseg search", on_wait=lambda who: env.ui.say(f"waiting: {who} has {point.training}")):
        bound_ms = _bound(env, point, config)
        watch.note("bound_ms", bound_ms)
        hook = Hook(config.train.epochs, env.config.search.stop_early, bound_ms, watch)
        trained = learning.train(_context(env, config, point.training, hook=hook), env.data)
        ctx = _context(env, config, point.folder)
        final = prune(ctx, env.data, trained)
        reference = evaluate_float(ctx, env.data, final, learning.decide(ctx, env.data, final))
        bundles = bundling.export_all(ctx, env.data, final, reference)
        if point.precision != "fp32":
            bundles = bundling.quantize_all(ctx, env.data, bundles)
        manifests = [(bundle.bundle.manifest, bundle) for bundle in bundles]
        by_format = {facts.format: bundle for facts, bundle in manifests if point.precision != "fp32" or facts.precision == "fp32"}
        verified = {name: verifying.verify(ctx, env.data, bundle, reference).result for name, bundle in by_format.items()}
        mious = {name: float(result["miou"]) for name, result in verified.items()}
        found = [(place, _speed(env, ctx, by_format[place.format], place)) for place in env.places]
    places = tuple(
        {"targets": list(place.targets), "format": place.format, "runtime": place.how.runtime, "miou": mious[place.format], **asdict(speed)}
        for place, speed in found
    )
    lows = [one["low"] for one in (result["intervals"]["miou"] for result in verified.values()) if one is not None]
    value = Value(
        miou=min(mious.values()), miou_low=None if not lows or None in lows else min(lows),
        p90_ms=max(s.p90_ms for _, s in found), size_bytes=max(s.size_bytes for _, s in found),
    )
    return Outcome(value, places)


class Hook:
    """Watches a training of `epochs`: notes each validation score, and ends it (`Dropped`) where it falls behind, if `stop`."""

    def __init__(self, epochs: int, stop: bool, bound_ms: float, watch: Watch) -> None:
        self._epochs, self._stop = epochs, stop
        self._bound_ms, self._watch = bound_ms, watch
        self._scores = dict(watch.scores())
        self._told = 0
        self._begun = False

    def __call__(self, now: TrainProgress) -> None:
        """Take what the training loop reports; see `RunContext.on_training`."""
        if not self._begun:  # only now, since a finished training costs nothing more
            self._begun = True
            for epoch in sorted(self._scores):
                self._judge(epoch)
        if now.score is None or now.scored_epoch <= self._told:
            return
        self._told = now.scored_epoch
        self._scores[now.scored_epoch] = now.score
        self._watch.note("scores", {str(epoch): score for epoch, score in sorted(self._scores.items())})
        self._judge(now.scored_epoch)

    def _judge(self, epoch: int) -> None:
        if not self._stop or not is_rung(epoch, self._epochs):
            return
        reason = falls_behind(self._scores[epoch], epoch, self._bound_ms, self._watch.rivals())
        if reason:
            raise Dropped("stopped", reason, {})


def _bound(env: Environment, point: Point, config: Config) -> float:
    """Latency in ms that the point cannot beat: of its network, untrained and unpruned, times the share of MACs that pruning keeps.

    Pruning to a share of the MACs is taken to gain that share at most (docs/search.md).

    Raises:
        Dropped: even so it misses the latency asked for.
    """
    speeds = [_untrained_speed(env, point, config, place) for place in env.places]
    bound_ms = max(speed.p90_ms for speed in speeds) * point.macs_share
    limit = env.limits.p90_ms
    if limit is not None and max(speed.low_ms for speed in speeds) * point.macs_share > _HOPELESS * limit:
        share = f" times {point.macs_share:g} of its MACs" if point.macs_share < 1 else ""
        raise Dropped(
            "too slow", f"p90 of its untrained network{share} is {bound_ms:.3g} ms, {limit:g} were asked for; not trained",
            {"p90_ms": bound_ms / max(limit, 1e-9) - 1},
        )
    return bound_ms


def _untrained_speed(env: Environment, point: Point, config: Config, place: Place) -> Speed:
    key = {
        "model": asdict(config.model.portable), "size": list(config.data.size), "classes": len(env.data.dataset.classes),
        "precision": point.precision, "tools": tools_of(place.format, point.precision), **config.data.resizer_key,
    }
    return env.stopwatch.measure(
        env.stopwatch.steps, f"untrained-{point.training}-{point.precision}", key, place,
        lambda work: untrained(config, env.data, place.format, point.precision, work / "bundle"),
    )


def _speed(env: Environment, ctx: RunContext, bundle: SealedBundle, place: Place) -> Speed:
    return env.stopwatch.measure(ctx.steps, f"speed-{bundle.name}", {"bundle": bundle.step.sha256}, place, lambda work: bundle.bundle)


def _context(env: Environment, config: Config, name: str, *, hook: Callable[[TrainProgress], None] | None = None) -> RunContext:
    """Open the run folder of a point, as `open_run` does; its lock is that of the training, which the caller holds.

    A training that was interrupted goes on, unless it had another number of threads: it would not give the same bits.
    """
    folder = env.folder / "points" / name
    for part in _SUBFOLDERS:
        (folder / part).mkdir(parents=True, exist_ok=True)
        sweep_temporaries(folder / part)
    threads = folder / "workers"
    other = threads.exists() and threads.read_text(encoding="utf-8") != str(env.workers)
    write_text(threads, str(env.workers))
    ctx = RunContext(config, folder, Steps(folder, env.ui), env.ui, restart=other, trainings_here=env.workers)
    return replace(ctx, on_training=hook)
