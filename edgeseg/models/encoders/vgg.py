"""VGG-16 with batch norm: Simonyan, Zisserman 2015, arXiv:1409.1556 (configuration D). Keys as in torchvision's `vgg16_bn`."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from edgeseg.models.blocks import scaled
from edgeseg.models.encoders.base import Encoder, halve

_STAGES: Final = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and 3x3 convolutions of each stage; a 2x2 max-pooling ends it (paper, table 1)."""


class Features(nn.Sequential):
    """Convolutions with bias, norms, ReLUs and poolings at torchvision's indices; poolings round up."""

    def __init__(self, width: float) -> None:
        layers: list[nn.Module] = []
        folds: list[tuple[str, str]] = []
        channels = 3
        for out_channels, num_convs in _STAGES:
            for _ in range(num_convs):
                folds.append((str(len(layers)), str(len(layers) + 1)))
                layers += [nn.Conv2d(channels, scaled(out_channels, width), 3, padding=1), nn.BatchNorm2d(scaled(out_channels, width)),
                           nn.ReLU()]
                channels = scaled(out_channels, width)
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers)
        self.folds = tuple(folds)


class Vgg16(Encoder):
    """Maps: what each of the five poolings gets, at strides 1 to 16, and what the last one gives, at 32."""

    strides = (1, 2, 4, 8, 16, 32)
    head_keys = ("classifier.",)
    maps_before_pooling = True

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.features = Features(width)
        self.channels = (*(scaled(channels, width) for channels, _ in _STAGES), scaled(_STAGES[-1][0], width))

    def forward(self, x_NCHW: Tensor) -> list[Tensor]:
        """See `Encoder.forward`."""
        maps: list[Tensor] = []
        x = x_NCHW
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
                x = halve(x)
            else:
                x = layer(x)
        return [*maps, x]


def build(width: float) -> Encoder:
    """Build VGG-16 with batch norm."""
    return Vgg16(width)
