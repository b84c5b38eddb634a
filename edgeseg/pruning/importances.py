"""How much a channel matters: scores that decide which channels of a group go first. Adding one = a function and a line below.

`magnitude` and `bn_scale` look at weights alone, `taylor` at what the loss says about them. Scores of one importance can be compared
between groups, which pruning over all layers at once does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

from edgeseg.core.errors import ConfigError
from edgeseg.core.lazy import require
from edgeseg.pruning.groups import ChannelGraph, Scorer

Losses = Callable[[nn.Module], Iterable[Tensor]]
"""Runs a network (evaluation mode) on some training batches and gives the loss of each, a scalar with a gradient."""
Importance = Callable[[ChannelGraph, Losses | None], Scorer]


def magnitude(graph: ChannelGraph, losses: Losses | None) -> Scorer:
    """L2 norm, squared, of all weights of a channel in every layer of its group, over the group's mean (DepGraph, 2301.12900)."""
    scorer: Scorer = require("torch_pruning", extra="train").importance.GroupMagnitudeImportance(p=2)
    return scorer


def bn_scale(graph: ChannelGraph, losses: Losses | None) -> Scorer:
    """Size of the norms' scales, |gamma|, mean over the norms of a group (Network Slimming, 1708.06519).

    A group without a norm gets no score and is left whole.
    """
    scorer: Scorer = require("torch_pruning", extra="train").importance.BNScaleImportance(normalizer=None)
    return scorer


def taylor(graph: ChannelGraph, losses: Losses | None) -> Scorer:
    """What the loss would change by, to first order, if the channel were 0; squared, mean over batches (Molchanov et al., 1906.10771).

    A channel acts on the loss only through the weights by which other layers read it, so setting those to 0 is the same as removing it
    from all layers of its group, whatever norms and activations lie between: I = E[(sum w dL/dw)^2], eq. (8) of the paper with these w.

    Raises:
        ConfigError: no training batches.
    """
    if losses is None:
        raise ConfigError("[prune] importance = 'taylor' needs training batches; use magnitude")
    readers: dict[nn.Module, list[Tensor]] = {}
    net = graph.network
    weighted = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]
    for loss in losses(net):
        net.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for module in weighted:
            readers.setdefault(module, []).append(_by_input(module))
    net.zero_grad(set_to_none=True)
    if not readers:
        raise ConfigError("[prune] importance = 'taylor' was given no training batch; use magnitude")
    change_BI = {module: torch.stack(rows) for module, rows in readers.items()}  # B = batches, I = input channels

    def score(group: Any) -> Tensor | None:  # noqa: ANN401 - a torch-pruning group
        total_BC: Tensor | None = None
        for item in group:
            module = item.dep.target.module
            if module not in change_BI or not graph.reads(item.dep):
                continue
            part_BI = change_BI[module]
            if total_BC is None:
                total_BC = torch.zeros(len(part_BI), len(group[0].idxs))
            total_BC.index_add_(1, torch.tensor(item.root_idxs), part_BI[:, list(item.idxs)])
        return None if total_BC is None else total_BC.square().mean(dim=0)

    return score


def _by_input(module: nn.Module) -> Tensor:
    """Sum of weight times gradient over all weights that read an input channel: [in channels]."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    groups = int(getattr(module, "groups", 1))
    if weight.grad is None:  # an auxiliary layer: it does not run in evaluation mode
        ins = weight.shape[0] if isinstance(module, nn.ConvTranspose2d) else weight.shape[1] * groups
        return torch.zeros(ins)
    product = (weight * weight.grad).detach().float().cpu()
    if isinstance(module, nn.ConvTranspose2d):
        return product.flatten(1).sum(dim=1)
    by_group = product.view(groups, weight.shape[0] // groups, weight.shape[1], -1)
    return by_group.sum(dim=(1, 3)).flatten()


IMPORTANCES: Final[dict[str, Importance]] = {
    "magnitude": magnitude,
    "bn_scale": bn_scale,
    "taylor": taylor,
}
"""Names of `[prune] importance`."""
