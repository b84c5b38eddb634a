"""The chain, whole or up to one of its steps. `run` is every step in order; a single step refuses to do what comes before it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeseg.core.config import Config
from edgeseg.core.errors import ConfigError
from edgeseg.core.files import read_json
from edgeseg.core.manifest import why_not_made
from edgeseg.core.resizers import need_resizer
from edgeseg.workflow.bundle import bundling
from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.check import instance_verifying, verifying
from edgeseg.workflow.check.elsewhere import verify_there
from edgeseg.workflow.check.verifying import Verified
from edgeseg.workflow.compress.calibrating import choose_of_run
from edgeseg.workflow.compress.halving import halve_all
from edgeseg.workflow.compress.pruning import prune
from edgeseg.workflow.context import RunContext, open_run
from edgeseg.workflow.learn import learning
from edgeseg.workflow.learn.instance_reference import FloatInstances, evaluate_float_instances
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.learn.reference import FloatReference, evaluate_float
from edgeseg.workflow.learn.together import Crew, gathered, in_group, refuse_group
from edgeseg.workflow.measure import measuring
from edgeseg.workflow.parity.ladder import verify_ladder
from edgeseg.workflow.places import HERE, Place, open_places
from edgeseg.workflow.show import reporting
from edgeseg.workflow.steps import StepResult
from edgeseg.workflow.ui import Ui
from targets.boards import find_target


@dataclass(frozen=True)
class RunSummary:
    """Where the results are, and whether every goal was reached and every rung of the parity ladder held."""

    folder: Path
    passed: bool
    undecided: bool
    """Not passed, though no goal was missed and no rung fell off: a goal is not decided."""


@dataclass(frozen=True)
class StepSummary:
    """What a single step made."""

    verb: str
    folder: Path
    outputs: tuple[str, ...]
    lines: tuple[str, ...]
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Give the summary as JSON values."""
        return {"step": self.verb, "run": str(self.folder), "outputs": list(self.outputs), **self.facts}


def run(config_path: Path, overrides: tuple[str, ...], *, ladder: bool = False, ui: Ui) -> RunSummary:
    """Do every step that is not done yet, then the report; with `ladder` the parity ladder of every bundle stands in it.

    Raises:
        ConfigError, InputMissingError, DataError, ...: before anything long starts, where that can be known.
    """
    refuse_group("run", os.environ)
    with open_run(config_path, overrides, ui=ui) as ctx:
        check_plan(ctx)
        places = open_places(ctx.config.devices, ctx.config.export.formats, ui, resizer=ctx.config.data.resizer)  # before hours are spent
        if ladder and ctx.config.model.task == "instance":
            raise ConfigError(f"--ladder compares classes pixel by pixel, and {ctx.config.model.name} finds objects; leave it out")
        data = learning.prepare_data(ctx)
        if ctx.config.quantize.int8:
            choose_of_run(ctx, data)  # what it refuses is refused before the training; `quantize_all` finds it done
        trained = learning.train(ctx, data)
        final = prune(ctx, data, trained)
        float_reference = _evaluate_float(ctx, data, final)
        floats = bundling.export_all(ctx, data, final, float_reference)
        verified = [_verify(ctx, data, bundle, float_reference) for bundle in floats]
        int8 = bundling.quantize_all(ctx, data, floats, final)
        others = [*bundling.own_float(ctx, floats), *halve_all(ctx, floats), *int8]
        verified += [_verify(ctx, data, bundle, float_reference) for bundle in others]
        there = verify_there(
            ctx, [*floats, *others], places,
            lambda bundle, place, target: _verify(ctx, data, bundle, float_reference, place=place, target=target),
        )
        pruning = measuring.pruning_gain(ctx, data, trained, final)
        measured = measuring.measure_all(ctx, data, [*floats, *others], places)
        held = True
        if ladder:
            resolved = ctx.folder / "edgeseg.toml"
            made = {one.bundle.bundle.manifest.sha256 for one in verified}
            held = verify_ladder(
                ctx.folder, data=None, config=resolved, checkpoint=None, target="host", split=data.eval_split, only=made, ui=ui
            ).passed
            if not held:
                ui.say("parity ladder: a rung fell off; the report names it")
        verdict = reporting.write_report(
            ctx, data, trained=trained, final=final, reference=float_reference, verified=verified, there=there, measured=measured,
            pruning=pruning,
        )
        return RunSummary(ctx.folder, verdict.passed and held, verdict.undecided and held)


