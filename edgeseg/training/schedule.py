"""Learning rate as a function of the step: linear warm-up, then cosine or polynomial decay to zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeseg.core.config import TrainSection


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train and how fast."""

    epochs: int
    lr: float
    """Peak learning rate."""
    warmup_epochs: float = 0.0
    decay: str = "cosine"
    """`cosine` (SGDR, 1608.03983, without restarts) or `poly` (power 0.9, DeepLab, 1606.00915)."""

    @classmethod
    def of(cls, section: TrainSection, *, epochs: int | None = None, lr: float | None = None) -> Schedule:
        """Give the schedule of `[train]`; fine-tuning gives its own `epochs` and `lr`, and warms up for at most a tenth of them."""
        warmup_epochs = section.warmup_epochs if epochs is None else min(section.warmup_epochs, epochs / 10)
        return cls(epochs=section.epochs if epochs is None else epochs, lr=section.lr if lr is None else lr,
                   warmup_epochs=warmup_epochs, decay=section.schedule)

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of `step` (from 0) of `epochs * steps_per_epoch`."""
        total = self.epochs * steps_per_epoch
        warmup = min(round(self.warmup_epochs * steps_per_epoch), total // 2)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        done = (step - warmup) / max(1, total - warmup)
        if self.decay == "poly":
            return self.lr * math.pow(1 - done, 0.9)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))
