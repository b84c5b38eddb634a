"""The instance contract in torch: what every exported graph is compared with.

Legend: N = frames (1), H/W = rows/columns at model size, K = slots, m = 28.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.models.decision import normalise


def as_bytes(masks_Kmm: Tensor) -> Tensor:
    """Probabilities 0..1 as uint8 0..255, rounded."""
    return (masks_Kmm * 255.0 + 0.5).to(torch.uint8)


class InstanceContractModule(nn.Module):
    """The reference: uint8 frame [1, H, W, 3] in; `detections` float32 [K, 6] and `masks` uint8 [K, 28, 28] out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, frame_NHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Answer a frame at model size."""
        found_K6, masks_Kmm = self.net(normalise(frame_NHWC))
        return found_K6, as_bytes(masks_Kmm)
