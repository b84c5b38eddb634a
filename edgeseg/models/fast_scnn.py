"""Fast-SCNN: Poudel, Liwicki, Cipolla 2019, arXiv:1902.04502. Scores at 1/8 of the frame.

The paper's table 1 gives the layers; as in the public re-implementations the pyramid has four branches of a quarter of the channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.models.blocks import ConvBnAct, Network, SeparableConv, enlarge, initialise, pool_to, resize, scaled, size_of


class Bottleneck(nn.Module):
    """Inverted residual of MobileNetV2 (1801.04381): expand, depthwise, project; a sum where the shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int = 6) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.body = nn.Sequential(
            ConvBnAct(in_channels, inner),
            ConvBnAct(inner, inner, 3, stride=stride, groups=inner),
            ConvBnAct(inner, out_channels, act=nn.Identity),
        )

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / stride), ceil(w / stride)]."""
        y_NChw: Tensor = self.body(x_NChw)
        return x_NChw + y_NChw if self.residual else y_NChw


class PyramidPooling(nn.Module):
    """Pyramid pooling of PSPNet (1612.01105): averages over 1, 2, 3 and 6 cells a side, resized and concatenated."""

    bins = (1, 2, 3, 6)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(ConvBnAct(channels, scaled(channels / 4)) for _ in self.bins)
        self.project = ConvBnAct(channels + 4 * scaled(channels / 4), channels)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, C, h, w] to the same shape."""
        size = size_of(x_NChw)
        pooled = [resize(branch(pool_to(x_NChw, bins)), size) for bins, branch in zip(self.bins, self.branches, strict=True)]
        y_NChw: Tensor = self.project(torch.cat([x_NChw, *pooled], dim=1))
        return y_NChw


class Fusion(nn.Module):
    """Add the coarse features, enlarged four times, to the fine ones (paper, table 3)."""

    def __init__(self, fine: int, coarse: int, out_channels: int) -> None:
        super().__init__()
        self.coarse = nn.Sequential(
            ConvBnAct(coarse, coarse, 3, groups=coarse),
            ConvBnAct(coarse, out_channels, act=nn.Identity),
        )
        self.fine = ConvBnAct(fine, out_channels, act=nn.Identity)
        self.act = nn.ReLU()

    def forward(self, fine_NChw: Tensor, coarse_NChw: Tensor) -> Tensor:
        """Fused features at the fine size."""
        enlarged = enlarge(coarse_NChw, size_of(fine_NChw), 4)
        y_NChw: Tensor = self.act(self.fine(fine_NChw) + self.coarse(enlarged))
        return y_NChw


class Classifier(nn.Module):
    """Two separable convolutions, dropout, class scores."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(SeparableConv(channels, channels), SeparableConv(channels, channels))
        self.dropout = nn.Dropout(0.1)
        self.scores = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, channels, h, w] to [N, classes, h, w]."""
        y_NChw: Tensor = self.scores(self.dropout(self.body(x_NChw)))
        return y_NChw


class FastScnn(Network):
    """Learning to downsample, global feature extractor, feature fusion, classifier."""

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        c32, c48, c64, c96, c128 = (scaled(c, width) for c in (32, 48, 64, 96, 128))
        self.downsample = nn.Sequential(
            ConvBnAct(3, c32, 3, stride=2), SeparableConv(c32, c48, stride=2), SeparableConv(c48, c64, stride=2),
        )
        stages: list[nn.Module] = []
        channels = c64
        for out_channels, stride in ((c64, 2), (c96, 2), (c128, 1)):
            for i in range(3):
                stages.append(Bottleneck(channels, out_channels, stride=stride if i == 0 else 1))
                channels = out_channels
        self.extract = nn.Sequential(*stages, PyramidPooling(c128))
        self.fuse = Fusion(c64, c128, c128)
        self.classifier = Classifier(c128, num_classes)
        initialise(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map normalised frames [N, 3, H, W] to class scores [N, classes, ceil(H / 8), ceil(W / 8)]."""
        fine = self.downsample(x_NCHW)
        y_NChw: Tensor = self.classifier(self.fuse(fine, self.extract(fine)))
        return y_NChw


def build(section: ModelSection, num_classes: int) -> nn.Module:
    """Build from `[model]`."""
    return FastScnn(num_classes, section.width)
