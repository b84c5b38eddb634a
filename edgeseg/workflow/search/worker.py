"""The loop of one worker: take a point, try it, write down what it gave; until the budget is spent.

Workers know of each other by the journal alone. Each holds a lock of its own while it lives, so that what a killed one had begun is seen
to be nobody's, marked as lost, and tried again. A further worker on the same machine is
`python -m edgeseg.workflow.search.worker`, which ends when its stdin does.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edgeseg.core.errors import BundleError, ConfigError, EdgesegError, RuntimeFailure, TargetError, TrainingError
from edgeseg.core.files import is_locked, lock, patient_lock
from edgeseg.core.lazy import require
from edgeseg.workflow.search.space import Point, Space
from edgeseg.workflow.search.stopping import Rival
from edgeseg.workflow.search.trial import Dropped, Environment, Outcome, Watch, evaluate

MOST_ATTEMPTS: Final = 3
"""A point whose worker died this often, and got no further, is not tried again: it may be what kills them (memory)."""
_OF_THE_POINT: Final = (ConfigError, TrainingError, RuntimeFailure, TargetError, BundleError)
"""Errors that say something about a point; any other (a full disk, a missing package) ends the worker, and the point is tried again."""
_MULTIPLE_SEEDS: Final = 10_000
_STARTUP: Final = 8
"""Points drawn at random before the sampler has enough to learn from."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When to stop beginning new trials."""

    trials: int
    """Of all workers, and of all calls together."""
    deadline: float
    """`time.monotonic()` after which no trial is begun; infinity = none."""


@contextmanager
def alive(folder: Path) -> Iterator[str]:
    """Be known as a living worker of the search in `folder`; gives the worker's name."""
    name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path = folder / "workers" / f"{name}.lock"
    try:
        with lock(path, holder="edgeseg search"):
            yield name
    finally:
        path.unlink(missing_ok=True)


def work(env: Environment, study: Any, space: Space, name: str, budget: Budget) -> str:  # noqa: ANN401 - optuna.Study
    """Try points until the budget is spent; give why it ended."""
    while True:
        with patient_lock(env.folder / "asking.lock", holder="edgeseg search"):
            bury(study, env.folder, say=env.ui.say)
            if time.monotonic() >= budget.deadline:
                return "the time is up"
            if sum(counts(trial) for trial in study.get_trials(deepcopy=False)) >= budget.trials:
                return f"{budget.trials} point{'s were' if budget.trials > 1 else ' was'} tried"
            taken = take(study, space, name, seed=env.config.train.seed)
            if taken is None:
                return f"all {len(space.points())} points of the space were tried"
        trial, point = taken
        env.ui.say(f"trial {trial.number}: {words(point)}")
        _try(env, study, trial, point)


def _try(env: Environment, study: Any, trial: Any, point: Point) -> None:  # noqa: ANN401 - optuna's
    """Try a point, and tell the journal whatever comes of it."""
    state = require("optuna", extra="search").trial.TrialState
    started = time.monotonic()
    watch = Watch(
        note=trial.set_user_attr,
        rivals=lambda: rivals_of(study.get_trials(deepcopy=False), but=point.training),
        scores=lambda: scores_of(study.get_trials(deepcopy=False), point.training),
    )
    try:
        outcome: Outcome = evaluate(env, point, watch)
    except Dropped as early:
        for goal, share in early.excess.items():
            trial.set_constraint(goal, share)
        trial.set_user_attr("kind", early.kind)
        trial.set_user_attr("reason", early.reason)
        study.tell(trial, state=state.PRUNED)
        env.ui.say(f"trial {trial.number}: {early.kind}: {early.reason}")
    except _OF_THE_POINT as error:
        trial.set_user_attr("kind", "failed")
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=state.FAIL)
        env.ui.say(f"trial {trial.number} failed: {error}")
    except Exception as error:  # told to the journal first, or the point would stay "running" for ever; raised again unless it is given up
        attempt = int(trial.user_attrs.get("attempt", 1))
        blamed = not isinstance(error, EdgesegError | OSError)  # out of memory, a factory's own error: perhaps the point's doing
        gone = blamed and attempt >= MOST_ATTEMPTS
        if gone:
            reason = f"{MOST_ATTEMPTS} attempts, the last one ended by {type(error).__name__}: {error}"
            trial.set_user_attr("kind", "failed")
            trial.set_user_attr("reason", reason)
            env.ui.say(f"trial {trial.number} failed: {reason}")
        else:
            trial.set_user_attr("lost", "interrupted")
        study.tell(trial, state=state.FAIL)
        if not gone:
            study.enqueue_trial(trial.params, user_attrs={"attempt": attempt + blamed})
            raise
    except BaseException:  # Ctrl-C: nothing that the point is to blame for
        trial.set_user_attr("lost", "interrupted")
        study.tell(trial, state=state.FAIL)
        study.enqueue_trial(trial.params, user_attrs={"attempt": trial.user_attrs.get("attempt", 1)})
        raise
    else:
        for goal, share in outcome.value.excess(env.limits).items():
            trial.set_constraint(goal, share)
        trial.set_user_attr("value", asdict(outcome.value))
        trial.set_user_attr("places", list(outcome.places))
        trial.set_user_attr("seconds", round(time.monotonic() - started, 1))
        study.tell(trial, [outcome.value.miou, outcome.value.p90_ms])
        env.ui.say(f"trial {trial.number}: mIoU {outcome.value.miou:.4f}, p90 {outcome.value.p90_ms:.3g} ms")


