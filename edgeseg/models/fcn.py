"""FCN-32s, FCN-16s and FCN-8s: Long, Shelhamer, Darrell 2015, arXiv:1411.4038, on VGG-16 as in the paper or on any encoder.

On VGG-16 the fully connected layers are convolutions (7x7 and 1x1 to 4096 channels), and the scores of pool4 and pool3 are added on the
way up. Three things differ. VGG-16 has norms. The frame is not padded by 100 pixels: the 7x7 convolution is padded instead, so scores
lie where their pixels are. All enlarging is bilinear and fixed, as in the paper's last layer; the two layers that the paper starts as
bilinear and lets learn would be 14 thousand of 134 million parameters. On another encoder the head is a 3x3 convolution to a quarter
of its channels, as torchvision's FCN has, because 7 x 7 x 2048 x 4096 would be 411 million parameters alone.

Scores are given at 1/8 by all three, enlarged by exactly the stride (`edgeseg.models.blocks.enlarge`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.core.encoders import encoder_of
from edgeseg.models.blocks import Network, enlarge, initialise, scaled, size_of
from edgeseg.models.encoders import Encoder, build_encoder
from edgeseg.models.encoders.base import halve
from edgeseg.models.heads import ConvHead


class FullyConvolutional(nn.Module):
    """VGG's fully connected layers as convolutions, each with ReLU and dropout, then class scores (paper, section 3.1)."""

    def __init__(self, in_channels: int, inner: int, num_classes: int) -> None:
        super().__init__()
        self.fc6, self.fc7 = nn.Conv2d(in_channels, inner, 7, padding=3), nn.Conv2d(inner, inner, 1)
        self.relu, self.dropout = nn.ReLU(), nn.Dropout(0.5)
        self.scores = nn.Conv2d(inner, num_classes, 1)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, in, h, w] to [N, classes, h, w]."""
        y_NChw = self.dropout(self.relu(self.fc6(x_NChw)))
        y_NChw = self.dropout(self.relu(self.fc7(y_NChw)))
        scores: Tensor = self.scores(y_NChw)
        return scores

    def take_classifier(self, weights: Mapping[str, Tensor]) -> None:
        """Start `fc6` and `fc7` from the fully connected layers of torchvision's VGG, where a file has them at this width (paper, 4.1)."""
        for key, layer in (("classifier.0", self.fc6), ("classifier.3", self.fc7)):
            weight, bias = weights.get(f"{key}.weight"), weights.get(f"{key}.bias")
            if weight is not None and bias is not None and weight.numel() == layer.weight.numel():
                assert layer.bias is not None
                with torch.no_grad():
                    layer.weight.copy_(weight.view_as(layer.weight))
                    layer.bias.copy_(bias)


class Fcn(Network):
    """Scores of the coarsest map, and of those down to stride `finest`, summed on the way up."""

    def __init__(self, num_classes: int, encoder: Encoder, finest: int, width: float = 1.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.added = tuple(stride for stride in (16, 8) if stride >= finest)
        channels = dict(zip(encoder.strides, encoder.channels, strict=True))
        # A network that pools between its stages has pool3 at 1/8: the map of 1/4, pooled.
        self.taken = {stride: stride // 2 if encoder.maps_before_pooling else stride for stride in self.added}
        if encoder.maps_before_pooling:
            self.classifier: nn.Module = FullyConvolutional(channels[32], scaled(4096, width), num_classes)
        else:
            self.classifier = ConvHead(channels[32], scaled(channels[32] / 4), num_classes)
        self.skips = nn.ModuleList(nn.Conv2d(channels[self.taken[stride]], num_classes, 1) for stride in self.added)
        self.class_layers = ("classifier.scores", *(f"skips.{i}" for i in range(len(self.added))))
        initialise(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map normalised frames [N, 3, H, W] to class scores [N, classes, ceil(H / 8), ceil(W / 8)]."""
        maps = dict(zip(self.encoder.strides, self.encoder(x_NCHW), strict=True))
        scores, at = self.classifier(maps[32]), 32
        for stride, skip in zip(self.added, self.skips, strict=True):
            fine = maps[self.taken[stride]]
            fine = halve(fine) if self.encoder.maps_before_pooling else fine
            scores, at = enlarge(scores, size_of(fine), 2) + skip(fine), stride
        if at > 8:
            height, width = size_of(x_NCHW)
            scores = enlarge(scores, (-(-height // 8), -(-width // 8)), at // 8)
        answer: Tensor = scores
        return answer


def _build(section: ModelSection, num_classes: int, finest: int) -> nn.Module:
    return Fcn(num_classes, build_encoder(encoder_of(section), section.width), finest, section.width)


def build_32s(section: ModelSection, num_classes: int) -> nn.Module:
    """Build FCN-32s from `[model]`."""
    return _build(section, num_classes, 32)


def build_16s(section: ModelSection, num_classes: int) -> nn.Module:
    """Build FCN-16s from `[model]`."""
    return _build(section, num_classes, 16)


def build_8s(section: ModelSection, num_classes: int) -> nn.Module:
    """Build FCN-8s from `[model]`."""
    return _build(section, num_classes, 8)
