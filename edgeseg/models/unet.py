"""U-Net: Ronneberger, Fischer, Brox 2015, arXiv:1505.04597, with padded convolutions and batch norm. Scores at full size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.models.blocks import ConvBnAct, Network, initialise, scaled


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(ConvBnAct(in_channels, out_channels, 3), ConvBnAct(out_channels, out_channels, 3))


def halve(x_NCHW: Tensor) -> Tensor:
    """Max-pool 2x2, odd sizes rounded up. Zeros are neutral after ReLU, so the padding changes no value."""
    odd_h, odd_w = int(x_NCHW.shape[2]) % 2, int(x_NCHW.shape[3]) % 2
    if odd_h or odd_w:
        x_NCHW = F.pad(x_NCHW, (0, odd_w, 0, odd_h))
    return F.max_pool2d(x_NCHW, 2)


class UpConv(nn.Module):
    """Up-convolution 2x2 that halves the channels, concatenation with the skip, two 3x3 convolutions."""

    def __init__(self, in_channels: int, skip: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convs = DoubleConv(skip + out_channels, out_channels)

    def forward(self, x_NChw: Tensor, skip_NCHW: Tensor) -> Tensor:
        """Features at the skip's size."""
        up = self.up(x_NChw)
        height, width = int(skip_NCHW.shape[2]), int(skip_NCHW.shape[3])
        if tuple(up.shape[2:]) != (height, width):
            up = up[:, :, :height, :width]
        y_NCHW: Tensor = self.convs(torch.cat([skip_NCHW, up], dim=1))
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
            x = block(x, skips.pop())
        scores: Tensor = self.classifier(x)
        return scores


def build(section: ModelSection, num_classes: int) -> nn.Module:
    """Build from `[model]`."""
    return UNet(num_classes, section.width, section.depth)
