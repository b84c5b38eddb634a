"""Channel counts by module name: how a pruned network is written down and built again, whatever its architecture."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

ChannelShapes = dict[str, dict[str, int]]
"""Module name -> `in`, `out` and `groups` of a convolution, `in` and `out` of a linear layer, `out` of a batch norm."""


def channel_shapes(net: nn.Module) -> ChannelShapes:
    """Channel counts of every convolution, linear layer and batch norm."""
    shapes: ChannelShapes = {}
    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            shapes[name] = {"in": module.in_channels, "out": module.out_channels, "groups": module.groups}
        elif isinstance(module, nn.Linear):
            shapes[name] = {"in": module.in_features, "out": module.out_features}
        elif isinstance(module, nn.BatchNorm2d):
            shapes[name] = {"out": module.num_features}
    return shapes


def apply_channel_shapes(net: nn.Module, shapes: Mapping[str, Mapping[str, int]]) -> None:
    """Give the layers of `net` these channel counts, in place; layers that change get uninitialised weights.

    Raises:
        ValueError: `shapes` names other layers than `net` has.
    """
    current = channel_shapes(net)
    if set(current) != set(shapes):
        odd = sorted(set(current) ^ set(shapes))
        raise ValueError(f"layers differ: {', '.join(odd[:3])}")
    for name, wanted in shapes.items():
        if dict(wanted) == current[name]:
            continue
        module = net.get_submodule(name)
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.in_channels, module.out_channels, module.groups = wanted["in"], wanted["out"], wanted["groups"]
            first, second = (wanted["out"], wanted["in"]) if isinstance(module, nn.Conv2d) else (wanted["in"], wanted["out"])
            kernel = tuple(module.weight.shape[2:])
            module.weight = nn.Parameter(torch.empty(first, second // wanted["groups"], *kernel))
        elif isinstance(module, nn.Linear):
            module.in_features, module.out_features = wanted["in"], wanted["out"]
            module.weight = nn.Parameter(torch.empty(wanted["out"], wanted["in"]))
        else:
            assert isinstance(module, nn.BatchNorm2d)
            module.num_features = wanted["out"]
            module.weight = nn.Parameter(torch.empty(wanted["out"]))
            module.running_mean = torch.zeros(wanted["out"])
            module.running_var = torch.ones(wanted["out"])
        if module.bias is not None:
            module.bias = nn.Parameter(torch.empty(wanted["out"]))
