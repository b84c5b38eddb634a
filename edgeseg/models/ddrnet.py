"""DDRNet-23-slim: Hong et al. 2021, arXiv:2101.06085. Two residual branches, at 1/8 and down to 1/64, fused twice; scores at 1/8.

Layers as in the authors' implementation. Its one auxiliary head reads the fine branch after the first fusion.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.models.blocks import ConvBnAct, enlarge, initialise, scaled, size_of
from edgeseg.models.dual_resolution import BasicBlock, Bottleneck, NormFirstHead, PooledContext, norm_first, stage
from edgeseg.models.heads import NetworkWithHeads
from edgeseg.models.outputs import Outputs

AUX_WEIGHT: Final = 0.4
"""Weight of the auxiliary loss (paper, section IV-C, after PSPNet)."""


class DeepAggregation(nn.Module):
    """Deep aggregation pyramid pooling, DAPPM (paper, figure 5): each context is added to the one before and convolved."""

    def __init__(self, in_channels: int, inner: int, out_channels: int) -> None:
        super().__init__()
        self.context = PooledContext(in_channels, inner)
        self.process = nn.ModuleList(norm_first(inner, inner, 3) for _ in range(4))
        self.compress = norm_first(5 * inner, out_channels)
        self.shortcut = norm_first(in_channels, out_channels)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, h, w]."""
        itself, context = self.context(x_NChw)
        maps = [itself]
        for process, wider in zip(self.process, context, strict=True):
            maps.append(process(maps[-1] + wider))
        y_NChw: Tensor = self.compress(torch.cat(maps, dim=1)) + self.shortcut(x_NChw)
        return y_NChw


class DdrNet(NetworkWithHeads):
    """DDRNet-23 with 32 `width` channels at 1/4."""

    aux_layers = ("aux",)

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        c = scaled(32, width)
        self.stem = nn.Sequential(
            ConvBnAct(3, c, 3, stride=2), ConvBnAct(c, c, 3, stride=2),
            BasicBlock(c, c), BasicBlock(c, c), *stage(c, 2 * c, 2, stride=2), nn.ReLU(),
        )
        self.fine3, self.fine4, self.fine5 = stage(2 * c, 2 * c, 2), stage(2 * c, 2 * c, 2), Bottleneck(2 * c, 2 * c)
        self.coarse3, self.coarse4 = stage(2 * c, 4 * c, 2, stride=2), stage(4 * c, 8 * c, 2, stride=2)
        self.coarse5 = Bottleneck(8 * c, 8 * c, stride=2)
        self.up3, self.up4 = ConvBnAct(4 * c, 2 * c, act=nn.Identity), ConvBnAct(8 * c, 2 * c, act=nn.Identity)
        self.down3 = ConvBnAct(2 * c, 4 * c, 3, stride=2, act=nn.Identity)
        self.down4 = nn.Sequential(ConvBnAct(2 * c, 4 * c, 3, stride=2), ConvBnAct(4 * c, 8 * c, 3, stride=2, act=nn.Identity))
        self.context = DeepAggregation(16 * c, scaled(128, width), 4 * c)
        self.classifier = NormFirstHead(4 * c, scaled(64, width), num_classes)
        self.aux = NormFirstHead(2 * c, scaled(64, width), num_classes)
        initialise(self)

    def run(self, x_NCHW: Tensor, *, heads: bool, loose: list[Tensor] | None = None) -> Outputs:
        """Scores [N, classes, ceil(H / 8), ceil(W / 8)], those of the auxiliary head alike."""
        x = self.stem(x_NCHW)
        size = size_of(x)
        fine, coarse = self.fine3(x), self.coarse3(x)
        fused = coarse + self.down3(torch.relu(fine))
        fine = fine + enlarge(self.up3(torch.relu(coarse)), size, 2)
        after_first = fine
        fine, coarse = self.fine4(torch.relu(fine)), self.coarse4(torch.relu(fused))
        fused = coarse + self.down4(torch.relu(fine))
        fine = self.fine5(torch.relu(fine + enlarge(self.up4(torch.relu(coarse)), size, 4)))
        context = enlarge(self.context(self.coarse5(torch.relu(fused))), size, 8)
        main = self.classifier(fine + context)
        return Outputs(main, (self.aux(after_first),), (AUX_WEIGHT,)) if heads else Outputs(main)


def build(section: ModelSection, num_classes: int) -> nn.Module:
    """Build from `[model]`."""
    return DdrNet(num_classes, section.width)
