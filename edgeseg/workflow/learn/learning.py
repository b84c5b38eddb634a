"""From labelled images to the float checkpoint: data, train, decide. With `pruning`, `reference` and `bundling` all that opens torch."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.core.config import Config, load_config
from edgeseg.core.encoders import encoder_weights_sha256
from edgeseg.core.errors import ConfigError, DataError, InputMissingError, MissingExtraError, TrainingError
from edgeseg.core.factory import factory_sha256
from edgeseg.core.files import atomic_folder, read_json, sha256_json, write_json
from edgeseg.core.images import Frame, read_frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract
from edgeseg.data.check import DataReport, check_dataset
from edgeseg.data.dataset import Dataset, load_dataset
from edgeseg.data.store import FrameStore
from edgeseg.workflow.context import RunContext, run_folder
from edgeseg.workflow.learn.teaching import learning_values, load_teacher, teacher_sha256
from edgeseg.workflow.steps import StepResult, tools, typed
from edgeseg.workflow.ui import Silent, Ui

if TYPE_CHECKING:
    from torch import nn

    from edgeseg.training.loop import FitResult, TrainProgress
    from edgeseg.training.ranks import Ranks
    from edgeseg.workflow.learn.together import Crew


@dataclass(frozen=True)
class RunData:
    """The data set of a run, checked; frames are decoded when a step asks for them."""

    dataset: Dataset
    eval_split: str
    memory_limit_mb: int
    cache_dir: Path
    ui: Ui
    opened: dict[str, FrameStore] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)

    def store(self, split: str) -> FrameStore:
        """Decoded frames of a split; in memory, or memory-mapped from the run's work folder."""
        if split not in self.opened:
            self.opened[split] = FrameStore(
                self.dataset.splits[split],
                num_classes=len(self.dataset.classes),
                memory_limit_mb=self.memory_limit_mb,
                cache_dir=self.cache_dir,
                progress=lambda done, total: self.ui.progress(f"decoding {split}", done, total),
            )
        return self.opened[split]

    def frame(self, split: str, index: int) -> Frame:
        """A frame of a split, decoded now where no store has it yet."""
        for stores in (self.opened, self.objects):
            if split in stores:
                frame: Frame = stores[split][index][0]
                return frame
        return read_frame(self.dataset.splits[split][index].image)

    def learnt_from(self, split: str, task: str) -> Any:  # noqa: ANN401 - a store of the task's own kind
        """Decoded frames of a split with what a network of `task` learns: class maps, or objects one by one."""
        if task == "semantic":
            return self.store(split)
        from edgeseg.data.instance_store import InstanceStore

        if split not in self.objects:
            self.objects[split] = InstanceStore(
                self.dataset.splits[split],
                num_classes=len(self.dataset.classes),
                memory_limit_mb=self.memory_limit_mb,
                progress=lambda done, total: self.ui.progress(f"decoding {split}", done, total),
            )
        return self.objects[split]


def check_network(ctx: RunContext) -> None:
    """Refuse names of `[model]` that nobody has before the data are read; a network that was trained has passed, and torch is not asked.

    Raises:
        ConfigError, InputMissingError, MissingExtraError: see `edgeseg.models.registry.check_names`.
    """
    if ctx.steps.key_of("train").get("model") == asdict(ctx.config.model.portable):
        return
    require("torch", extra="train")
    from edgeseg.models.registry import check_names

    check_names(ctx.config.model)


def prepare_data(ctx: RunContext) -> RunData:
    """Load and check the data; decoded frames stay in memory or in the run's work folder.

    Raises:
        DataError: the check found a problem (the first few are named; `edgeseg data check` lists them all).
        ConfigError: a split is missing that the config asks for.
    """
    section = ctx.config.data
    dataset = load_dataset(section, seed=ctx.config.train.seed)
    for split in ("train", "val", section.eval_split):
        if not dataset.splits.get(split):
            hint = '; set data.eval_split = "val" (its numbers are optimistic: val also chooses the checkpoint)' if split == "test" else ""
            raise ConfigError(f"{dataset.root} has no {split} split (it has {', '.join(dataset.splits)}){hint}")

    def make(output: Path) -> None:
        report = check_dataset(
            section, seed=ctx.config.train.seed, progress=lambda done, total: ctx.ui.progress("checking data", done, total)
        )
        if report.problems:
            raise DataError(_first_problems(report, dataset.root))
        ctx.ui.say(f"{dataset.root}: {dataset.layout} layout, {dataset.split_rule}")
        for note in report.notes:
            ctx.ui.say(f"data: {note}")
        for warning in report.warnings:
            ctx.ui.say(f"warning: {warning.file}: {warning.message}")
        write_json(output, report.to_json())

    key = {"version": 1, "dataset": dataset.sha256, "classes": list(dataset.classes), "seed": ctx.config.train.seed}
    ctx.steps.do("data-check", kind="check", key=key, output=ctx.folder / "data.json", make=make)
    return RunData(dataset, section.eval_split, section.memory_limit_mb, ctx.work, ctx.ui)


