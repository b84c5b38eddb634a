"""From the trained checkpoint to the pruned one: cut, fine-tune, and again, `[prune] steps` times; each part is a step of the run.

How far to cut is a share of the MACs, or of a latency that is measured (`edgeseg.workflow.compress.pruning_latency`).
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.config import PruneSection
from edgeseg.core.files import atomic_folder, read_json, sha256_json, write_json
from edgeseg.core.lazy import require
from edgeseg.workflow.compress.network_latency import NetworkTimer, precision_of
from edgeseg.workflow.compress.pruning_latency import LatencyGoal, cut_to, latency_goal
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import FineTuning, RunData, contract_of, fit_checkpoint, pin_torch
from edgeseg.workflow.learn.teaching import learning_values
from edgeseg.workflow.steps import StepResult, tools

if TYPE_CHECKING:
    from edgeseg.pruning import Losses

ROUND_TO: Final = 8
"""Channel counts are multiples of this where nothing better is known."""
TAYLOR_BATCHES: Final = 24
"""Training batches whose gradients are taken."""


@dataclass(frozen=True)
class Plan:
    """How a run prunes, nothing left open."""

    importance: str
    scope: str
    round_to: int
    goal: float
    """Share to keep in the end, of MACs or of latency."""
    latency: LatencyGoal | None

    def share(self, number: int, steps: int) -> float:
        """Share to keep after cut `number` (from 1): every cut takes the same part of what is left."""
        return float(self.goal ** (number / steps))

    def key(self) -> dict[str, Any]:
        """What a cut depends on besides the network."""
        values = {"importance": self.importance, "scope": self.scope, "round_to": self.round_to, "goal": self.goal}
        return values | ({"latency": self.latency.sha256, "latency_facts": 2} if self.latency else {})


def prune(ctx: RunContext, data: RunData, trained: StepResult) -> StepResult:
    """Cut channels as `[prune]` says and fine-tune; without pruning, the trained checkpoint itself.

    Raises:
        ConfigError: the share or the latency asked for is less than what the smallest network needs; says what that is.
    """
    section = ctx.config.prune
    if not section.wanted:
        return trained
    with ExitStack() as opened:
        plan = plan_of(ctx, data, trained, opened)
        if plan.goal >= 1:
            ctx.ui.say("not pruned: the network is as fast as [prune] asks already")
            return trained
        current = trained
        for number in range(1, section.steps + 1):
            cut = _cut(ctx, data, trained, current, plan, number)
            current = _fine_tune(ctx, data, trained, cut, number)
        return current


def plan_of(ctx: RunContext, data: RunData, trained: StepResult, opened: ExitStack) -> Plan:
    """Resolve what `[prune]` leaves open; a latency goal is measured first, and what measures it lasts as long as `opened`."""
    section = ctx.config.prune
    latency = None
    if section.to_latency:
        timer = opened.enter_context(NetworkTimer(ctx, data, precision_of(ctx.config)))
        latency = latency_goal(ctx, timer, trained)
    automatic = ("taylor", "global", latency.channel_step) if latency else ("magnitude", "per_layer", ROUND_TO)
    return Plan(
        importance=automatic[0] if section.importance == "auto" else section.importance,
        scope=automatic[1] if section.scope == "auto" else section.scope,
        round_to=section.round_to or automatic[2],
        goal=latency.share if latency else section.macs_share,
        latency=latency,
    )


def epochs_of(section: PruneSection, number: int) -> int:
    """Epochs of fine-tuning after cut `number` (from 1): half of all after the last one, the rest shared by those before."""
    before = section.epochs // (2 * (section.steps - 1)) if section.steps > 1 else 0
    return before if number < section.steps else section.epochs - before * (section.steps - 1)


def _cut(ctx: RunContext, data: RunData, trained: StepResult, current: StepResult, plan: Plan, number: int) -> StepResult:
    """One cut of the checkpoint `current`; output: a checkpoint that was not trained since, with `cut.json` beside it."""
    config, steps = ctx.config, ctx.config.prune.steps
    share = plan.share(number, steps)
    key = {
        "version": 2, "trained": trained.sha256, "checkpoint": current.sha256, "share": share, "plan": plan.key(),
        "size": list(config.data.size), "dataset": data.dataset.sha256, "tools": tools("torch", "torch-pruning"),
    }
    if plan.importance == "taylor":
        key |= {"batches": TAYLOR_BATCHES, "augment": asdict(config.augment), "train": learning_values(config.train)}

    def make(output: Path) -> None:
        require("torch_pruning", extra="train")
        from edgeseg.pruning import Pruner, check_macs_share, cut_to_macs, report
        from edgeseg.training.checkpoint import load_checkpoint, open_checkpoint, save_checkpoint

        pin_torch(config.train.seed, ctx.trainings_here)
        whole, _ = load_checkpoint(trained.output)
        net, _ = load_checkpoint(current.output)
        ctx.ui.say(f"scoring channels by {plan.importance}")
        pruner = Pruner(net, config.data.size, importance=plan.importance, round_to=plan.round_to, losses=_losses(ctx, data, plan))
        if plan.latency is None:
            check_macs_share(pruner, plan.goal, whole)
            pruned, found = cut_to_macs(pruner, share, whole, scope=plan.scope)
            facts: dict[str, Any] = {}
        else:
            pruned, found, facts = cut_to(ctx, plan.latency, pruner, share, whole=whole, scope=plan.scope, last=number == steps)
        found = report(whole, pruned, found.ratio, config.data.size, importance=plan.importance, scope=plan.scope)
        ctx.ui.say(
            f"pruned: {found.params_before:,} -> {found.params_after:,} parameters, "
            f"{found.macs_before / 1e9:.3f} -> {found.macs_after / 1e9:.3f} GMAC"
        )
        with atomic_folder(output) as folder:
            meta = dataclasses.replace(open_checkpoint(trained.output).meta, metrics={})
            save_checkpoint(folder / "checkpoint", pruned, meta)
            write_json(folder / "cut.json", {**asdict(found), "round_to": plan.round_to, "cut": number, "cuts": steps, **facts})

    name = "prune-cut" if number == steps else f"prune-cut-{number}"
    return ctx.steps.do(name, kind="prune", key=key, output=ctx.folder / "checkpoints" / name.removeprefix("prune-"), make=make)


def _losses(ctx: RunContext, data: RunData, plan: Plan) -> Losses | None:
    """What `taylor` asks for: losses of training batches."""
    if plan.importance != "taylor":
        return None
    from edgeseg.training.gradients import batch_losses

    task = ctx.config.model.task
    stores = (data.learnt_from("train", task), data.learnt_from("val", task))
    return batch_losses(data.dataset, ctx.config, stores=stores, contract=contract_of(ctx.config), num_batches=TAYLOR_BATCHES)


def _fine_tune(ctx: RunContext, data: RunData, trained: StepResult, cut: StepResult, number: int) -> StepResult:
    """Train a cut network, with the unpruned one as teacher; output: the checkpoint with the best validation score."""
    config, section = ctx.config, ctx.config.prune
    taught, epochs = section.teacher and config.model.task == "semantic", epochs_of(section, number)
    key = {
        "version": 2, "cut": cut.sha256, "epochs": epochs, "lr": section.lr, "dataset": data.dataset.sha256,
        "augment": asdict(config.augment), "train": learning_values(config.train, trained.sha256 if taught else None),
    }

    def make(output: Path) -> None:
        require("torch", extra="train")
        from edgeseg.training.checkpoint import load_checkpoint

        pin_torch(config.train.seed, ctx.trainings_here)
        net, _ = load_checkpoint(cut.output / "checkpoint")
        teacher = load_checkpoint(trained.output)[0] if taught else None
        work = ctx.work / f"prune-{sha256_json(key)[:12]}"
        tuning = FineTuning(epochs=epochs, lr=section.lr, report=read_json(cut.output / "cut.json"), again=ctx.steps.again("prune"))
        label = "fine-tuning" if section.steps == 1 else f"fine-tuning {number}/{section.steps}"
        fit_checkpoint(ctx, data, net, work=work, output=output, label=label, tuning=tuning, teacher=teacher)

    name = "prune" if number == section.steps else f"prune-{number}"
    output = ctx.folder / "checkpoints" / ("pruned" if number == section.steps else f"pruned-{number}")
    return ctx.steps.do(name, kind="prune", key=key, output=output, make=make)
