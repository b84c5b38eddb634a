"""Multiply-accumulates of one frame, counted from shapes alone."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


def count_macs(net: nn.Module, hw: tuple[int, int]) -> int:
    """Multiply-accumulates of convolutions and linear layers for one frame of `hw`; norms, activations and resizes do not count.

    Runs on the meta device: shapes only, nothing is computed and `net` is untouched.
    """
    shadow = copy.deepcopy(net).to("meta").eval()
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):
            total += inputs[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += math.prod(output.shape) * module.in_features

    for module in shadow.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        shadow(torch.empty(1, 3, *hw, device="meta"))
    return total
