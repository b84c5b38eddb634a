"""The training loop: one process, one device. Same configuration and data give the same bits on a CPU, interrupted or not."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from edgeseg.core.config import Config, TrainSection
from edgeseg.core.errors import ConfigError, TrainingError
from edgeseg.core.files import sweep_temporaries
from edgeseg.core.manifest import Contract
from edgeseg.core.metrics import score
from edgeseg.data.dataset import Dataset
from edgeseg.data.loader import Batch, batches, batches_per_epoch
from edgeseg.data.store import FrameStore
from edgeseg.models import normalise, upsample_logits
from edgeseg.training.checkpoint import Checkpoint, CheckpointMeta, open_checkpoint, save_checkpoint
from edgeseg.training.ema import Ema
from edgeseg.training.evaluate import evaluate, torch_predictor
from edgeseg.training.fast_cpu import keep_strided_depthwise_in_fp32, sampled_scores
from edgeseg.training.losses import class_weights, total_loss
from edgeseg.training.schedule import Schedule
from edgeseg.training.state import EpochRecord, Progress, load_state, save_state

_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MAX_GRAD_SKIPS: Final = 20
"""fp16 only: so many steps in a row may be skipped while the loss scale comes down (2^16 to 1 is 16 halvings)."""


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
    miou: float | None
    """Of the last validation, 0..1; `None` before the first."""
    best_miou: float | None
    lr: float
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What training left behind."""

    best: Checkpoint
    best_epoch: int
    """0 = the weights it started from."""
    best_miou: float
    history: tuple[EpochRecord, ...]
    precision: str
    device: str


def pick_device(section: TrainSection) -> torch.device:
    """Device of `[train] device`.

    Raises:
        ConfigError: CUDA is asked for and this machine or this torch has none.
    """
    if section.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("[train] device = 'cuda': this torch sees no CUDA device; set device = 'auto' or 'cpu', or type: edgeseg doctor")
    return torch.device("cuda" if section.device != "cpu" and torch.cuda.is_available() else "cpu")


