"""The losses. Adding one = one new file beside this one + one line in `LOSSES` + its name in `edgeseg.core.config.LOSS_NAMES`."""

from __future__ import annotations

from typing import Final

from edgeseg.training.losses.base import Loss
from edgeseg.training.losses.boundary import boundary
from edgeseg.training.losses.cross_entropy import binary_cross_entropy, cross_entropy, focal
from edgeseg.training.losses.lovasz import lovasz_softmax
from edgeseg.training.losses.region import dice, iou, tversky

LOSSES: Final[dict[str, Loss]] = {
    "ce": cross_entropy,
    "dice": dice,
    "bce": binary_cross_entropy,
    "focal": focal,
    "iou": iou,
    "tversky": tversky,
    "lovasz": lovasz_softmax,
    "boundary": boundary,
}
"""Name in `[train] loss` -> loss. A sum is taken in this order, whatever the order in the file."""
