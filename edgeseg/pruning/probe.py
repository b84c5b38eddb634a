"""Networks of one layer, to be exported and measured: what a layer costs is the difference between two of them.

A 1x1 convolution brings the frame to the layer's channels and another gives two scores of what comes out; both are in both networks. A
layer that keeps the size of its map is repeated one after the other, there and back again (in -> out -> in), so that the map has the
same channels at both ends; any other layer stands several times side by side and the outputs are added up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models import Network
from edgeseg.models.blocks import initialise
from edgeseg.pruning.layers import LayerShape

_SIDE_BY_SIDE = 3


class Probe(Network):
    """Two scores a pixel; `layers` convolutions of one shape in a row, or side by side."""

    class_layers = ("scores",)

    def __init__(self, rows: list[list[LayerShape]], channels: int) -> None:
        """Take rows that start at `channels` channels and end alike; no row = the frame's own pass."""
        super().__init__()
        self.lift = nn.Conv2d(3, channels, 1)
        self.act = nn.ReLU()
        self.rows = nn.ModuleList(nn.Sequential(*(module for shape in row for module in (_layer(shape), nn.ReLU()))) for row in rows)
        self.scores = nn.Conv2d(rows[0][-1].out_channels if rows else channels, 2, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            initialise(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map frames at the layer's own size to two scores a cell of its output."""
        x_NChw = self.act(self.lift(x_NCHW))
        y_NChw = x_NChw
        for number, row in enumerate(self.rows):
            y_NChw = row(x_NChw) if number == 0 else y_NChw + row(x_NChw)
        scores: Tensor = self.scores(y_NChw)
        return scores


def probes(shape: LayerShape) -> tuple[Network, Network, int]:
    """Two networks, short and long, and how many layers of this shape the long one has more.

    For a layer that keeps the size, half of those that it has more go the other way, from `out_channels` to `in_channels`; the shorter
    one is then the same for all layers of that size that start with as many channels.
    """
    if keeps_size(shape):
        few, many = sorted((shape.in_channels, shape.out_channels))
        there, back = shape.with_channels(few, many), shape.with_channels(many, few)
        return Probe([], few), Probe([[there, back]], few), 2
    return Probe([[shape]], shape.in_channels), Probe([[shape]] * _SIDE_BY_SIDE, shape.in_channels), _SIDE_BY_SIDE - 1


def keeps_size(shape: LayerShape) -> bool:
    """Whether rows and columns come out as they went in."""
    return shape.kind == "conv" and shape.in_hw == shape.out_hw


def _layer(shape: LayerShape) -> nn.Module:
    if shape.kind == "transposed":
        return nn.ConvTranspose2d(shape.in_channels, shape.out_channels, shape.kernel, shape.stride, shape.padding, groups=shape.groups)
    padding = shape.padding
    if keeps_size(shape):  # also where the network pads the map before the layer
        padding = (shape.dilation[0] * (shape.kernel[0] - 1) // 2, shape.dilation[1] * (shape.kernel[1] - 1) // 2)
    return nn.Conv2d(
        shape.in_channels, shape.out_channels, shape.kernel, shape.stride, padding, shape.dilation, shape.groups,
    )
