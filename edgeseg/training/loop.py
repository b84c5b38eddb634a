"""The training loop. Same configuration, data and processes give the same bits on a CPU, interrupted or not.

It counts epochs, keeps the best weights and writes what is needed to go on; what a batch, a loss and a score are is the task's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeseg.core.config import DISTILLING, Config
from edgeseg.core.errors import ConfigError
from edgeseg.core.files import sha256_json, sweep_temporaries
from edgeseg.core.manifest import Contract
from edgeseg.core.resizers import need_resizer
from edgeseg.data.dataset import Dataset
from edgeseg.training.checkpoint import Checkpoint, CheckpointMeta, open_checkpoint, save_checkpoint
from edgeseg.training.device import pick_device, pick_precision
from edgeseg.training.distill import check_teacher, frozen
from edgeseg.training.fast_cpu import keep_strided_depthwise_in_fp32
from edgeseg.training.ranks import SINGLE, Ranks
from edgeseg.training.schedule import Schedule
from edgeseg.training.state import EpochRecord, Progress, load_state, recover, save_state
from edgeseg.training.step import Stepper
from edgeseg.training.task import TaskContext
from edgeseg.training.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """Where training is, after a step or after a validation."""

    epoch: int
    """From 1; the epoch being trained."""
    num_epochs: int
    step: int
    """Steps done, over all epochs."""
    num_steps: int
    loss: float
    metric: str
    """Name of the score, for instance `mIoU`; empty before the first validation."""
    score: float | None
    """Of the last validation, 0..1; `None` before the first."""
    scored_epoch: int
    """The epoch after which that was taken; 0 before the first."""
    best_score: float | None
    lr: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What training left behind."""

    best: Checkpoint
    best_epoch: int
    """0 = the weights it started from."""
    best_score: float
    metric: str
    """Name of the score."""
    history: tuple[EpochRecord, ...]
    precision: str
    device: str
    processes: int
    compiled: str
    """Whether steps were compiled, and why."""


