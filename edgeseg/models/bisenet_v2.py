"""BiSeNetV2: Yu et al. 2021, arXiv:2004.02147. A wide, shallow branch for detail, a narrow, deep one for semantics; scores at 1/8.

Layers after the paper's table 1; what it leaves open (norms, the width of the heads) as in the public re-implementations. Four booster
heads on the semantic branch train it and do not ship.
"""

from __future__ import annotations

import functools
import itertools
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.models.blocks import ConvBnAct, NormAct, enlarge, initialise, pool_to, scaled, size_of
from edgeseg.models.heads import ConvHead, NetworkWithHeads
from edgeseg.models.outputs import Outputs

_EXPANSION: Final = 6
_BOOSTER_CHANNELS: Final = 128


def _same_pool(x_NChw: Tensor) -> Tensor:
    """3x3 max-pooling with stride 2 to ceil(n / 2) cells. After a ReLU a border of zeros changes no maximum, and stays int8."""
    return F.max_pool2d(F.pad(x_NChw, (1, 1, 1, 1)), 3, 2)


class Stem(nn.Module):
    """To 1/4 by a convolution and by pooling, concatenated (paper, figure 4 a)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = scaled(channels / 2)
        self.first = ConvBnAct(3, channels, 3, stride=2)
        self.left = nn.Sequential(ConvBnAct(channels, narrow), ConvBnAct(narrow, channels, 3, stride=2))
        self.fuse = ConvBnAct(2 * channels, channels, 3)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map [N, 3, H, W] to [N, channels, ceil(H / 4), ceil(W / 4)]."""
        x_NChw = self.first(x_NCHW)
        y_NChw: Tensor = self.fuse(torch.cat([self.left(x_NChw), _same_pool(x_NChw)], dim=1))
        return y_NChw


class ExpandingDepthwise(nn.Module):
    """Depthwise 3x3 convolution with six outputs a channel, where strided then another one; as six plain branches side by side.

    The same function as the paper's up to the order of channels. Pruning cannot follow a channel multiplier, and runtimes are no faster
    with one: 32 to 192 channels at 48x64 between two 1x1 convolutions, one thread, minimum of 200, take 0.62 ms in ONNX Runtime (0.86 with
    a multiplier), 0.78 in LiteRT (0.98) and 1.87 in OpenVINO (1.91).
    """

    def __init__(self, channels: int, *, stride: int) -> None:
        super().__init__()
        last = functools.partial(ConvBnAct, channels, channels, 3, groups=channels)
        first = functools.partial(last, stride=2, act=nn.Identity)
        self.branches = nn.ModuleList(nn.Sequential(first(), last()) if stride == 2 else last() for _ in range(_EXPANSION))

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, 6 C, ceil(h / stride), ceil(w / stride)]."""
        return torch.cat([branch(x_NChw) for branch in self.branches], dim=1)


class GatherExpand(nn.Module):
    """Gather-and-expansion layer (paper, figure 5): 3x3, expanding depthwise, projection, sum."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvBnAct(in_channels, in_channels, 3),
            ExpandingDepthwise(in_channels, stride=stride),
            ConvBnAct(_EXPANSION * in_channels, out_channels, act=nn.Identity),
        )
        self.shortcut = nn.Sequential(
            ConvBnAct(in_channels, in_channels, 3, stride=2, groups=in_channels, act=nn.Identity),
            ConvBnAct(in_channels, out_channels, act=nn.Identity),
        ) if stride == 2 else nn.Identity()

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / stride), ceil(w / stride)]."""
        return torch.relu(self.body(x_NChw) + self.shortcut(x_NChw))


class ContextEmbedding(nn.Module):
    """Add the frame's mean, normed and projected, to every cell (paper, figure 4 b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = NormAct(channels, act=nn.Identity)
        self.project = ConvBnAct(channels, channels)
        self.last = ConvBnAct(channels, channels, 3)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, C, h, w] to the same shape."""
        y_NChw: Tensor = self.last(x_NChw + self.project(self.norm(pool_to(x_NChw, 1))))
        return y_NChw


class GuidedAggregation(nn.Module):
    """Each branch gates the other at its own scale, then both are summed at 1/8 (paper, figure 6)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = self._separable(channels)
        self.detail_down = ConvBnAct(channels, channels, 3, stride=2, act=nn.Identity)
        self.semantic = self._separable(channels)
        self.semantic_up = ConvBnAct(channels, channels, 3, act=nn.Identity)
        self.last = ConvBnAct(channels, channels, 3)

    @staticmethod
    def _separable(channels: int) -> nn.Sequential:
        return nn.Sequential(
            ConvBnAct(channels, channels, 3, groups=channels, act=nn.Identity), nn.Conv2d(channels, channels, 1, bias=False),
        )

    def forward(self, detail_NChw: Tensor, semantic_NChw: Tensor) -> Tensor:
        """Fuse [N, C, h, w] at 1/8 and [N, C, ceil(h / 4), ceil(w / 4)] into [N, C, h, w]."""
        size = size_of(detail_NChw)
        down_NChw = F.avg_pool2d(F.pad(self.detail_down(detail_NChw), (1, 1, 1, 1)), 3, 2)
        fine = self.detail(detail_NChw) * torch.sigmoid(enlarge(self.semantic_up(semantic_NChw), size, 4))
        coarse = down_NChw * torch.sigmoid(self.semantic(semantic_NChw))
        y_NChw: Tensor = self.last(fine + enlarge(coarse, size, 4))
        return y_NChw


