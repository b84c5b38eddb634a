"""U-Net: Ronneberger, Fischer, Brox 2015, arXiv:1505.04597, with padded convolutions and batch norm. Scores at full size.

With `[model] encoder`, the contracting path is that encoder and the expanding path the paper's: up-convolution, concatenation with the
encoder's map, two 3x3 convolutions. Its channels are 256 at stride 16, halved at each step, as in the public implementations: with the
paper's rule (as many as the encoder's map has) a ResNet-50 would get a decoder larger than itself. Where the encoder has no map at full
size, the last step goes without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.core.errors import ConfigError
from edgeseg.models.blocks import ConvBnAct, Network, initialise, scaled, size_of
from edgeseg.models.encoders import Encoder, build_encoder
from edgeseg.models.encoders.base import halve


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(ConvBnAct(in_channels, out_channels, 3), ConvBnAct(out_channels, out_channels, 3))


class UpConv(nn.Module):
    """Up-convolution 2x2, concatenation with the skip where there is one, two 3x3 convolutions."""

    def __init__(self, in_channels: int, skip: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convs = DoubleConv(skip + out_channels, out_channels)

    def forward(self, x_NChw: Tensor, skip_NCHW: Tensor | None, size_hw: tuple[int, int]) -> Tensor:
        """Features at `size_hw`, the skip's size: twice that of `x_NChw`, or one less."""
        up = self.up(x_NChw)
        if size_of(up) != size_hw:
            up = up[:, :, : size_hw[0], : size_hw[1]]
        y_NCHW: Tensor = self.convs(up if skip_NCHW is None else torch.cat([skip_NCHW, up], dim=1))
        return y_NCHW


class Classifier(nn.Module):
    """Class scores by a 1x1 convolution."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.scores = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map [N, channels, H, W] to [N, classes, H, W]."""
        y_NCHW: Tensor = self.scores(x_NCHW)
        return y_NCHW


class UNet(Network):
    """`depth` halvings down and as many up; 64 `width` channels at full size, doubled at each halving."""

    def __init__(self, num_classes: int, width: float = 1.0, depth: int = 4) -> None:
        super().__init__()
        channels = [scaled(64 * 2**level, width) for level in range(depth + 1)]
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in zip([3, *channels[:-1]], channels, strict=True))
        self.up = nn.ModuleList(UpConv(channels[i + 1], channels[i], channels[i]) for i in reversed(range(depth)))
        self.classifier = Classifier(channels[0], num_classes)
        initialise(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map normalised frames [N, 3, H, W] to class scores [N, classes, H, W]."""
        skips: list[Tensor] = []
        x = x_NCHW
        for level, block in enumerate(self.down):
            x = block(halve(x) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            skip = skips.pop()
            x = block(x, skip, size_of(skip))
        scores: Tensor = self.classifier(x)
        return scores


class UNetOnEncoder(Network):
    """The expanding path on any encoder."""

    def __init__(self, num_classes: int, encoder: Encoder, width: float = 1.0) -> None:
        super().__init__()
        self.encoder = encoder
        skips = dict(zip(encoder.strides, encoder.channels, strict=True))
        channels, stride = skips.pop(32), 16
        steps: list[UpConv] = []
        while stride >= 1:
            out_channels = scaled(16 * stride, width)
            steps.append(UpConv(channels, skips.get(stride, 0), out_channels))
            channels, stride = out_channels, stride // 2
        self.up = nn.ModuleList(steps)
        self.classifier = Classifier(channels, num_classes)
        initialise(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map normalised frames [N, 3, H, W] to class scores [N, classes, H, W]."""
        *skips, x = self.encoder(x_NCHW)
        for block in self.up:
            skip = skips.pop() if skips else None
            x = block(x, skip, size_of(x_NCHW if skip is None else skip))
        scores: Tensor = self.classifier(x)
        return scores


def build(section: ModelSection, num_classes: int) -> nn.Module:
    """Build from `[model]`.

    Raises:
        ConfigError: no such encoder, or an encoder together with a `depth`.
    """
    if not section.encoder:
        return UNet(num_classes, section.width, section.depth)
    if section.depth != ModelSection().depth:
        raise ConfigError(f"[model] depth = {section.depth}: {section.encoder} has the levels it has; leave depth out, or the encoder")
    return UNetOnEncoder(num_classes, build_encoder(section.encoder, section.width), section.width)