def _evaluate_float(ctx: RunContext, data: RunData, final: StepResult) -> FloatReference | FloatInstances:
    contract = learning.decide(ctx, data, final)
    if contract.task == "instance":
        return evaluate_float_instances(ctx, data, final, contract)
    return evaluate_float(ctx, data, final, contract)


def _verify(
    ctx: RunContext, data: RunData, bundle: SealedBundle, float_reference: FloatReference | FloatInstances, *, place: Place = HERE,
    target: str = "host",
) -> Verified:
    if isinstance(float_reference, FloatInstances):
        return instance_verifying.verify(ctx, data, bundle, float_reference, place=place, target=target)
    return verifying.verify(ctx, data, bundle, float_reference, place=place, target=target)


def check_plan(ctx: RunContext) -> None:
    """Refuse a network that is not there, what its task does not know, and what no target could run, before hours are spent on it."""
    check_task(ctx.config)
    need_resizer(ctx.config.data.resizer)
    learning.check_network(ctx)
    if not ctx.config.targets:
        raise ConfigError("targets = []: name at least one (edgeseg targets)")
    for format_ in ctx.config.export.formats:
        if why := why_not_made(format_, ctx.config.model.task):
            raise ConfigError(f"[export] formats: {why}")
    for target in map(find_target, ctx.config.targets):
        if not set(target.formats) & set(ctx.config.export.formats):
            formats = ", ".join(ctx.config.export.formats)
            raise ConfigError(f"{target.name} runs {', '.join(target.formats)}, and [export] formats makes {formats} only; add one it runs")
        made = {"fp32", *(["int8"] if ctx.config.quantize.int8 else []), *(["fp16"] if ctx.config.quantize.fp16 else [])}
        if not set(target.precisions) & made:
            raise ConfigError(f"{target.name} runs {', '.join(target.precisions)}, and [quantize] makes none of them; "
                              "set quantize.int8=true or quantize.fp16=true")


_NOT_FOR: Final = {"instance": ("miou", "miou_drop"), "semantic": ("ap", "ap50", "ap_drop")}
"""Goals that say nothing about a task."""


def check_task(config: Config) -> None:
    """Refuse settings that mean nothing for the network's task."""
    task, name = config.model.task, config.model.name
    for goal in _NOT_FOR[task]:
        if getattr(config.goals, goal) is not None:
            use = ", ".join(_NOT_FOR["semantic" if task == "instance" else "instance"])
            raise ConfigError(f"[goals] {goal} says nothing about {name}; use {use}")
    if task == "semantic":
        return
    if config.data.resize == "tile":
        raise ConfigError(f'[data] resize = "tile" cuts the objects of {name} apart; set data.resize=letterbox (or stretch)')
    if config.prune.wanted:
        raise ConfigError(f"[prune]: {_cannot_prune(name)}")


def _cannot_prune(name: str) -> str:
    return (f"{name} cannot be pruned: which channels belong together cannot be traced through its tables of boxes; "
            "leave [prune] out and choose a smaller encoder or width")


