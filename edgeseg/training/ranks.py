"""The processes that train one network together, and what they tell each other. One process alone needs none of it.

Every process holds the whole network and takes its slice of each batch. The launcher (`torchrun`, or `edgeseg train --devices`) says
through the environment who is who; rank 0 is the only one that writes.

Gradients are averaged in one flat buffer after the backward pass, not by `DistributedDataParallel`: that one regroups its buckets while it
runs, and with them the order in which three or more processes' values are added, so a training that was killed and goes
on would end in other bits. The buffer of a network of 1 M parameters is 4 MB a step (docs/training.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgeseg.core.errors import ConfigError, TrainingError

PATIENCE: Final = timedelta(hours=2)
"""How long a process waits for the others: rank 0 may check and decode a large data set first. One that dies is noticed at once."""


class OthersLost(TrainingError):
    """Another process of the training is gone."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Who this process is; by default the only one."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """Among the processes of this machine: the number of its GPU."""
    local_count: int = 1
    attempt: int = 0
    """How often the launcher started the processes again."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all are here."""
        self.total(torch.zeros(1))  # on the CPU, whose group needs no device

    def told(self, value: Any) -> Any:  # noqa: ANN401 - any value that JSON could hold
        """Give rank 0's `value` to all."""
        if self.count == 1:
            return value
        box = [value]
        with self._together():
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def must_agree(self, what: str, value: str) -> None:
        """Check that every process has the same `value`.

        Raises:
            TrainingError: they differ.
        """
        if self.told(value) != value:
            raise TrainingError(f"rank {self.rank} has another {what} than rank 0; give every process the same config, data and torch")

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes; `values` itself for one alone."""
        if self.count == 1:
            return values
        values = values.detach().clone()
        with self._together():
            dist.all_reduce(values)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes; `values` itself for one alone."""
        return values if self.count == 1 else self.total(values) / self.count

    def gathered(self, rows_N: Tensor) -> Tensor:
        """Rows of all processes in the order of the batch, [count * N, ...]; gradients reach this process's own rows only."""
        if self.count == 1:
            return rows_N
        mine = rows_N.detach().contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.count)]
        with self._together():
            dist.all_gather(parts, mine)
        parts[self.rank] = rows_N
        return torch.cat(parts)

    def mean_gradients(self, net: nn.Module) -> None:
        """Give every parameter the mean of its gradients, in place; one that no process has a gradient for keeps none."""
        if self.count == 1:
            return
        params = [p for p in net.parameters() if p.requires_grad]
        # Which parameters have one rides along: a head may see nothing to learn from in one process's slice.
        has_P = torch.tensor([float(p.grad is not None) for p in params], device=params[0].device)
        flat = torch.cat([has_P, *((p.grad if p.grad is not None else torch.zeros_like(p)).float().reshape(-1) for p in params)])
        flat = self.mean(flat)
        somewhere = flat[: len(params)].tolist()
        start = len(params)
        for param, share in zip(params, somewhere, strict=True):
            if share > 0:
                param.grad = flat[start : start + param.numel()].view_as(param).to(param.dtype)
            start += param.numel()

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # gloo raises it plain; NCCL's DistBackendError is one
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise OthersLost(f"rank {self.rank} lost the other processes ({reason}); the last checkpoint is kept: "
                             "type the same command with --resume to go on") from error


SINGLE: Final = Ranks()


def ranks_of(environment: Mapping[str, str]) -> Ranks:
    """Read what `torchrun` wrote into the environment; `SINGLE` where it did not start this process.

    Raises:
        ConfigError: a value is not a number.
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        return SINGLE
    try:
        rank, count, local_rank, local_count = (
            int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(f"the launcher's environment is incomplete ({error}); type: edgeseg train --devices N") from error
    attempt = int(environment.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return Ranks(rank=rank, count=count, local_rank=local_rank, local_count=local_count, attempt=attempt)


@contextmanager
def joined(ranks: Ranks, *, cuda: bool) -> Iterator[None]:
    """Hold the connection between the processes: gloo for values on the CPU, NCCL for those on GPUs.

    Raises:
        TrainingError: the others cannot be reached.
    """
    if ranks.count == 1:
        yield
        return
    if cuda:
        torch.cuda.set_device(ranks.local_rank)
    with ranks._together():
        store, _, _ = next(dist.rendezvous("env://", ranks.rank, ranks.count, timeout=PATIENCE))  # type: ignore[attr-defined]
        # The launcher's store outlives a restart: without a room of its own an attempt finds the addresses of dead processes there.
        store = dist.PrefixStore(f"attempt-{ranks.attempt}", store)  # type: ignore[attr-defined]
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=ranks.rank, world_size=ranks.count, timeout=PATIENCE
        )
    try:
        yield
    finally:
        dist.destroy_process_group()
