"""The layers that cost time, as plain facts: what a layer does to which map with how many channels.

Cutting channels changes nothing but the channel counts of these facts, so what a cut would save is computed without cutting.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerShape:
    """One convolution or linear layer at one frame size."""

    kind: str
    """`conv`, `transposed` (convolution) or `linear`."""
    in_channels: int
    out_channels: int
    groups: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    in_hw: tuple[int, int] = (1, 1)
    """Rows and columns of the map that comes in; of a linear layer, (positions, 1)."""
    out_hw: tuple[int, int] = (1, 1)

    @property
    def depthwise(self) -> bool:
        """One filter a channel: `groups` shrinks with the channels."""
        return self.kind == "conv" and self.groups > 1 and self.groups == self.in_channels == self.out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one frame, as `edgeseg.models.count_macs` counts them."""
        cells = math.prod(self.in_hw if self.kind == "transposed" else self.out_hw)
        return cells * self.in_channels * self.out_channels * math.prod(self.kernel) // self.groups

    def with_channels(self, in_channels: int, out_channels: int) -> LayerShape:
        """The same layer with other channel counts."""
        groups = out_channels if self.depthwise else self.groups
        return replace(self, in_channels=in_channels, out_channels=out_channels, groups=groups)


def layer_shapes(net: nn.Module, hw: tuple[int, int]) -> dict[str, LayerShape]:
    """Facts of every layer with weights that runs for a frame of `hw` in evaluation mode, by its name.

    Runs on the meta device: shapes only, nothing is computed and `net` is untouched.
    """
    shadow = copy.deepcopy(net).to("meta").eval()
    names = {module: name for name, module in shadow.named_modules()}
    found: dict[str, LayerShape] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found[names[module]] = _facts(module, inputs[0], output)

    for module in shadow.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.register_forward_hook(note)
    with torch.no_grad():
        shadow(torch.empty(1, 3, *hw, device="meta"))
    return found


def _facts(module: nn.Module, x: Tensor, y: Tensor) -> LayerShape:
    if isinstance(module, nn.Linear):
        cells = math.prod(y.shape[:-1])
        ins, outs = module.in_features, module.out_features
        return LayerShape(kind="linear", in_channels=ins, out_channels=outs, in_hw=(cells, 1), out_hw=(cells, 1))
    assert isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    return LayerShape(
        kind="conv" if isinstance(module, nn.Conv2d) else "transposed", in_channels=module.in_channels, out_channels=module.out_channels,
        groups=module.groups, kernel=_pair(module.kernel_size), stride=_pair(module.stride),
        padding=(0, 0) if isinstance(module.padding, str) else _pair(module.padding), dilation=_pair(module.dilation),
        in_hw=(int(x.shape[2]), int(x.shape[3])), out_hw=(int(y.shape[2]), int(y.shape[3])),
    )


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return int(value[0]), int(value[1])
