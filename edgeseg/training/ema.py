"""Exponential moving average of weights and norm statistics: what is validated and shipped."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Ema:
    """`net` is a copy whose floating values follow the trained network's: v <- d v + (1 - d) w.

    The decay warms up as min(decay, (1 + t) / (10 + t)), so that the random start is forgotten within a few dozen steps. Norm
    statistics are averaged alike (they belong to the averaged weights, not to the latest ones); integer buffers are copied.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Follow `net` after optimiser step `step` (from 0)."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self.net.state_dict(), net.state_dict()
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floating], [theirs[name] for name in floating], weight)
        counters = [name for name, value in mine.items() if not value.is_floating_point()]
        if counters:  # together: on a GPU one launch in place of one a norm
            torch._foreach_copy_([mine[name] for name in counters], [theirs[name] for name in counters])