def _first_problems(report: DataReport, root: Path) -> str:
    shown = "; ".join(f"{problem.file}: {problem.message}" for problem in report.problems[:3])
    more = len(report.problems) - 3
    return f"{shown}{f'; and {more} more' if more > 0 else ''}; type: edgeseg data check {root}"


def contract_of(config: Config) -> Contract:
    """The contract every bundle of a run obeys, but for the decision (`decide`)."""
    (height, width), data, model = config.data.size, config.data, config.model
    contract = Contract(height=height, width=width, resize=data.resize, resizer=data.resizer)
    return dataclasses.replace(contract, task=model.task, max_instances=model.max_instances) if model.task == "instance" else contract


def train(ctx: RunContext, data: RunData) -> StepResult:
    """Train the network of the config; output: the checkpoint with the best validation score."""
    key = _train_key(ctx.config, data.dataset, done=ctx.steps.key_of("train"), folder=ctx.folder)

    def make(output: Path) -> None:
        net = _new_network(ctx.config, data.dataset, ctx.trainings_here if ctx.crew is None else ctx.crew.ranks.local_count)
        if ctx.crew is not None:  # before the others are called: one process says what is wrong
            from edgeseg.training.sync_norm import check_norms

            check_norms(net, ctx.crew.ranks)
        teacher = load_teacher(ctx.config.train, data.dataset.classes)
        fit_checkpoint(ctx, data, net, work=_train_work(ctx.folder, key), output=output, label="training", teacher=teacher)

    return ctx.steps.do("train", kind="train", key=key, output=ctx.folder / "checkpoints" / "trained", make=make)


def follow(config_path: Path, overrides: tuple[str, ...], crew: Crew) -> None:
    """Train with rank 0, as another of its processes; writes nothing. Returns at once where rank 0 has nothing to train."""
    plan = crew.ranks.told(None)
    if plan is None:
        return
    config = load_config(config_path, overrides)
    folder = run_folder(config_path, config)
    dataset = load_dataset(config.data, seed=config.train.seed)
    data = RunData(dataset, config.data.eval_split, config.data.memory_limit_mb, folder / "work", Silent())
    net = _new_network(config, dataset, crew.ranks.local_count)
    teacher = load_teacher(config.train, dataset.classes)
    work = _train_work(folder, _train_key(config, dataset))
    again = f"{typed('train', config_path, overrides)} --restart"
    _learn(config, data, net, work, teacher=teacher, resume=plan["resume"], ranks=crew.ranks, again=again)