def step(verb: str, config_path: Path, overrides: tuple[str, ...], *, ui: Ui, resume: bool = True, restart: bool = False) -> StepSummary:
    """Do one step; what it builds on must have been done for this very configuration.

    Raises:
        InputMissingError: an earlier step is missing; says which command does it.
    """
    allowed = {"prune": {"check", "prune"}, "export": {"check", "export"}, "quantize": {"check", "quantize"}}
    refuse_group(verb, os.environ)
    with open_run(config_path, overrides, ui=ui, only=frozenset(allowed[verb]), resume=resume, restart=restart) as ctx:
        check_plan(ctx)
        if verb == "prune" and not ctx.config.prune.wanted:
            if ctx.config.model.task == "instance":
                raise ConfigError(_cannot_prune(ctx.config.model.name))
            raise ConfigError(f"[prune] macs_share = 1.0 keeps everything; type: edgeseg prune {config_path} --set prune.macs_share=0.5")
        data = learning.prepare_data(ctx)
        trained = learning.train(ctx, data)
        final = prune(ctx, data, trained)
        if verb == "prune":
            return _learned(ctx, verb, final, measuring.pruning_gain(ctx, data, trained, final))
        float_reference = _evaluate_float(ctx, data, final)
        bundles = bundling.export_all(ctx, data, final, float_reference)
        if verb == "quantize":
            bundles = [*halve_all(ctx, bundles), *bundling.quantize_all(ctx, data, bundles, final)]
        verified = [_verify(ctx, data, bundle, float_reference) for bundle in bundles]
        say = verifying if isinstance(float_reference, FloatReference) else instance_verifying
        lines = tuple(line for one in verified for line in (say.summary_line(one), *say.class_lines(one)))
        return StepSummary(
            verb, ctx.folder, tuple(str(b.bundle.folder) for b in bundles), lines, {"verified": [one.to_json() for one in verified]}
        )


def train(config_path: Path, overrides: tuple[str, ...], *, ui: Ui, resume: bool, restart: bool) -> StepSummary | None:
    """Train the network of the config, alone or as one of the processes a launcher started; `None` in those that have nothing to say.

    Raises:
        TrainingError: an unfinished training lies there, and neither `resume` nor `restart` says what to do with it.
    """
    if not in_group(os.environ):
        return _train(config_path, overrides, ui=ui, resume=resume, restart=restart)
    with gathered(config_path, overrides, os.environ) as crew:
        if crew.ranks.is_first:
            return _train(config_path, overrides, ui=ui, resume=resume, restart=restart, crew=crew)
        learning.follow(config_path, overrides, crew)
        return None


def _train(config_path: Path, overrides: tuple[str, ...], *, ui: Ui, resume: bool, restart: bool, crew: Crew | None = None) -> StepSummary:
    only = frozenset({"check", "train"})
    with open_run(config_path, overrides, ui=ui, only=only, resume=resume, restart=restart, crew=crew) as ctx:
        check_plan(ctx)
        return _learned(ctx, "train", learning.train(ctx, learning.prepare_data(ctx)))


def _learned(ctx: RunContext, verb: str, result: StepResult, gain: dict[str, Any] | None = None) -> StepSummary:
    meta = read_json(result.output / "checkpoint.json")
    history = read_json(result.output / "history.json")
    lines = [f"{result.output}: validation {history['metric']} {history['best_score']:.4f}"]
    facts: dict[str, Any] = {"metrics": meta["metrics"]}
    if gain is not None:
        cut = read_json(result.output / "prune.json")
        facts |= {"prune": cut, "latency": gain}
        lines.append(
            f"parameters {cut['params_before']:,} -> {cut['params_after']:,}, MACs {cut['macs_before']:,} -> {cut['macs_after']:,}, "
            f"{gain['format']} {gain['precision']} in {gain['runtime']} {gain['a_p50_ms']:.2f} -> {gain['b_p50_ms']:.2f} ms "
            f"(measured on {gain['measured_on']})"
        )
        lines += [measuring.method_words(cut), measuring.gain_words(gain, cut)]
    return StepSummary(verb, ctx.folder, (str(result.output),), tuple(lines), facts)
