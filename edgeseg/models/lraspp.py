"""LR-ASPP on MobileNetV3: Howard et al. 2019, arXiv:1905.02244. Scores at 1/8 of the frame.

`large` is the network torchvision ships (full last block, dilated from stride 16); `small` has the channels of the last block halved,
expansions included, as the paper does for segmentation (section 6.4): so counted, small has 0.467 M parameters and large would have
1.506 M, against the 0.47 M and 1.51 M of the paper's table 7.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.models.blocks import ConvBnAct, Network, enlarge, initialise, pool_to, scaled, size_of
from edgeseg.models.encoders import mobilenet_v3
from edgeseg.models.encoders.mobilenet_v3 import LARGE, SMALL, Row


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
        self.encoder = mobilenet_v3.build(rows, width, dense=True, halve_last=halve_last)
        *_, fine, coarse = self.encoder.channels
        self.classifier = LrAsppHead(fine, coarse, scaled(128, width), num_classes)
        initialise(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map normalised frames [N, 3, H, W] to class scores [N, classes, ceil(H / 8), ceil(W / 8)]."""
        *_, fine, coarse = self.encoder(x_NCHW)
        y_NChw: Tensor = self.classifier(fine, coarse)
        return y_NChw


def build_large(section: ModelSection, num_classes: int) -> nn.Module:
    """Build the large network from `[model]`."""
    return LrAspp(num_classes, LARGE, width=section.width, halve_last=False)


def build_small(section: ModelSection, num_classes: int) -> nn.Module:
    """Build the small network from `[model]`."""
    return LrAspp(num_classes, SMALL, width=section.width, halve_last=True)