def pick_precision(section: TrainSection, device: torch.device) -> str:
    """Autocast type: `auto` is bf16 where the processor multiplies it natively, else fp16 on CUDA and fp32 on a CPU.

    Fast-SCNN on a CPU with AVX-512 BF16: 82 ms an image of 360x480 in bf16, 123 ms in fp32.
    """
    if section.precision != "auto":
        return section.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def fit(
    net: nn.Module,
    data: Dataset,
    config: Config,
    out: Path,
    *,
    stores: tuple[FrameStore, FrameStore],
    contract: Contract | None = None,
    resume: bool = False,
    epochs: int | None = None,
    lr: float | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FitResult:
    """Train `net` (a copy; the one given is untouched) and keep the weights with the best validation mIoU in `out/best`.

    `stores` = (train, val). Validated and kept are the averaged weights (EMA) where `[train] ema` > 0. `out/last` holds the state for
    `resume`, written after every epoch; where there is none yet, `resume` starts from the beginning, and without `resume` both folders
    are removed first. `epochs` and `lr` replace those of `[train]` (fine-tuning); with 0 epochs the weights given are validated and kept.
    `contract` is what is validated and recorded; by default argmax at `[data] size`.
    The caller holds the run's lock and sets torch's threads, which the bits of the result depend on.

    Raises:
        TrainingError: a loss or gradient that is not finite (names the frames), or `resume` of another configuration (says what differs).
        ConfigError: the device asked for is not there.
    """
    schedule = Schedule.of(config.train, epochs=epochs, lr=lr)
    contract = contract or Contract(height=config.data.size[0], width=config.data.size[1], resize=config.data.resize)
    run = _Run(net, data, config, out, stores, contract, schedule, on_progress, clock)
    last, best = out / "last", out / "best"
    if not resume:
        for folder in (last, best):
            shutil.rmtree(folder, ignore_errors=True)
    progress = load_state(last, identity=run.identity, **run.movable) if resume else None
    out.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(out)
    run.progress = progress or Progress()
    if schedule.epochs == 0:
        run.validate(epoch=0)
    while run.progress.epochs_done < schedule.epochs:
        run.train_epoch(run.progress.epochs_done)
        epoch = run.progress.epochs_done
        if epoch % config.train.eval_every == 0 or epoch == schedule.epochs:
            run.validate(epoch=epoch)
        # `best` is written before `last`: killed in between, the epoch is done again and finds the same best.
        save_state(last, identity=run.identity, progress=run.progress, **run.movable)
    return FitResult(
        best=open_checkpoint(best), best_epoch=run.progress.best_epoch, best_miou=run.progress.best_miou,
        history=tuple(run.progress.history), precision=run.precision, device=str(run.device),
    )


class _Run:
    """Everything one call of `fit` works with."""

    def __init__(self, net: nn.Module, data: Dataset, config: Config, out: Path, stores: tuple[FrameStore, FrameStore],
                 contract: Contract, schedule: Schedule, on_progress: Callable[[TrainProgress], None] | None,
                 clock: Callable[[], float]) -> None:
        self.data, self.config, self.out, self.contract, self.schedule = data, config, out, contract, schedule
        self.train_store, self.val_store = stores
        self.on_progress, self.clock = on_progress, clock
        train = config.train
        self.device = pick_device(train)
        self.precision = pick_precision(train, self.device)
        self.crop_hw = config.data.size if train.crop[0] == 0 else train.crop
        self.identity = _identity(net, data, config, schedule, self.precision, self.device)
        self.net = copy.deepcopy(net).to(self.device)
        self.ema = Ema(self.net, train.ema) if train.ema > 0 else None
        if self.device.type == "cpu" and self.precision == "bf16":
            keep_strided_depthwise_in_fp32(self.net)
        self.optimizer = _adamw(self.net, train)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        labels = (self.train_store[i][1] for i in range(len(self.train_store)))
        weights = class_weights(labels, num_classes=len(data.classes), rule=train.class_weights)
        self.class_weights_C = torch.from_numpy(weights).to(self.device)
        self.steps_per_epoch = batches_per_epoch(len(self.train_store), train.batch_size)
        self.progress = Progress()
        self.miou: float | None = None
        self._skipped = 0
        self._started: tuple[float, int] | None = None

    @property
    def movable(self) -> dict[str, Any]:
        """What `last/` stores and restores."""
        return {"net": self.net, "ema": self.ema.net if self.ema else None, "optimizer": self.optimizer, "scaler": self.scaler}

    def train_epoch(self, epoch: int) -> None:
        """Train epoch `epoch` (from 0) and count it."""
        train = self.config.train
        self.net.train()
        losses = []
        stream = batches(
            self.train_store, seed=train.seed, epoch=epoch, batch_size=train.batch_size, crop_hw=self.crop_hw,
            section=self.config.augment, model_hw=self.config.data.size, resize=self.config.data.resize,
        )
        for batch in stream:
            losses.append(self._step(batch))
            self._report(losses[-1], epoch)
        self.progress.epochs_done = epoch + 1
        self.progress.history.append(EpochRecord(epoch=epoch + 1, loss=math.fsum(losses) / len(losses)))

    def _step(self, batch: Batch) -> float:
        step, train = self.progress.step, self.config.train
        # Dropout draws from torch's generator: seeded by the step, it needs no state to resume.
        torch.manual_seed((train.seed << 32) ^ step)
        lr = self.schedule.lr_at(step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        frames_NHWC = torch.from_numpy(batch.frames_NHWC).to(self.device, non_blocking=True)
        labels_NHW = torch.from_numpy(batch.labels_NHW).to(self.device, non_blocking=True).long()
        dtype = _DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32"):
            logits_NChw: Tensor = self.net(normalise(frames_NHWC))
        if self.device.type == "cpu":
            logits_NCHW, labels_NHW = sampled_scores(logits_NChw.float(), labels_NHW, step)
        else:
            logits_NCHW = upsample_logits(logits_NChw.float(), self.crop_hw)
        loss = total_loss(logits_NCHW, labels_NHW, self.class_weights_C, train)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._not_finite("loss", value, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.net.parameters(), train.clip_norm or math.inf))
        self._skipped = 0 if math.isfinite(norm) else self._skipped + 1
        if self._skipped and (not self.scaler.is_enabled() or self._skipped > MAX_GRAD_SKIPS):
            raise self._not_finite("gradient", norm, batch)
        self.scaler.step(self.optimizer)  # skips by itself where fp16 overflowed
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.net, step)
        self.progress.step = step + 1
        return value

    def _not_finite(self, what: str, value: float, batch: Batch) -> TrainingError:
        return TrainingError(f"{what} is {value} at step {self.progress.step} (frames {', '.join(batch.ids)}); "
                             "look at these frames and labels, lower [train] lr, or set [train] precision = \"fp32\"")

    def validate(self, *, epoch: int) -> None:
        """Take the validation mIoU and keep the weights if they are the best so far."""
        net = self.ema.net if self.ema is not None else self.net
        num_classes = len(self.data.classes)
        predict = torch_predictor(net, self.contract, self.device)
        result = score(evaluate(predict, self.val_store, self.contract, num_classes).sum(axis=0))
        self.miou = result.miou
        if self.progress.history:
            self.progress.history[-1] = dataclasses.replace(self.progress.history[-1], val_miou=result.miou)
        if result.miou > self.progress.best_miou:
            self.progress.best_miou, self.progress.best_epoch = result.miou, epoch
            save_checkpoint(self.out / "best", net, CheckpointMeta(
                model=self.config.model, num_classes=num_classes, classes=self.data.classes, palette=self.data.palette,
                contract=self.contract, config_sha256=self.config.sha256, dataset=self.data.name, dataset_sha256=self.data.sha256,
                metrics={"val_miou": result.miou, "val_pixel_accuracy": result.pixel_accuracy, "epoch": epoch},
            ))
        if self.progress.history:
            self._report(self.progress.history[-1].loss, max(0, epoch - 1))

    def _report(self, loss: float, epoch: int) -> None:
        if self.on_progress is None:
            return
        now, step, steps = self.clock(), self.progress.step, self.schedule.epochs * self.steps_per_epoch
        if self._started is None:
            self._started = (now, step)
        began, first = self._started
        per_step = (now - began) / max(1, step - first)
        best = self.progress.best_miou
        self.on_progress(TrainProgress(
            epoch=epoch + 1, num_epochs=self.schedule.epochs, step=step, num_steps=steps, loss=loss, miou=self.miou,
            best_miou=best if best >= 0 else None, lr=self.schedule.lr_at(max(0, step - 1), self.steps_per_epoch),
            seconds_left=per_step * (steps - step),
        ))


def _adamw(net: nn.Module, train: TrainSection) -> torch.optim.AdamW:
    """AdamW (1711.05101); weight decay on matrices and kernels only, never on biases and norms."""
    kernels = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=train.lr)


def _identity(net: nn.Module, data: Dataset, config: Config, schedule: Schedule, precision: str, device: torch.device) -> dict[str, Any]:
    """Everything the resulting bits depend on, as flat JSON values; compared before a run is resumed."""
    start = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        start.update(name.encode())
        start.update(value.detach().cpu().contiguous().numpy().tobytes())
    identity: dict[str, Any] = {
        "starting weights": start.hexdigest()[:16], "data set": data.sha256[:16], "precision": precision, "device": device.type,
        "torch": torch.__version__,
    }
    sections = {"model": config.model, "augment": config.augment, "train": config.train, "schedule": schedule}
    for prefix, section in sections.items():
        identity |= {f"{prefix}.{key}": value for key, value in dataclasses.asdict(section).items()}  # type: ignore[call-overload]
    identity |= {"data.size": config.data.size, "data.resize": config.data.resize}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in identity.items()}