class BiSeNetV2(NetworkWithHeads):
    """Detail branch, semantic branch, guided aggregation, head."""

    aux_layers = ("boosters",)

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        d64, d128 = scaled(64, width), scaled(128, width)
        semantic = tuple(scaled(c, width) for c in (16, 32, 64, 128))
        detail: list[nn.Module] = []
        channels = 3
        for out_channels, num_convs in ((d64, 2), (d64, 3), (d128, 3)):
            for i in range(num_convs):
                detail.append(ConvBnAct(channels, out_channels, 3, stride=2 if i == 0 else 1))
                channels = out_channels
        self.detail = nn.Sequential(*detail)
        stages: list[nn.Module] = [Stem(semantic[0])]
        for (a, b), num_layers in zip(itertools.pairwise(semantic), (2, 2, 4), strict=True):
            stages.append(nn.Sequential(*(GatherExpand(a, b, stride=2) if i == 0 else GatherExpand(b, b) for i in range(num_layers))))
        self.semantic = nn.ModuleList(stages)
        self.context = ContextEmbedding(d128)
        self.aggregate = GuidedAggregation(d128)
        self.classifier = ConvHead(d128, scaled(1024, width), num_classes)
        self.boosters = nn.ModuleList(ConvHead(c, scaled(_BOOSTER_CHANNELS, width), num_classes) for c in semantic)
        initialise(self)

    def run(self, x_NCHW: Tensor, *, heads: bool, loose: list[Tensor] | None = None) -> Outputs:
        """Scores [N, classes, ceil(H / 8), ceil(W / 8)]; those of the boosters at 1/4 and, brought up from 1/16 and 1/32, at 1/8."""
        detail = self.detail(x_NCHW)
        features: list[Tensor] = []
        x = x_NCHW
        for stage in self.semantic:
            x = stage(x)
            features.append(x)
        main = self.classifier(self.aggregate(detail, self.context(x)))
        if not heads:
            return Outputs(main)
        quarter, eighth, *coarser = (booster(feature) for booster, feature in zip(self.boosters, features, strict=True))
        enlarged = [enlarge(scores, size_of(main), factor) for scores, factor in zip(coarser, (2, 4), strict=True)]
        return Outputs(main, (quarter, eighth, *enlarged), (1.0,) * len(features))


def build(section: ModelSection, num_classes: int) -> nn.Module:
    """Build from `[model]`."""
    return BiSeNetV2(num_classes, section.width)
