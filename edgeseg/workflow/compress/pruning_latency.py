"""Pruning to a latency: what the device takes for the network as it is and for the smallest cut, and what each layer costs in between.

The sum over the cost table (`latency_table`) is not the time of a network: the decision head, resizes and sums are in no
layer. So two whole networks are measured, in turns: the unpruned one and the smallest there is. Between them a cut's share of the
latency is taken to follow the table in a straight line. What is cut is measured, and where it missed, it is cut again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.errors import ConfigError
from edgeseg.core.files import cache_root, read_json, write_json
from edgeseg.core.lazy import require
from edgeseg.workflow.compress.latency_table import LatencyTable, axes_of, cuttable_layers, measure_table
from edgeseg.workflow.compress.network_latency import NetworkTimer
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import pin_torch
from edgeseg.workflow.steps import StepResult, tools
from targets.channels import channel_step
from targets.machine import describe_machine

if TYPE_CHECKING:
    from torch import nn

    from edgeseg.pruning import Pruner, PruneReport

_TRIES: Final = 5
"""Cuts that are measured at most, the last cut of a run; each takes seconds, its fine-tuning minutes to hours."""
_SLACK: Final = 0.05
"""A cut that is faster than asked by more than this share could have kept more."""


@dataclass(frozen=True)
class LatencyGoal:
    """What was measured before the first cut, and how far to cut."""

    sha256: str
    facts: Mapping[str, Any]
    share: float
    """Of the unpruned network's latency, to keep."""
    timer: NetworkTimer
    table: LatencyTable

    @property
    def channel_step(self) -> int:
        """Channels whose multiples the runtime's kernels like."""
        return int(self.facts["channel_step"])

    def predicted(self, table_ms: float) -> float:
        """Share of the unpruned network's latency that a network takes whose layers sum up to `table_ms`."""
        facts = self.facts
        span = facts["table_whole_ms"] - facts["table_least_ms"]
        return float(facts["least_share"] + (1 - facts["least_share"]) * (table_ms - facts["table_least_ms"]) / span)

    def budget_ms(self, share: float) -> float:
        """The inverse of `predicted`."""
        facts = self.facts
        span = facts["table_whole_ms"] - facts["table_least_ms"]
        return float(facts["table_least_ms"] + (share - facts["least_share"]) / (1 - facts["least_share"]) * span)


def latency_goal(ctx: RunContext, timer: NetworkTimer, trained: StepResult) -> LatencyGoal:
    """Measure what pruning to a latency stands on, once for a network, a runtime and a machine.

    Raises:
        ConfigError: the smallest network is not as fast as asked; says what it takes.
    """
    config, section = ctx.config, ctx.config.prune
    step_of_kernels = channel_step(timer.how.runtime, describe_machine().arch)
    round_to = section.round_to or step_of_kernels
    scored_by = "bn_scale" if section.importance == "bn_scale" else "magnitude"  # which groups can be cut at all
    key = {
        "version": 2, "checkpoint": trained.sha256, "precision": timer.precision, "format": timer.format, "round_to": round_to,
        "channel_step": step_of_kernels, "cuttable_by": scored_by, "size": list(config.data.size),
        "tools": tools("torch", "torch-pruning"), **timer.place, **config.data.resizer_key,
    }

    def make(output: Path) -> None:
        write_json(output, _measure(ctx, timer, trained, round_to=round_to, step=step_of_kernels, scored_by=scored_by))

    step = ctx.steps.do("prune-latency", kind="prune", key=key, output=ctx.folder / "bench" / "prune-latency.json", make=make)
    facts = read_json(step.output)
    share = section.latency_share if section.p90_ms == 0 else section.p90_ms / facts["whole_p90_ms"]
    _refuse_the_impossible(ctx, facts, share, timer)
    return LatencyGoal(step.sha256, facts, min(1.0, share), timer, _table(trained, config.data.size, facts))


def _refuse_the_impossible(ctx: RunContext, facts: Mapping[str, Any], share: float, timer: NetworkTimer) -> None:
    least = facts["least_share"]
    if share > least:
        return
    section, whole = ctx.config.prune, facts["whole_p90_ms"]
    asked = f"p90_ms = {section.p90_ms:g}" if section.p90_ms else f"latency_share = {section.latency_share:g}"
    possible = f"p90_ms = {_round_up(least * whole)}" if section.p90_ms else f"latency_share = {_round_up(least)}"
    raise ConfigError(
        f"[prune] {asked}: unpruned the network takes {whole:.2f} ms in {timer.words} here, and cut to the least it still takes "
        f"{least * whole:.2f}; set at least {possible}, or a smaller [data] size"
    )


def _round_up(value: float) -> float:
    """Two digits, upwards, and a little more, since the next measurement will differ."""
    return int(value * 1.03 * 100 + 1) / 100


