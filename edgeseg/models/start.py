"""The network a training starts from. A checkpoint needs none of this: it has its weights."""

from __future__ import annotations

from torch import nn

from edgeseg.core.config import ModelSection
from edgeseg.models.encoders import load_encoder_weights
from edgeseg.models.factory import check_scores
from edgeseg.models.registry import build


def start(section: ModelSection, num_classes: int, *, seed: int, size_hw: tuple[int, int], crop_hw: tuple[int, int]) -> nn.Module:
    """Build the network of `[model]`, put the starting weights into its encoder, run a network of the user's once.

    `size_hw` is what it will answer at, `crop_hw` what it will be trained at; [0, 0] = the same.

    Raises:
        ConfigError: see `build`, `load_encoder_weights` and `check_scores`.
        MissingExtraError: the package that carries the weights is not installed.
        InputMissingError: the file of weights does not exist.
    """
    net = build(section, num_classes, seed=seed)
    load_encoder_weights(net, section)
    check_scores(net, section, 1 if section.one_score else num_classes, size_hw=size_hw, crop_hw=crop_hw if crop_hw[0] else size_hw)
    return net
