"""Losses of training batches with the weights as they are: what pruning asks which channels matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from edgeseg.core.config import Config
from edgeseg.core.manifest import Contract
from edgeseg.data.dataset import Dataset
from edgeseg.training.device import pick_device
from edgeseg.training.task import TaskContext
from edgeseg.training.tasks import TASKS


def batch_losses(
    data: Dataset, config: Config, *, stores: tuple[Any, Any], contract: Contract, num_batches: int
) -> Callable[[nn.Module], Iterator[Tensor]]:
    """Give a function that runs a network, in evaluation mode, on at most `num_batches` batches of the first epoch and yields their losses.

    Batches, augmentation and loss are those of training, in float32; between two losses the caller takes the gradients. The network is
    moved to the device of `[train]` meanwhile and comes back to the CPU.
    """
    device = pick_device(config.train)
    context = TaskContext(data=data, config=config, stores=stores, contract=contract, device=device, precision="fp32")
    task = TASKS[config.model.task](context)

    def losses(net: nn.Module) -> Iterator[Tensor]:
        net.to(device).eval()
        try:
            for number, batch in enumerate(task.batches(0).stream):
                if number == num_batches:
                    return
                yield task.loss(net, batch)
        finally:
            net.cpu()

    return losses
