"""EffNet-Lite: EfficientNet-Lite0 to 2 (arXiv:1905.11946) with a light top-down decoder; scores at 1/4 of the frame.

The encoder starts from ImageNet, the decoder from nothing, and few users have more than a few hundred images: so the decoder is small and
has no layer that only a large data set could train. It is the top-down path of a feature pyramid (Lin et al. 2017, arXiv:1612.03144):
each map is projected to 96 channels by a 1x1 convolution, the coarser sum is enlarged and added, and one separable convolution smooths
the sum. The coarsest map also gets its mean over the frame, projected (Liu et al. 2015, ParseNet, arXiv:1506.04579).

Sums and not concatenations: in int8 the parts of a concatenation have to be brought to one scale, and the convolution after it has to
read all of them. ReLU6 and separable convolutions as in the encoder, so that everything runs in the same int8 kernels. It stops at 1/4:
the encoder's map at 1/2 has 16 channels after one block, and carrying 96 there would cost more than the rest of the decoder.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.core.encoders import encoder_of
from edgeseg.models.blocks import ConvBnAct, Network, enlarge, initialise, pool_to, scaled, size_of
from edgeseg.models.encoders import Encoder, build_encoder

_INNER: Final = 96


class Smooth(nn.Sequential):
    """Depthwise 3x3, then pointwise 1x1, each with norm and ReLU6."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            ConvBnAct(channels, channels, 3, groups=channels, act=nn.ReLU6), ConvBnAct(channels, channels, act=nn.ReLU6),
        )


class Classifier(nn.Module):
    """Dropout, then class scores by a 1x1 convolution."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.1)
        self.scores = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x_NChw: Tensor) -> Tensor:
        """Map [N, channels, h, w] to [N, classes, h, w]."""
        y_NChw: Tensor = self.scores(self.dropout(x_NChw))
        return y_NChw


class EffNetLite(Network):
    """Encoder, mean over the frame, top-down sums from 1/32 to 1/4, scores."""

    def __init__(self, num_classes: int, encoder: Encoder, width: float = 1.0) -> None:
        super().__init__()
        inner = scaled(_INNER, width)
        self.encoder = encoder
        used = [(stride, channels) for stride, channels in zip(encoder.strides, encoder.channels, strict=True) if stride >= 4]
        self.project = nn.ModuleList(ConvBnAct(channels, inner, act=nn.Identity) for _, channels in used)
        self.mean = nn.Conv2d(used[-1][1], inner, 1)  # without norm: one cell a frame, and a batch may be one frame
        self.smooth = nn.ModuleList(Smooth(inner) for _ in used)
        self.classifier = Classifier(inner, num_classes)
        initialise(self)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map normalised frames [N, 3, H, W] to class scores [N, classes, ceil(H / 4), ceil(W / 4)]."""
        maps = self.encoder(x_NCHW)[-len(self.project) :]
        x: Tensor = self.project[-1](maps[-1]) + self.mean(pool_to(maps[-1], 1))
        x = self.smooth[-1](F.relu6(x))
        for i in reversed(range(len(self.project) - 1)):
            fine = self.project[i](maps[i])
            x = self.smooth[i](F.relu6(fine + enlarge(x, size_of(fine), 2)))
        scores: Tensor = self.classifier(x)
        return scores


def build(section: ModelSection, num_classes: int) -> nn.Module:
    """Build from `[model]`; `encoder` names one of efficientnet_lite0 (the default) to 2."""
    return EffNetLite(num_classes, build_encoder(encoder_of(section), section.width), section.width)