def _train_key(
    config: Config, dataset: Dataset, *, done: Mapping[str, Any] | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """What a training depends on.

    `done` = the key of the one that was done: if it is this very one, its starting weights and its teacher may be gone. `folder` = the
    run's, in which no teacher may lie.
    """
    was, gone = dict(done or {}), []

    def hash_of(look: Callable[[], str | None], before: str | None) -> str | None:
        try:
            return look()
        except (InputMissingError, MissingExtraError) as error:
            gone.append(error)
            return before

    teacher = hash_of(lambda: teacher_sha256(config.train, run_folder=folder), was.get("train", {}).get("teacher"))
    key = {
        "version": 2,
        "dataset": dataset.sha256,
        "model": asdict(config.model.portable),
        "factory": factory_sha256(config.model),
        "augment": asdict(config.augment),
        "train": learning_values(config.train, teacher),
        "size": list(config.data.size),
        "resize": config.data.resize,
        **config.data.resizer_key,
        "encoder_weights": hash_of(lambda: encoder_weights_sha256(config.model), was.get("encoder_weights")),
    }
    if gone and sha256_json(key) != sha256_json(was):
        raise gone[0]
    return key


def _train_work(folder: Path, key: dict[str, Any]) -> Path:
    return folder / "work" / f"train-{sha256_json(key)[:12]}"


def _new_network(config: Config, dataset: Dataset, processes_here: int) -> Any:  # noqa: ANN401 - torch's nn.Module
    require("torch", extra="train")
    from edgeseg.models import start

    pin_torch(config.train.seed, processes_here)
    return start(config.model, len(dataset.classes), seed=config.train.seed, size_hw=config.data.size, crop_hw=config.train.crop)


def decide(ctx: RunContext, data: RunData, checkpoint: StepResult) -> Contract:
    """The contract with the decision of `[decision]`; thresholds are chosen on the val split, once a checkpoint."""
    contract, section = contract_of(ctx.config), ctx.config.decision
    if section.rule == "argmax":
        return contract
    key = {
        "version": 1,
        "checkpoint": checkpoint.sha256,
        "dataset": data.dataset.sha256,
        "contract": contract.key,
        "decision": asdict(section),
        "tools": tools("torch", "numpy", "pillow"),
    }

    def make(output: Path) -> None:
        require("torch", extra="train")
        from edgeseg.training.checkpoint import load_checkpoint
        from edgeseg.training.thresholds import choose_decision

        pin_torch(ctx.config.train.seed, ctx.trainings_here)
        net, _ = load_checkpoint(checkpoint.output)
        choice = choose_decision(
            net,
            data.store("val"),
            contract,
            num_classes=len(data.dataset.classes),
            metric=section.metric,
            on_frame=lambda done, total: ctx.ui.progress("choosing thresholds", done, total),
        )
        write_json(output, {**asdict(choice), "classes": list(data.dataset.classes)})

    step = ctx.steps.do("decision", kind="export", key=key, output=ctx.folder / "decision.json", make=make)
    chosen = read_json(step.output)
    thresholds = chosen["contract"]["thresholds"]
    ctx.ui.say(f"thresholds: validation {section.metric} {chosen['before']:.4f} with argmax, {chosen['after']:.4f} with them")
    return dataclasses.replace(
        contract,
        decision=chosen["contract"]["decision"],
        threshold=chosen["contract"]["threshold"],
        thresholds=None if thresholds is None else tuple(thresholds),
    )


def pin_torch(seed: int, processes_here: int = 1) -> None:
    """Same threads, same seed, deterministic kernels: what bit-equal resume leans on. The machine's threads are shared out."""
    import os

    import torch

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, threads // processes_here))
    torch.manual_seed(seed)


@dataclass(frozen=True)
class FineTuning:
    """What differs from the first training, and the report of a pruning, which is kept beside the checkpoint."""

    epochs: int
    lr: float
    again: str
    """What drops an interrupted one, for messages."""
    report: dict[str, Any] | None = None
    keep_start: bool = False
    """Keep the weights it starts from where none gets better on val."""


def is_unfinished(work: Path) -> bool:
    """Whether a training left something in `work` to go on from."""
    # Killed between the two renames of an atomic folder, the state is still there under its retired name; `fit` finds it.
    return (work / "last").exists() or any(work.glob(".last.*.old"))


def fit_checkpoint(
    ctx: RunContext, data: RunData, net: Any, *, work: Path, output: Path, label: str,  # noqa: ANN401 - torch's nn.Module
    tuning: FineTuning | None = None, teacher: nn.Module | None = None,
) -> None:
    """Train or fine-tune in `work`, going on where a killed process stopped, then put the best checkpoint in place."""
    unfinished = is_unfinished(work)
    goes_on = ctx.crew is not None and ctx.crew.goes_on(work)
    if unfinished and ctx.restart and not goes_on:
        shutil.rmtree(work)
        unfinished = False
    if unfinished and not ctx.resume and not goes_on:
        raise TrainingError(f"an unfinished training of this config lies in {work}; add --resume to go on, or --restart to begin again")

    def on_progress(now: TrainProgress) -> None:
        score = "" if now.score is None else f" {now.metric} {now.score:.3f}"
        best = "" if now.best_score is None else f" (best {now.best_score:.3f})"
        detail = f"epoch {now.epoch}/{now.num_epochs}  loss {now.loss:.3f}{score}{best}  {_duration(now.seconds_left)} left"
        ctx.ui.progress(label, now.step, now.num_steps, detail)
        if ctx.on_training is not None:
            ctx.on_training(now)

    task = ctx.config.model.task
    for split in ("train", "val"):  # decoded before the others are called, who find what is memory-mapped
        data.learnt_from(split, task)
    if ctx.crew is not None:
        ctx.crew.begin(work, resume=unfinished)
    try:
        result = _learn(
            ctx.config, data, net, work, resume=unfinished, tuning=tuning, teacher=teacher, say=ctx.ui.say, on_progress=on_progress,
            ranks=None if ctx.crew is None else ctx.crew.ranks, again=tuning.again if tuning else ctx.steps.again("train"),
        )
    except BaseException:
        if not is_unfinished(work):  # failed before there was anything to go on from
            shutil.rmtree(work, ignore_errors=True)
        raise
    with atomic_folder(output) as folder:
        shutil.copytree(work / "best", folder, dirs_exist_ok=True)
        write_json(
            folder / "history.json",
            {
                "metric": result.metric,
                "epochs": [asdict(epoch) for epoch in result.history],
                "precision": result.precision,
                "device": result.device,
                "processes": result.processes,
                "compile": result.compiled,
                "best_epoch": result.best_epoch,
                "best_score": result.best_score,
            },
        )
        if tuning and tuning.report is not None:
            write_json(folder / "prune.json", tuning.report)
    shutil.rmtree(work, ignore_errors=True)


def _learn(
    config: Config, data: RunData, net: Any, work: Path, *, resume: bool, ranks: Ranks | None, again: str,  # noqa: ANN401 - nn.Module
    tuning: FineTuning | None = None, teacher: nn.Module | None = None, say: Callable[[str], None] | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
) -> FitResult:
    """Call the training loop as every process of a training must call it."""
    from edgeseg.training.loop import fit
    from edgeseg.training.ranks import SINGLE

    task = config.model.task
    return fit(
        net,
        data.dataset,
        config,
        work,
        stores=(data.learnt_from("train", task), data.learnt_from("val", task)),
        contract=contract_of(config),
        resume=resume,
        epochs=tuning.epochs if tuning else None,
        lr=tuning.lr if tuning else None,
        teacher=teacher,
        keep_start=tuning is not None and tuning.keep_start,
        ranks=ranks or SINGLE,
        again=again,
        say=say,
        on_progress=on_progress,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