def fit(
    net: nn.Module,
    data: Dataset,
    config: Config,
    out: Path,
    *,
    stores: tuple[Any, Any],
    contract: Contract | None = None,
    resume: bool = False,
    epochs: int | None = None,
    lr: float | None = None,
    teacher: nn.Module | None = None,
    keep_start: bool = False,
    ranks: Ranks = SINGLE,
    again: str = "edgeseg train --restart",
    say: Callable[[str], None] | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FitResult:
    """Train `net` (a copy; the one given is untouched) and keep the weights with the best validation score in `out/best`.

    `stores` = (train, val). Validated and kept are the averaged weights (EMA) where `[train] ema` > 0. `out/last` holds the state for
    `resume`, written after every epoch; where there is none yet, `resume` starts from the beginning, and without `resume` both folders
    are removed first. `epochs` and `lr` replace those of `[train]` (fine-tuning); with 0 epochs the weights given are validated and kept,
    with `keep_start` they are validated first, and kept where none gets better.
    With a `teacher` (semantic networks; untouched too) its scores are learnt from beside the labels, by `[train] distiller`.
    `contract` is what is validated and recorded; by default argmax at `[data] size`. `again` is the command that messages name to begin
    again; `say` takes what a trial of `[train] compile` found. The caller holds the run's lock and sets torch's threads, which the bits of
    the result depend on.

    With several `ranks` (joined by the caller), each calls this with the same arguments; all can read `out`, only the first writes there.

    Raises:
        TrainingError: a loss or gradient that is not finite (names the frames), `resume` of another configuration (says what differs), or
            another process that is gone.
        ConfigError: the device asked for is not there, the batch cannot be split over the processes, or a teacher of other classes or
            for a network of objects.
    """
    check_split(config.train.batch_size, ranks.count)
    schedule = Schedule.of(config.train, epochs=epochs, lr=lr)
    need_resizer(config.data.resizer)
    if contract is None:
        (height, width), data_section = config.data.size, config.data
        contract = Contract(height=height, width=width, resize=data_section.resize, resizer=data_section.resizer)
    device = pick_device(config.train, local_count=ranks.local_count)
    context = TaskContext(
        data=data, config=config, stores=stores, contract=contract, device=device, ranks=ranks,
        precision=pick_precision(config.train, device), teacher=None if teacher is None else frozen(teacher, device),
    )
    _check_teacher(context)
    run = _Run(net, context, out, schedule, on_progress, clock)
    if say is not None and device.type == "cuda" and config.train.compile == "auto":
        say(f"torch.compile {run.stepper.compiled}")
    ranks.must_agree("config, data set or torch", sha256_json(run.identity))
    last, best = out / "last", out / "best"
    if ranks.is_first:
        if resume:
            recover(last)
        else:
            for folder in (last, best):
                shutil.rmtree(folder, ignore_errors=True)
    ranks.wait()
    progress = load_state(last, identity=run.identity, again=again, **run.stepper.state) if resume else None
    if ranks.is_first:
        out.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(out)
    run.progress = progress or Progress()
    ranks.wait()  # all have read
    if schedule.epochs == 0 or (keep_start and progress is None):
        run.validate(epoch=0)
    while run.progress.epochs_done < schedule.epochs:
        run.train_epoch(run.progress.epochs_done)
        epoch = run.progress.epochs_done
        if epoch % config.train.eval_every == 0 or epoch == schedule.epochs:
            run.validate(epoch=epoch)
        # `best` is written before `last`: killed in between, the epoch is done again and finds the same best.
        if ranks.is_first:
            save_state(last, identity=run.identity, progress=run.progress, **run.stepper.state)
    ranks.wait()  # the first has written
    return FitResult(
        best=open_checkpoint(best), best_epoch=run.progress.best_epoch, best_score=run.progress.best_score, metric=run.progress.metric,
        history=tuple(run.progress.history), precision=context.precision, device=str(device), processes=ranks.count,
        compiled=run.stepper.compiled,
    )


def check_split(batch_size: int, processes: int) -> None:
    """Check that a batch can be dealt out evenly: unequal slices would not weigh the same in a mean.

    Raises:
        ConfigError: it cannot; names sizes that can.
    """
    if batch_size % processes:
        below = batch_size // processes * processes
        near = f"{below} or {below + processes}" if below else str(processes)
        raise ConfigError(f"[train] batch_size = {batch_size} cannot be split evenly over {processes} processes; "
                          f"set it to a multiple, for instance {near}")


def _check_teacher(context: TaskContext) -> None:
    if context.teacher is None:
        return
    model = context.config.model
    if model.task != "semantic":
        raise ConfigError(f"a teacher is for networks that give a class a pixel; {model.title} finds objects; leave it out")
    check_teacher(context.teacher, num_classes=len(context.data.classes), crop_hw=context.crop_hw, device=context.device)
    if context.device.type == "cpu" and context.precision == "bf16":
        keep_strided_depthwise_in_fp32(context.teacher)


class _Run:
    """Everything one call of `fit` works with."""

    def __init__(self, net: nn.Module, context: TaskContext, out: Path, schedule: Schedule,
                 on_progress: Callable[[TrainProgress], None] | None, clock: Callable[[], float]) -> None:
        self.context, self.out, self.schedule, self.on_progress, self.clock = context, out, schedule, on_progress, clock
        self.identity = _identity(net, context, schedule)
        self.task = TASKS[context.config.model.task](context)
        self.steps_per_epoch = self.task.batches(0).num_batches
        self.stepper = Stepper(net, self.task, context, num_steps=schedule.epochs * self.steps_per_epoch)
        self.progress = Progress()
        self.score: float | None = None
        self.scored_epoch = 0
        self._started: tuple[float, int] | None = None

    def train_epoch(self, epoch: int) -> None:
        """Train epoch `epoch` (from 0) and count it."""
        self.stepper.net.train()
        for batch in self.task.batches(epoch).stream:
            step = self.progress.step
            self.stepper.step(batch, step=step, lr=self.schedule.lr_at(step, self.steps_per_epoch))
            self.progress.step = step + 1
            if self.stepper.losses:
                self._report(self.stepper.losses[-1], epoch)
        losses = self.stepper.finish_epoch()
        self.progress.epochs_done = epoch + 1
        self.progress.history.append(EpochRecord(epoch=epoch + 1, loss=math.fsum(losses) / len(losses)))

    def validate(self, *, epoch: int) -> None:
        """Take the validation score and keep the weights if they are the best so far."""
        result = self.task.validate(self.stepper.kept)
        self.score, self.scored_epoch, self.progress.metric = result.score, epoch, result.metric
        if self.progress.history:
            self.progress.history[-1] = dataclasses.replace(self.progress.history[-1], score=result.score)
        if result.score > self.progress.best_score:
            self.progress.best_score, self.progress.best_epoch = result.score, epoch
            if self.context.ranks.is_first:
                self._save_best({**result.metrics, "epoch": epoch})
        if self.progress.history:
            self._report(self.progress.history[-1].loss, max(0, epoch - 1))

    def _save_best(self, metrics: dict[str, float]) -> None:
        data, config = self.context.data, self.context.config
        save_checkpoint(self.out / "best", self.stepper.kept, CheckpointMeta(
            model=config.model, num_classes=len(data.classes), classes=data.classes, palette=data.palette,
            contract=self.context.contract, config_sha256=config.sha256, dataset=data.name, dataset_sha256=data.sha256, metrics=metrics,
        ))

    def _report(self, loss: float, epoch: int) -> None:
        if self.on_progress is None:
            return
        now, step, steps = self.clock(), self.progress.step, self.schedule.epochs * self.steps_per_epoch
        if self._started is None:
            self._started = (now, step)
        began, first = self._started
        per_step = (now - began) / max(1, step - first)
        best = self.progress.best_score
        self.on_progress(TrainProgress(
            epoch=epoch + 1, num_epochs=self.schedule.epochs, step=step, num_steps=steps, loss=loss, metric=self.progress.metric,
            score=self.score, scored_epoch=self.scored_epoch, best_score=best if best >= 0 else None,
            lr=self.schedule.lr_at(max(0, step - 1), self.steps_per_epoch),
            seconds_left=per_step * (steps - step),
        ))


def _identity(net: nn.Module, context: TaskContext, schedule: Schedule) -> dict[str, Any]:
    """Everything the resulting bits depend on, as flat JSON values; compared before a run is resumed."""
    config, device = context.config, context.device
    identity: dict[str, Any] = {
        "starting weights": _weights_sha256(net)[:16], "data set": context.data.sha256[:16], "precision": context.precision,
        "device": device.type, "torch": torch.__version__, "processes": context.ranks.count,
        "threads": torch.get_num_threads() if device.type == "cpu" else 0,
    }
    sections = {"model": config.model.portable, "augment": config.augment, "train": config.train, "schedule": schedule}
    for prefix, section in sections.items():
        identity |= {f"{prefix}.{key}": value for key, value in dataclasses.asdict(section).items()}  # type: ignore[call-overload]
    identity |= {"data.size": config.data.size, "data.resize": config.data.resize}
    identity |= {f"data.{key}": value for key, value in config.data.resizer_key.items()}
    # A teacher is known by its weights, not by where it lay; without one, how it would teach says nothing.
    for key in ("train.teacher",) if context.teacher is not None else tuple(f"train.{key}" for key in DISTILLING):
        identity.pop(key)
    if context.teacher is not None:
        identity["teacher"] = _weights_sha256(context.teacher)[:16]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in identity.items()}


def _weights_sha256(net: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
