"""One optimiser step: loss, gradients, weights, averages. Knows nothing of epochs and files.

On a GPU a step's loss is read one step later: reading waits for the device, which would stand idle while the next batch is prepared.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from edgeseg.core.config import TrainSection
from edgeseg.core.errors import TrainingError
from edgeseg.training.compiled import choose
from edgeseg.training.ema import Ema
from edgeseg.training.fast_cpu import keep_strided_depthwise_in_fp32
from edgeseg.training.sync_norm import synchronise_norms
from edgeseg.training.task import Named, Task, TaskContext

MAX_GRAD_SKIPS: Final = 20
"""fp16 only: so many steps in a row may be skipped while the loss scale comes down (2^16 to 1 is 16 halvings)."""


@dataclass(frozen=True)
class _Done:
    """A step whose numbers were not read yet."""

    step: int
    ids: tuple[str, ...]
    loss: Tensor
    norm: Tensor


class Stepper:
    """A copy of a network with all that trains it."""

    def __init__(self, net: nn.Module, task: Task, context: TaskContext, *, num_steps: int = 0) -> None:
        """Copy `net` to the device; `num_steps` are to come, which `[train] compile` asks for."""
        train = context.config.train
        self.task, self.ranks, self.device, self.seed, self.clip_norm = task, context.ranks, context.device, train.seed, train.clip_norm
        self.net = copy.deepcopy(net).to(self.device)
        self.ema = Ema(self.net, train.ema) if train.ema > 0 else None
        choice = choose(self.net, task, train, self.device, self.ranks, num_steps=num_steps)
        self.run: Callable[..., Any] = choice.run
        """What the task calls: the network itself, or a compiled form of it."""
        self.compiled = choice.words
        # From here on the network must not be copied: layers get a `forward` that is bound to them.
        if self.device.type == "cpu" and context.precision == "bf16":
            keep_strided_depthwise_in_fp32(self.net)
        synchronise_norms(self.net, self.ranks)
        self.optimizer = adamw(self.net, train, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=context.precision == "fp16")
        self.losses: list[float] = []
        """Of the epoch's steps so far, but for the `lag` newest."""
        self.lag = 0 if self.device.type == "cpu" else 1
        self._unread: deque[_Done] = deque()
        self._skipped = 0

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and shipped."""
        return self.net if self.ema is None else self.ema.net

    @property
    def state(self) -> dict[str, Any]:
        """What is stored and restored to go on, as `save_state` and `load_state` take it."""
        return {"net": self.net, "ema": self.ema.net if self.ema else None, "optimizer": self.optimizer, "scaler": self.scaler}

    def step(self, batch: Named, *, step: int, lr: float) -> None:
        """Do step `step` (from 0, over all epochs) at learning rate `lr`.

        Raises:
            TrainingError: a loss or gradient that is not finite, of this step or of the one before; names the frames.
        """
        # Dropout draws from torch's generator: seeded by step and rank, it needs no state to resume.
        torch.manual_seed((self.seed << 32) ^ (self.ranks.rank << 24) ^ step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.task.loss(self.run, batch)  # type: ignore[arg-type]
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.ranks.mean_gradients(self.net)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.clip_norm or math.inf)
        self._unread.append(_Done(step, batch.ids, self.ranks.mean(loss.detach()), norm))
        self._read(self.lag)
        self.scaler.step(self.optimizer)  # skips by itself where fp16 overflowed
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.net, step)

    def finish_epoch(self) -> list[float]:
        """Give the losses of the epoch's steps and forget them."""
        self._read(0)
        losses, self.losses = self.losses, []
        return losses

    def _read(self, lag: int) -> None:
        while len(self._unread) > lag:
            done = self._unread.popleft()
            value, norm = float(done.loss), float(done.norm)
            if not math.isfinite(value):
                raise _not_finite("loss", value, done)
            self._skipped = 0 if math.isfinite(norm) else self._skipped + 1
            if self._skipped and (not self.scaler.is_enabled() or self._skipped > MAX_GRAD_SKIPS):
                raise _not_finite("gradient", norm, done)
            self.losses.append(value)


def _not_finite(what: str, value: float, done: _Done) -> TrainingError:
    return TrainingError(f"{what} is {value} at step {done.step} (frames {', '.join(done.ids)}); "
                         "look at these frames and labels, lower [train] lr, or set [train] precision = \"fp32\"")


def adamw(net: nn.Module, train: TrainSection, device: torch.device) -> torch.optim.AdamW:
    """AdamW (1711.05101); weight decay on matrices and kernels only, never on biases and norms."""
    kernels = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=train.lr, fused=True if device.type == "cuda" else None)