def take(study: Any, space: Space, name: str, *, seed: int) -> tuple[Any, Point] | None:  # noqa: ANN401 - optuna's
    """Take the next point that nobody has tried; `None` = there is none. Call under the asking lock.

    Where the sampler proposes what was tried already, a point that was not is drawn in its place.
    """
    optuna = require("optuna", extra="search")
    before = study.get_trials(deepcopy=False)
    tried = {space.point_of(trial.params) for trial in before if not trial.user_attrs.get("lost") and trial.params}
    left = [point for point in space.points() if point not in tried]
    if not left:
        return None
    rng = random.Random(seed * _MULTIPLE_SEEDS + len(before))
    if not before:
        study.enqueue_trial(space.parameters(_nearest_to_plain(space)))
    # A sampler a point, seeded by how many there were: workers that begin with the same seed would all propose the same.
    study.sampler = optuna.samplers.TPESampler(seed=rng.randrange(2**31), n_startup_trials=_STARTUP, multivariate=True, constant_liar=True)
    while True:
        trial = study.ask()
        trial.set_user_attr("worker", name)
        point = space.suggest(trial)
        trial.set_user_attr("training", point.training)
        if point in left:
            return trial, point
        trial.set_user_attr("lost", "tried already")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(space.parameters(rng.choice(left)))


def _nearest_to_plain(space: Space) -> Point:
    """The point to begin with: the first network, as it comes."""
    def distance(point: Point) -> tuple[float, ...]:
        return (space.network.index(point.network), 1 - point.macs_share, abs(1 - point.scale), abs(1 - point.width),
                space.precision.index(point.precision))

    return min(space.points(), key=distance)


def bury(study: Any, folder: Path, *, say: Callable[[str], None]) -> None:  # noqa: ANN401 - optuna.Study
    """Mark the trials of workers that are gone as lost, and put their points up again. Call under the asking lock."""
    optuna = require("optuna", extra="search")
    for frozen in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        worker = frozen.user_attrs.get("worker", "")
        if worker and is_locked(folder / "workers" / f"{worker}.lock"):
            continue
        (folder / "workers" / f"{worker}.lock").unlink(missing_ok=True)
        trial = optuna.trial.Trial(study, frozen._trial_id)
        attempt = int(frozen.user_attrs.get("attempt", 1)) + (not frozen.user_attrs.get("scores"))
        if attempt > MOST_ATTEMPTS:
            trial.set_user_attr("kind", "failed")
            trial.set_user_attr("reason", f"its process died {MOST_ATTEMPTS} times")
        else:
            trial.set_user_attr("lost", "its process died")
            if frozen.params:
                study.enqueue_trial(frozen.params, user_attrs={"attempt": attempt})
            say(f"trial {frozen.number}: its process died; its point is tried again")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)


def counts(trial: Any) -> bool:  # noqa: ANN401 - optuna.trial.FrozenTrial
    """Whether a trial is part of the budget: not if its process died, nor if it only repeated another, nor while it waits."""
    return trial.state.name != "WAITING" and not trial.user_attrs.get("lost")


def rivals_of(trials: list[Any], *, but: str) -> list[Rival]:
    """The trainings of all trials except one: their scores by epoch and the latency of their fastest point."""
    scores: dict[str, dict[int, float]] = {}
    bounds: dict[str, float] = {}
    for trial in trials:
        training, bound = trial.user_attrs.get("training", ""), trial.user_attrs.get("bound_ms")
        if not training or training == but or bound is None:
            continue
        scores.setdefault(training, {}).update(_scores(trial.user_attrs))
        bounds[training] = min(bounds.get(training, bound), bound)
    return [Rival(found, bounds[training]) for training, found in scores.items() if found]


def scores_of(trials: list[Any], training: str) -> dict[int, float]:
    """Scores by epoch that a training had reached, in whichever trial."""
    found: dict[int, float] = {}
    for trial in trials:
        if trial.user_attrs.get("training") == training:
            found |= _scores(trial.user_attrs)
    return found


def _scores(attrs: Mapping[str, Any]) -> dict[int, float]:
    return {int(epoch): float(score) for epoch, score in attrs.get("scores", {}).items()}


def words(point: Point) -> str:
    """A point in a few words."""
    cut = "" if point.macs_share >= 1 else f", pruned to {point.macs_share:g} of its MACs"
    return f"{point.network}, width {point.width:g}, {point.scale:g} of the size{cut}, {point.precision}"


def main() -> None:
    """Work as one more process of a search; the request is one line of JSON on stdin."""
    from edgeseg.workflow.search.command import SearchRequest, join
    from edgeseg.workflow.ui import Silent

    raw = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        join(SearchRequest(**{**raw, "config": Path(raw["config"]), "overrides": tuple(raw["overrides"])}), ui=Silent())
    except EdgesegError as error:
        print(f"edgeseg: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