def _measure(ctx: RunContext, timer: NetworkTimer, trained: StepResult, *, round_to: int, step: int, scored_by: str) -> dict[str, Any]:
    require("torch_pruning", extra="train")
    from edgeseg.pruning import Pruner
    from edgeseg.training.checkpoint import load_checkpoint

    pin_torch(ctx.config.train.seed, ctx.trainings_here)
    net, _ = load_checkpoint(trained.output)
    pruner = Pruner(net, ctx.config.data.size, importance=scored_by, round_to=round_to)
    least_net, _ = pruner.cut_to_least()
    whole, least = timer.bundle("whole", net), timer.bundle("least", least_net)
    alone, least_share = timer.latency(whole), timer.share(whole, least)
    table = measure_table(
        pruner.graph.shapes, _cuttable(pruner), step=step, format=timer.format, precision=timer.precision, how=timer.how,
        place=timer.place, cache=cache_root(os.environ), progress=ctx.ui.progress,
    )
    kept = pruner.smallest()
    return {
        "target": timer.target.name, "runtime": timer.how.runtime, "runtime_version": timer.place["runtime_version"],
        "format": timer.format, "precision": timer.precision, "num_threads": timer.how.options.num_threads,
        "measured_on": alone.measured_on.words, "is_target": alone.measured_on.is_target,
        "whole_p50_ms": alone.inference.p50_ms, "whole_p90_ms": alone.inference.p90_ms, "least_share": least_share,
        "channel_step": step, "round_to": round_to, "table_whole_ms": pruner.full(table),
        "table_least_ms": sum(table(name, shape) for name, shape in pruner.graph.shapes_with(kept).items()),
        "cuttable": {name: list(sides) for name, sides in _cuttable(pruner).items()}, "layers_ms": dict(table.ms),
    }


def _cuttable(pruner: Pruner) -> dict[str, tuple[bool, bool]]:
    return cuttable_layers([
        (touch.layer, touch.ins > 0, touch.outs > 0) for group in pruner.graph.groups.values() for touch in group.touches
    ])


def _table(trained: StepResult, size: tuple[int, int], facts: Mapping[str, Any]) -> LatencyTable:
    """The table as it was measured, for the layers of the unpruned network."""
    from edgeseg.pruning import layer_shapes
    from edgeseg.training.checkpoint import load_checkpoint

    shapes = layer_shapes(load_checkpoint(trained.output)[0], size)
    cuttable = {name: (bool(sides[0]), bool(sides[1])) for name, sides in facts["cuttable"].items()}
    return LatencyTable(axes_of(shapes, cuttable, facts["channel_step"]), facts["layers_ms"])


@dataclass(frozen=True)
class _Try:
    """A cut and its shares of the unpruned network's latency."""

    predicted: float
    measured: float
    net: nn.Module
    report: PruneReport


def cut_to(
    ctx: RunContext, goal: LatencyGoal, pruner: Pruner, share: float, *, whole: nn.Module, scope: str, last: bool
) -> tuple[nn.Module, PruneReport, dict[str, Any]]:
    """Cut to `share` of the latency of `whole` and measure; where the `last` cut missed it, cut more or less of the same network.

    Gives the cut that keeps the most of those that are fast enough, and what was predicted and measured. Where none is fast enough it
    gives the fastest, with `reached` false in its facts, and says so of the `last` cut.
    """
    aim, found = share, list[_Try]()
    whole_bundle = goal.timer.bundle("whole", whole)
    for number in range(1, _TRIES + 1 if last else 2):
        net, report = pruner.cut(goal.table, max(goal.budget_ms(aim), pruner.least(goal.table)), scope=scope)
        if any(report.channels == one.report.channels for one in found):  # channels go in steps, and there is none in between
            break
        predicted = goal.predicted(pruner.cost_of(net, goal.table))
        measured = goal.timer.share(whole_bundle, goal.timer.bundle(f"cut-{share:.4f}-{number}", net))
        ctx.ui.say(f"cut {number}: {measured:.1%} of the unpruned network's latency ({predicted:.1%} predicted, {share:.1%} asked for)")
        found.append(_Try(predicted, measured, net, report))
        if share * (1 - _SLACK) <= measured <= share:
            break
        aim = min(1.0, share * predicted / measured) if measured < share else min(aim, predicted) * share / measured
    fast = [one for one in found if one.measured <= share]
    chosen = max(fast, key=lambda one: one.measured) if fast else min(found, key=lambda one: one.measured)
    facts = _latency_facts(goal, share, found, chosen)
    if last and not facts["reached"]:
        ctx.ui.say(missed_words(facts))
    return chosen.net, chosen.report, {"latency": facts}


def _latency_facts(goal: LatencyGoal, share: float, found: list[_Try], chosen: _Try) -> dict[str, Any]:
    whole_p90_ms = goal.facts["whole_p90_ms"]
    places = ("runtime", "runtime_version", "format", "precision", "target", "measured_on", "least_share")
    return {
        "asked_share": share, "predicted_share": chosen.predicted, "measured_share": chosen.measured,
        "first_predicted_share": found[0].predicted, "first_measured_share": found[0].measured, "cuts_measured": len(found),
        "whole_p90_ms": whole_p90_ms, "predicted_p90_ms": whole_p90_ms * chosen.predicted,
        "estimated_p90_ms": whole_p90_ms * chosen.measured, "reached": chosen.measured <= share,
        **{key: goal.facts[key] for key in places},
    }


def missed_words(facts: Mapping[str, Any]) -> str:
    """Say by how much the cut that is kept misses the latency asked for; empty where it does not."""
    if facts["reached"]:
        return ""
    asked_ms = facts["whole_p90_ms"] * facts["asked_share"]
    return (
        f"The cut misses the latency asked for by {100 * (facts['measured_share'] - facts['asked_share']):.1f} points: "
        f"{facts['measured_share']:.1%} of the unpruned network's instead of {facts['asked_share']:.1%}, a p90 of about "
        f"{facts['estimated_p90_ms']:.2f} ms instead of {asked_ms:.2f}. None of {facts['cuts_measured']} measured was faster."
    )
