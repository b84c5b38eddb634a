"""`torch.compile`, where it pays: the training step of this network on this machine is timed with and without, and time decides.

Compiling takes from seconds to minutes and what it gains hangs on network, size and GPU, so nothing is assumed.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from edgeseg.core.config import TrainSection
from edgeseg.core.errors import ConfigError, RuntimeFailure, vendor_errors
from edgeseg.training.ranks import Ranks
from edgeseg.training.task import Task

_WARM_UP: Final = 3
_STEPS: Final = 15


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What compiling a network's training step costs and gives here."""

    plain_ms: float
    """Median of forward and backward on one batch."""
    compiled_ms: float
    compile_s: float
    """The first compiled step."""

    def pays(self, num_steps: int) -> bool:
        """Whether `num_steps` steps end sooner with it, the compiling included."""
        return (self.plain_ms - self.compiled_ms) / 1000 * num_steps > self.compile_s


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the steps run, and why, in words for the user and for `history.json`."""

    run: Callable[..., Any]
    words: str


def choose(
    net: nn.Module, task: Task, section: TrainSection, device: torch.device, ranks: Ranks, *, num_steps: int, backend: str = "inductor",
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """Decide `[train] compile` for the `num_steps` steps to come. The trial takes copies of `net`, which is on the device.

    `auto` is off on a CPU and in several processes, without a trial.

    Raises:
        ConfigError: `on` in several processes, whose norms talk to each other in the middle of the graph.
        RuntimeFailure: `on`, and the compiler fails.
    """
    if section.compile == "off":
        return Choice(run=net, words="off")
    if ranks.count > 1:
        if section.compile == "on":
            raise ConfigError('[train] compile = "on" works in one process; set it to "auto" or "off"')
        return Choice(run=net, words="off: several processes")
    if section.compile == "on":
        with vendor_errors("torch.compile"):
            _time(net, task, device, num_steps=1, backend=backend, clock=clock)
        return Choice(run=torch.compile(net, backend=backend), words="on")
    if device.type == "cpu":
        return Choice(run=net, words="off: on a CPU")
    try:
        with vendor_errors("torch.compile"):
            trial = try_out(net, task, device, backend=backend, clock=clock)
    except RuntimeFailure as error:
        return Choice(run=net, words=f"off: {error}")
    pays = trial.pays(num_steps)
    words = (f"{'on' if pays else 'off'}: a step took {trial.plain_ms:.1f} ms, compiled {trial.compiled_ms:.1f} ms, "
             f"and compiling {trial.compile_s:.0f} s, for {num_steps} steps")
    return Choice(run=torch.compile(net, backend=backend) if pays else net, words=words)


def try_out(net: nn.Module, task: Task, device: torch.device, *, backend: str, clock: Callable[[], float]) -> Trial:
    """Time forward and backward of copies of `net`, plain and compiled, on the first batch."""
    plain_s = _time(net, task, device, num_steps=_STEPS, backend=None, clock=clock)
    compiled_s = _time(net, task, device, num_steps=_STEPS, backend=backend, clock=clock)
    return Trial(plain_ms=1000 * statistics.median(plain_s[_WARM_UP:]), compiled_ms=1000 * statistics.median(compiled_s[_WARM_UP:]),
                 compile_s=compiled_s[0])


def _time(
    net: nn.Module, task: Task, device: torch.device, *, num_steps: int, backend: str | None, clock: Callable[[], float]
) -> list[float]:
    """Seconds of each step; with a backend, the first holds the compiling."""
    copied = copy.deepcopy(net).train()
    run: Any = copied if backend is None else torch.compile(copied, backend=backend)
    batch = next(task.batches(0).stream)
    seconds = []
    for _ in range(num_steps):
        started = clock()
        task.loss(run, batch).backward()  # type: ignore[no-untyped-call]
        copied.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    return seconds
