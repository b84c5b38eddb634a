"""PIDNet-S: Xu, Xiong, Bhattacharyya 2023, arXiv:2206.02066. Branches for detail (P), context (I) and boundaries (D); scores at 1/8.

Layers as in the authors' implementation. While it trains, a head on the P branch learns the classes and one on the D branch the boundaries.
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
"""Weight of the P branch's loss (paper, section 3.4, lambda 0)."""


class ParallelAggregation(nn.Module):
    """Parallel aggregation pyramid pooling, PAPPM (paper, figure 6): DAPPM with its four contexts convolved side by side.

    The paper's one convolution in four groups is four convolutions here: the same function, and pruning can follow it.
    """

    def __init__(self, in_channels: int, inner: int, out_channels: int) -> None:
        super().__init__()
        self.context = PooledContext(in_channels, inner)
        self.process = nn.ModuleList(norm_first(inner, inner, 3) for _ in range(4))
        self.compress = norm_first(5 * inner, out_channels)
        self.shortcut = norm_first(in_channels, out_channels)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, h, w]."""
        itself, context = self.context(x_NChw)
        maps = [process(itself + wider) for process, wider in zip(self.process, context, strict=True)]
        y_NChw: Tensor = self.compress(torch.cat([itself, *maps], dim=1)) + self.shortcut(x_NChw)
        return y_NChw


class PixelAttention(nn.Module):
    """Pixel-attention-guided fusion, Pag (paper, equations 4 and 5): take the coarse map where both maps agree, else the fine one."""

    def __init__(self, coarse: int, channels: int, inner: int) -> None:
        super().__init__()
        self.compress = ConvBnAct(coarse, channels, act=nn.Identity)
        self.fine_key = ConvBnAct(channels, inner, act=nn.Identity)
        self.coarse_key = ConvBnAct(channels, inner, act=nn.Identity)

    def forward(self, fine_NChw: Tensor, coarse_NChw: Tensor, factor: int, loose: list[Tensor] | None) -> Tensor:
        """Fuse at the fine size; see `NetworkWithHeads.run` for `loose`."""
        size = size_of(fine_NChw)
        coarse = self.compress(coarse_NChw)
        product_NChw = self.fine_key(fine_NChw) * enlarge(self.coarse_key(coarse), size, factor)
        gate_N1hw = torch.sigmoid(product_NChw.sum(dim=1, keepdim=True))
        if loose is not None:
            loose.append(product_NChw)
            gate_N1hw = gate_N1hw.detach()
        return fine_NChw + gate_N1hw * (enlarge(coarse, size, factor) - fine_NChw)


class BoundaryFusion(nn.Module):
    """Light boundary-attention-guided fusion, Bag (paper, equations 8 and 9): detail where there is a boundary, else context."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = ConvBnAct(channels, channels, act=nn.Identity)
        self.context = ConvBnAct(channels, channels, act=nn.Identity)

    def forward(self, detail_NChw: Tensor, context_NChw: Tensor, boundary_NChw: Tensor) -> Tensor:
        """Fuse three maps of one shape."""
        gate = torch.sigmoid(boundary_NChw)
        detail = self.detail(detail_NChw + (1 - gate) * context_NChw)
        y_NChw: Tensor = detail + self.context(context_NChw + gate * detail_NChw)
        return y_NChw


class PidNet(NetworkWithHeads):
    """PIDNet-S with 32 `width` channels at 1/4."""

    aux_layers = ("aux", "boundary")

    def __init__(self, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        c = scaled(32, width)
        self.stem = nn.Sequential(
            ConvBnAct(3, c, 3, stride=2), ConvBnAct(c, c, 3, stride=2),
            *stage(c, c, 2), nn.ReLU(), *stage(c, 2 * c, 2, stride=2), nn.ReLU(),
        )
        self.context3, self.context4 = stage(2 * c, 4 * c, 3, stride=2), stage(4 * c, 8 * c, 3, stride=2)
        self.context5 = nn.Sequential(Bottleneck(8 * c, 8 * c, stride=2), Bottleneck(16 * c, 8 * c))
        self.pyramid = ParallelAggregation(16 * c, scaled(96, width), 4 * c)
        self.detail3, self.detail4, self.detail5 = stage(2 * c, 2 * c, 2), stage(2 * c, 2 * c, 2), Bottleneck(2 * c, 2 * c)
        self.attend3, self.attend4 = PixelAttention(4 * c, 2 * c, c), PixelAttention(8 * c, 2 * c, c)
        self.boundary3 = BasicBlock(2 * c, c, relu=False)
        self.boundary4, self.boundary5 = Bottleneck(c, c), Bottleneck(2 * c, 2 * c)
        self.differ3, self.differ4 = ConvBnAct(4 * c, c, 3, act=nn.Identity), ConvBnAct(8 * c, 2 * c, 3, act=nn.Identity)
        self.fuse = BoundaryFusion(4 * c)
        self.classifier = NormFirstHead(4 * c, scaled(128, width), num_classes)
        self.aux = NormFirstHead(2 * c, scaled(128, width), num_classes)
        self.boundary = NormFirstHead(2 * c, c, 1)
        initialise(self)

    def run(self, x_NCHW: Tensor, *, heads: bool, loose: list[Tensor] | None = None) -> Outputs:
        """Scores [N, classes, ceil(H / 8), ceil(W / 8)], those of the auxiliary head and the boundary's alike."""
        x = self.stem(x_NCHW)
        size = size_of(x)
        context = torch.relu(self.context3(x))
        detail_3 = self.attend3(self.detail3(x), context, 2, loose)
        boundary = self.boundary3(x) + enlarge(self.differ3(context), size, 2)
        context = torch.relu(self.context4(context))
        detail = self.attend4(self.detail4(torch.relu(detail_3)), context, 4, loose)
        boundary_4 = self.boundary4(torch.relu(boundary)) + enlarge(self.differ4(context), size, 4)
        detail, boundary = self.detail5(torch.relu(detail)), self.boundary5(torch.relu(boundary_4))
        context = enlarge(self.pyramid(self.context5(context)), size, 8)
        main = self.classifier(self.fuse(detail, context, boundary))
        return Outputs(main, (self.aux(detail_3),), (AUX_WEIGHT,), self.boundary(boundary_4)) if heads else Outputs(main)


def build(section: ModelSection, num_classes: int) -> nn.Module:
    """Build from `[model]`."""
    return PidNet(num_classes, section.width)
