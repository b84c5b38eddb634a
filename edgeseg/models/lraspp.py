"""LR-ASPP on MobileNetV3: Howard et al. 2019, arXiv:1905.02244. Scores at 1/8 of the frame.

`large` is the network torchvision ships (full last block, dilated from stride 16); `small` has the channels of the last block halved,
expansions included, as the paper does for segmentation (section 6.4): so counted, small has 0.467 M parameters and large would have
1.506 M, against the 0.47 M and 1.51 M of the paper's table 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.models.blocks import ConvBnAct, Network, enlarge, initialise, pool_to, scaled, size_of

# kernel, expanded channels, output channels, squeeze-and-excite, hard-swish, stride (tables 1 and 2 of the paper).
# The last stage keeps stride 16: its first depthwise convolution is not strided, and the stage is dilated by 2.
Row = tuple[int, int, int, bool, bool, int]
LARGE: Final[tuple[Row, ...]] = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)
SMALL: Final[tuple[Row, ...]] = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means (1709.01507), with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = scaled(channels / 4)
        self.gate = nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1), nn.Hardsigmoid())

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Gate [N, C, h, w]; the shape stays."""
        y_NChw: Tensor = x_NChw * self.gate(pool_to(x_NChw, 1))
        return y_NChw


class InvertedResidual(nn.Module):
    """Expand, depthwise, optional squeeze-and-excite, project; a sum where the shapes allow it (paper, figure 4)."""

    def __init__(self, in_channels: int, expanded: int, out_channels: int, *, kernel: int, stride: int, dilation: int, excite: bool,
                 act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.residual = stride == 1 and in_channels == out_channels
        layers: list[nn.Module] = []
        if expanded != in_channels:
            layers.append(ConvBnAct(in_channels, expanded, act=act))
        layers.append(ConvBnAct(expanded, expanded, kernel, stride=stride, dilation=dilation, groups=expanded, act=act))
        if excite:
            layers.append(SqueezeExcite(expanded))
        layers.append(ConvBnAct(expanded, out_channels, act=nn.Identity))
        self.body = nn.Sequential(*layers)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, out, ceil(h / stride), ceil(w / stride)]."""
        y_NChw: Tensor = self.body(x_NChw)
        return x_NChw + y_NChw if self.residual else y_NChw


class LrAsppHead(nn.Module):
    """Lite R-ASPP (paper, figure 10): 1x1 features gated by their global mean, plus class scores from 1/8 of the frame."""

    def __init__(self, fine: int, coarse: int, inner: int, num_classes: int) -> None:
        super().__init__()
        self.features = ConvBnAct(coarse, inner)
        self.gate = nn.Sequential(nn.Conv2d(coarse, inner, 1, bias=False), nn.Sigmoid())
        self.fine_scores = nn.Conv2d(fine, num_classes, 1)
        self.coarse_scores = nn.Conv2d(inner, num_classes, 1)

    def forward(self, fine_NChw: Tensor, coarse_NChw: Tensor) -> Tensor:
        """Class scores at the fine size.

        The 1x1 scores are taken before the resize (both are linear, and the weights of a bilinear resize sum to 1, so the answer is
        the same); the resize then moves class scores instead of 128 channels.
        """
        gated = self.features(coarse_NChw) * self.gate(pool_to(coarse_NChw, 1))
        scores: Tensor = enlarge(self.coarse_scores(gated), size_of(fine_NChw), 2) + self.fine_scores(fine_NChw)
        return scores


class LrAspp(Network):
    """MobileNetV3 at stride 16 with the Lite R-ASPP head."""

    class_layers = ("classifier.fine_scores", "classifier.coarse_scores")

    def __init__(self, num_classes: int, rows: tuple[Row, ...], *, width: float = 1.0, halve_last: bool) -> None:
        super().__init__()
        channels = scaled(16, width)
        blocks: list[nn.Module] = [ConvBnAct(3, channels, 3, stride=2, act=nn.Hardswish)]
        stride, dilation, fine = 2, 1, 0
        for kernel, expanded, out_channels, excite, hard_swish, row_stride in rows:
            last_stage = dilation == 2 or (stride == 16 and row_stride == 2)
            if row_stride == 2 and stride == 8:
                self.fine_at = len(blocks)
                fine = channels
            dilation = 2 if last_stage else 1
            share = 0.5 if last_stage and halve_last else 1.0
            blocks.append(InvertedResidual(
                channels, scaled(expanded * share, width), scaled(out_channels * share, width), kernel=kernel,
                stride=1 if last_stage else row_stride, dilation=dilation, excite=excite, act=nn.Hardswish if hard_swish else nn.ReLU,
            ))
            channels = scaled(out_channels * share, width)
            stride = stride if last_stage else stride * row_stride
        blocks.append(ConvBnAct(channels, 6 * channels, act=nn.Hardswish))
        self.stem = nn.Sequential(*blocks[: self.fine_at])
        self.body = nn.Sequential(*blocks[self.fine_at :])
        self.classifier = LrAsppHead(fine, 6 * channels, scaled(128, width), num_classes)
        initialise(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map normalised frames [N, 3, H, W] to class scores [N, classes, ceil(H / 8), ceil(W / 8)]."""
        fine = self.stem(x_NCHW)
        y_NChw: Tensor = self.classifier(fine, self.body(fine))
        return y_NChw


def build_large(section: ModelSection, num_classes: int) -> nn.Module:
    """Build the large network from `[model]`."""
    return LrAspp(num_classes, LARGE, width=section.width, halve_last=False)


def build_small(section: ModelSection, num_classes: int) -> nn.Module:
    """Build the small network from `[model]`."""
    return LrAspp(num_classes, SMALL, width=section.width, halve_last=True)
