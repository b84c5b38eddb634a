"""The verb: open a search or go on with it, work alone or with other processes, and say what came of it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgeseg import __version__
from edgeseg.core.config import Config, load_config
from edgeseg.core.errors import BusyError, ConfigError
from edgeseg.core.files import is_locked, patient_lock, sweep_temporaries
from edgeseg.core.lazy import require
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.context import RunContext, run_folder
from edgeseg.workflow.learn import learning
from edgeseg.workflow.learn.learning import contract_of
from edgeseg.workflow.measure.measuring import frame_files
from edgeseg.workflow.search.front import Limits
from edgeseg.workflow.search.journal import open_study
from edgeseg.workflow.search.results import best_path, check_best, conclude
from edgeseg.workflow.search.space import Space, model_of, size_of, space_of
from edgeseg.workflow.search.speed import Place, Stopwatch, places_of, smallest, tools_of, untrained
from edgeseg.workflow.search.trial import Environment
from edgeseg.workflow.search.worker import Budget, alive, work
from edgeseg.workflow.steps import Steps, typed
from edgeseg.workflow.ui import Ui

_BUSY_LOAD: Final = 0.5
"""Other processes a core above which the baseline was not measured on an idle machine."""
_GOALS: Final = ("miou", "p90_ms", "fps", "size_mb")
"""Goals that steer the search; the others are judged by the run that follows."""


@dataclass(frozen=True)
class SearchRequest:
    """What was asked for; `None` = as `[search]` says, or without end."""

    config: Path
    overrides: tuple[str, ...] = ()
    trials: int | None = None
    workers: int = 1
    timeout_s: float | None = None
    restart: bool = False


@dataclass(frozen=True)
class _Open:
    env: Environment
    study: Any
    space: Space
    name: str
    budget: Budget


def search(request: SearchRequest, *, ui: Ui) -> Outcome:
    """Search until the budget is spent, with `workers` processes; write the front, the page and the chosen configuration.

    Raises:
        ConfigError: the space or a goal makes no sense, or a goal is below what this machine can do for an empty network.
        TrainingError: the journal is damaged, or of another search.
        TargetError: this machine can measure none of the targets.
        MissingExtraError: Optuna is not installed.
    """
    with _opened(request, ui) as opened, _helpers(request, opened.env.folder) as helpers:
        ended = work(opened.env, opened.study, opened.space, opened.name, opened.budget)
        running = [helper for helper in helpers if helper.poll() is None]
        if running:
            ui.say(f"{ended}; waiting for {len(running)} other worker{'' if len(running) == 1 else 's'} to end")
        for number, helper in enumerate(helpers, start=1):
            if helper.wait() != 0:
                ui.say(f"worker {number} ended with exit code {helper.returncode}; what it said is in {_log(opened.env.folder, number)}")
        with patient_lock(opened.env.folder / "setup.lock", holder="edgeseg search"):
            return conclude(opened.env, opened.study, opened.space, best_path(request.config), ended)


def join(request: SearchRequest, *, ui: Ui) -> None:
    """Work on a search as one more process; another one concludes it. See `search` for what is raised."""
    with _opened(request, ui) as opened:
        work(opened.env, opened.study, opened.space, opened.name, opened.budget)


@contextmanager
def _opened(request: SearchRequest, ui: Ui) -> Iterator[_Open]:
    started = time.monotonic()
    require("optuna", extra="search")
    config = load_config(request.config, request.overrides)
    if not config.data.dir:
        raise ConfigError("[data] dir is not set; type: edgeseg init --data DIR")
    space = space_of(config)
    check_best(best_path(request.config))
    folder = run_folder(request.config, config) / "search"
    budget = Budget(
        trials=request.trials or config.search.trials,
        deadline=float("inf") if request.timeout_s is None else started + request.timeout_s,
    )
    with ExitStack() as living:
        with patient_lock(folder / "setup.lock", holder="edgeseg search", on_wait=lambda who: ui.say(f"waiting: {who} sets the search up")):
            if request.restart:
                _restart(folder)
            env = _environment(config, space, folder, request.workers, ui)
            name = living.enter_context(alive(folder))  # before the next process may look who lives
            again = f"{typed('search', request.config, request.overrides)} --restart"
            study = open_study(folder / "journal.log", _identity(env), say=ui.say, again=again)
        yield _Open(env, study, space, name, budget)


def _restart(folder: Path) -> None:
    living = _living(folder)
    if living:
        raise BusyError(f"{folder} is in use by {living} worker{'' if living == 1 else 's'}; end them before --restart")
    (folder / "journal.log").unlink(missing_ok=True)


def _living(folder: Path) -> int:
    return sum(is_locked(path) for path in (folder / "workers").glob("*.lock"))


def _environment(config: Config, space: Space, folder: Path, workers: int, ui: Ui) -> Environment:
    """Check and decode the data, measure the baselines, refuse goals that nothing could meet; all of it cached."""
    if not _living(folder):
        for part in ("", "work", "baseline", "bench", ".steps"):
            sweep_temporaries(folder / part)
    _check_networks(config, space)
    steps = Steps(folder, ui)
    on_val = replace(config, data=replace(config.data, eval_split="val"))
    data = learning.prepare_data(RunContext(on_val, folder, steps, ui))
    data = replace(data, memory_limit_mb=0)  # decoded once, into a file that all workers map
    for split in ("train", "val"):
        data.store(split)
    places = places_of(config, say=ui.say)
    stopwatch = Stopwatch(folder, steps, frame_files(data), ui)
    env = Environment(config, folder, data, places, stopwatch, Limits.of(config.goals), workers, ui)
    for place in places:
        _baseline(env, place)
        if env.limits.p90_ms is not None or env.limits.size_bytes is not None:
            _check_floor(env, place, min(space.scale))
    return env


def _check_networks(config: Config, space: Space) -> None:
    """Refuse a network or encoder that does not exist before the first trial, not in each of its trials."""
    require("torch", extra="train")
    from edgeseg.models.registry import find_model

    for network in space.network:
        section = model_of(config.model, network, 1.0)
        if section.factory:
            continue
        encoders = find_model(section.name).encoders
        if section.encoder and section.encoder not in encoders:
            raise ConfigError(f"[search] networks: {network}: {section.name} takes {', '.join(encoders) or 'no encoder'}")


def _baseline(env: Environment, place: Place) -> None:
    """The configured network itself, untrained: of the kind and the size of what it is compared with."""
    config = env.config
    key = {"model": asdict(config.model.portable), "size": list(config.data.size), "classes": len(env.data.dataset.classes),
           "tools": tools_of(place.format, "fp32"), **config.data.resizer_key}
    idle = env.stopwatch.idle(place, lambda target: untrained(config, env.data, place.format, "fp32", target), key)
    if idle["load"] > _BUSY_LOAD:
        env.ui.say(f"warning: the machine was busy when the baseline was measured ({idle['load']:.1f} other processes a core): latencies "
                   "may be too high by as much as it was slowed down, their order is right; to measure it again, remove "
                   f"{env.folder / 'baseline'} and add --restart")


def _check_floor(env: Environment, place: Place, scale: float) -> None:
    """Refuse a goal that even the smallest network misses."""
    sized = replace(env.config, data=replace(env.config.data, size=size_of(env.config, scale)))
    contract, limits = contract_of(sized), env.limits
    num_scores = 1 if env.config.model.one_score else len(env.data.dataset.classes)
    key = {"contract": contract.key, "scores": num_scores, "tools": tools_of(place.format, "fp32")}
    floor = env.stopwatch.measure(env.stopwatch.steps, "smallest", key, place,
                                  lambda work: smallest(contract, env.data, num_scores, place.format, work / "bundle"))
    what = f"a network of one convolution at {contract.height}x{contract.width} in {place.how.runtime}"
    if limits.p90_ms is not None and limits.p90_ms < floor.low_ms:
        goal = "p90_ms" if env.config.goals.p90_ms == limits.p90_ms else "fps"
        raise ConfigError(f"[goals] {goal} = {getattr(env.config.goals, goal):g} asks for {limits.p90_ms:.3g} ms: here even {what} takes "
                          f"{floor.p90_ms:.3g} ms; ask for more, or add a smaller share to [search] scales")
    if limits.size_bytes is not None and limits.size_bytes < floor.size_bytes:
        raise ConfigError(f"[goals] size_mb = {env.config.goals.size_mb:g}: even {what} has {floor.size_bytes / 1e6:.3g} MB; ask for more")


def _identity(env: Environment) -> dict[str, Any]:
    """What the trials of one search must have in common, as flat JSON values."""
    config = env.config
    dropped = {"search": ("trials",), "train": ("epochs", "eval_every", "teacher"), "prune": ("macs_share", "epochs"), "data": (
        "dir", "eval_split", "memory_limit_mb", "layout", "resizer"), "goals": tuple(f.name for f in dataclasses.fields(config.goals)
                                                                         if f.name not in _GOALS)}
    flat: dict[str, Any] = {"data set": env.data.dataset.sha256[:16], "edgeseg": __version__, "mIoU judged by": "lower end"}
    for section in ("search", "data", "augment", "train", "prune", "decision", "quantize", "goals"):
        values: Mapping[str, Any] = asdict(getattr(config, section))
        flat |= {f"{section}.{key}": value for key, value in values.items() if key not in dropped.get(section, ())}
    flat |= {f"data.{key}": value for key, value in config.data.resizer_key.items()}
    flat["train.teacher"] = Path(config.train.teacher).name
    flat |= {f"model.{key}": value for key, value in asdict(config.model.portable).items()}
    for place in env.places:
        facts = place.facts()
        flat[f"measured for {', '.join(place.targets)}"] = (
            f"{place.format} in {facts['runtime']} {facts['runtime_version']}, {place.how.options.num_threads} threads, on "
            f"{facts['machine']} ({facts['cores']} cores)"
        )
    plain: dict[str, Any] = json.loads(json.dumps(flat))
    return plain


@contextmanager
def _helpers(request: SearchRequest, folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Start the other workers; they end when this process does."""
    helpers: list[subprocess.Popen[str]] = []
    line = json.dumps({**asdict(request), "config": str(request.config.resolve()), "overrides": list(request.overrides), "restart": False})
    try:
        for number in range(1, request.workers):
            with _log(folder, number).open("w", encoding="utf-8") as stderr:
                helper = subprocess.Popen(
                    [sys.executable, "-m", "edgeseg.workflow.search.worker"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                    stderr=stderr, text=True, encoding="utf-8",
                )
            helpers.append(helper)
            assert helper.stdin is not None
            helper.stdin.write(f"{line}\n")
            helper.stdin.flush()  # and kept open: the worker ends when this process does
        yield helpers
    finally:
        for helper in helpers:
            helper.kill()
            helper.wait()
            if helper.stdin is not None:
                helper.stdin.close()


def _log(folder: Path, number: int) -> Path:
    return folder / "workers" / f"{number}.log"
