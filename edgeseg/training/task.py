"""What is learnt: how samples become batches, a batch a loss, a network a score. The loop, resume, averaging and checkpoints know no more.

Adding a task = one new file with a class like `SemanticTask` + one line in `edgeseg.training.tasks.TASKS`.

Legend: N = frames, C = classes, H/W = rows/columns of a crop, h/w = rows/columns at the network's stride.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgeseg.core.config import Config
from edgeseg.core.errors import DataError
from edgeseg.core.images import IGNORE_INDEX
from edgeseg.core.manifest import Contract
from edgeseg.core.metrics import score
from edgeseg.data.dataset import Dataset
from edgeseg.data.loader import batches, batches_per_epoch
from edgeseg.models import normalise
from edgeseg.models.outputs import Outputs
from edgeseg.training.device import DTYPES
from edgeseg.training.distill import scores_of, taught_loss
from edgeseg.training.evaluate import evaluate, torch_predictor
from edgeseg.training.gpu_augment import device_batches, kept_on_gpu, sent
from edgeseg.training.losses import class_weights, total_loss
from edgeseg.training.ranks import SINGLE, Ranks


class Named(Protocol):
    """A batch of any task."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Samples it was made from, for messages."""


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch, in order; nothing is prepared before the first is asked for."""

    num_batches: int
    stream: Iterator[Named]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a network is worth; the weights with the largest `score` are kept."""

    score: float
    """0..1; larger is better."""
    metric: str
    """Name of the score as people read it, for instance `mIoU`."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What the checkpoint records, for instance `val_miou`."""


class Task(Protocol):
    """One way of learning. With several processes each takes its slice of every batch (`TaskContext.ranks`)."""

    def batches(self, epoch: int) -> Epoch:
        """Give the batches of epoch `epoch` (from 0); a function of config, data, `epoch` and rank alone. Each batch is a `Named`."""

    def loss(self, net: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - each task's own batch
        """Give a scalar whose mean over the processes, gradient included, is the loss of the whole batch.

        A mean over frames is that by itself, since all slices are of one size. The network runs under `TaskContext.autocast`.
        """

    def validate(self, net: nn.Module) -> Validation:
        """Score `net` on the val split; the same in every process. May switch it to evaluation mode."""


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """What every task is made from."""

    data: Dataset
    config: Config
    stores: tuple[Any, Any]
    """Train and val, of the kind the task reads (`FrameStore`, `InstanceStore`)."""
    contract: Contract
    device: torch.device
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    ranks: Ranks = SINGLE
    teacher: nn.Module | None = None
    """`edgeseg.training.distill.frozen`; its scores are learnt from beside the labels."""

    @property
    def crop_hw(self) -> tuple[int, int]:
        """Rows and columns of a training crop."""
        train = self.config.train
        return self.config.data.size if train.crop[0] == 0 else train.crop

    def autocast(self) -> AbstractContextManager[Any]:
        """Run what is inside at the precision of the training; losses stay outside, in fp32."""
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision], enabled=self.precision != "fp32")


@dataclass(frozen=True)
class SemanticBatch:
    """`frames_NHWC` uint8 RGB and `labels_NHW` uint8 (255 = ignore) on the device, and the step it is for."""

    frames_NHWC: Tensor
    labels_NHW: Tensor
    ids: tuple[str, ...]
    step: int


class SemanticTask:
    """A class for each pixel; the score is mIoU at the frames' own size.

    Raises:
        DataError: no pixel of val is labelled.
    """

    def __init__(self, context: TaskContext) -> None:
        self.context = context
        self.train_store, self.val_store = context.stores
        if not any((self.val_store[i][1] != IGNORE_INDEX).any() for i in range(len(self.val_store))):
            raise DataError(f"{context.data.root}: no pixel of val is labelled (all 255 = ignore), so no network can be chosen by it; "
                            "label some, or put labelled frames into val")
        train, num_classes = context.config.train, len(context.data.classes)
        labels = (self.train_store[i][1] for i in range(len(self.train_store)))
        weights = class_weights(labels, num_classes=num_classes, rule=train.class_weights)
        self.class_weights_C = torch.from_numpy(weights).to(context.device)
        pillow = context.config.data.resizer == "pillow"
        self.on_device = kept_on_gpu(self.train_store, context.device) if pillow else None
        """The training frames, where they fit on the GPU; they are then augmented there, by the weights of Pillow's filter."""

    def batches(self, epoch: int) -> Epoch:
        """Give this process's slices of the epoch's batches."""
        context, config = self.context, self.context.config
        num_batches = batches_per_epoch(len(self.train_store), config.train.batch_size)
        options: dict[str, Any] = {
            "seed": config.train.seed, "epoch": epoch, "batch_size": config.train.batch_size, "crop_hw": context.crop_hw,
            "section": config.augment, "model_hw": config.data.size, "resize": config.data.resize,
            "part": (context.ranks.rank, context.ranks.count),
        }

        def stream() -> Iterator[SemanticBatch]:
            first = epoch * num_batches
            if self.on_device is not None:
                for number, made in enumerate(device_batches(self.on_device, **options)):
                    yield SemanticBatch(made.frames_NHWC, made.labels_NHW, made.ids, first + number)
                return
            options.update(resizer=config.data.resizer, num_workers=_num_workers(context))
            for number, batch in enumerate(batches(self.train_store, **options)):
                frames, labels = sent(batch.frames_NHWC, context.device), sent(batch.labels_NHW, context.device)
                yield SemanticBatch(frames, labels, batch.ids, first + number)

        return Epoch(num_batches, stream())

    def loss(self, net: nn.Module, batch: SemanticBatch) -> Tensor:
        """Sum of `[train] loss`, over the whole batch of all processes.

        Class-weighted means, Dice and Lovasz are no means of their values on slices. So each process gathers everybody's scores, at the
        network's stride where they are small, and takes the loss of the whole batch, with a gradient for its own slice. With a teacher
        its part is added (`edgeseg.training.distill`), from the same augmented frames.
        """
        context, ranks, train = self.context, self.context.ranks, self.context.config.train
        x_NCHW = normalise(batch.frames_NHWC)
        with context.autocast():
            output = net(x_NCHW)
        output = _gathered(output, ranks)
        labels_NHW = ranks.gathered(batch.labels_NHW).long()
        # On a CPU, coarse networks are compared on a quarter of the pixels (`edgeseg.training.fast_cpu`).
        step = batch.step if context.device.type == "cpu" else None
        loss = total_loss(output, labels_NHW, self.class_weights_C, train, step=step)
        if context.teacher is not None:
            with torch.no_grad(), context.autocast():
                taught_NCxy = scores_of(context.teacher(x_NCHW))
            loss = loss + taught_loss(scores_of(output), ranks.gathered(taught_NCxy), labels_NHW, train)
        return loss if ranks.count == 1 else loss + (ranks.count - 1) * (loss - loss.detach())

    def validate(self, net: nn.Module) -> Validation:
        """Mean IoU; frames are dealt out to the processes, and their counts are added up."""
        context, ranks = self.context, self.context.ranks
        predict = torch_predictor(net, context.contract, context.device)
        confusions_FCC = evaluate(predict, self.val_store, context.contract, len(context.data.classes), part=(ranks.rank, ranks.count))
        result = score(ranks.total(torch.from_numpy(confusions_FCC.sum(axis=0))).numpy())
        return Validation(score=result.miou, metric="mIoU",
                          metrics={"val_miou": result.miou, "val_pixel_accuracy": result.pixel_accuracy})


def _num_workers(context: TaskContext) -> int:
    """Threads that cut crops: one beside a step that needs the processor itself, more beside a GPU."""
    if context.device.type == "cpu":
        return 1
    return max(1, min(8, (os.cpu_count() or 1) // context.ranks.local_count))


def _gathered(output: Tensor | Outputs, ranks: Ranks) -> Tensor | Outputs:
    if not isinstance(output, Outputs):
        return ranks.gathered(output)
    return output._replace(
        main=ranks.gathered(output.main), aux=tuple(map(ranks.gathered, output.aux)),
        boundary=None if output.boundary is None else ranks.gathered(output.boundary),
    )
