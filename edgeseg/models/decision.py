"""The contract in torch: what every exported graph is compared with, bit for bit where the arithmetic allows it.

Legend: N = frames, C = classes (1 for a threshold), H/W = rows/columns at model size, h/w = rows/columns at the network's stride.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.core.manifest import Contract

MEAN_RGB: Final = (124.0, 116.0, 104.0)
"""Mean of ImageNet's pixels, of 0..255, in whole numbers: a border of the mean colour can then be drawn on the raw frame exactly."""
STD_RGB: Final = (58.395, 57.12, 57.375)
"""Standard deviation of ImageNet's pixels, of 0..255."""


def normalise(frame_NHWC: Tensor) -> Tensor:
    """Turn uint8 frames [N, H, W, 3] into float32 `x_NCHW`: (value - mean) / standard deviation, per channel."""
    x_NCHW = frame_NHWC.permute(0, 3, 1, 2).to(torch.float32)
    mean = torch.tensor(MEAN_RGB, device=x_NCHW.device).view(1, 3, 1, 1)
    scale = torch.tensor([1.0 / std for std in STD_RGB], device=x_NCHW.device).view(1, 3, 1, 1)
    return (x_NCHW - mean) * scale


def upsample_logits(logits_NChw: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Bilinear to model size with pixel centres at half (align_corners=False): the definition every runtime is held to."""
    if tuple(logits_NChw.shape[2:]) == tuple(size_hw):
        return logits_NChw
    return F.interpolate(logits_NChw, size_hw, mode="bilinear", align_corners=False)


def threshold_logit(threshold: float) -> float:
    """Logit at which the probability of class 1 equals `threshold`: ln(t / (1 - t)), infinite at 0 and 1."""
    if threshold <= 0:
        return -math.inf
    return math.inf if threshold >= 1 else math.log(threshold / (1 - threshold))


def decide(logits_NCHW: Tensor, contract: Contract) -> Tensor:
    """Class map uint8 [N, H, W] from scores at model size.

    `argmax`: the class with the largest score, the first of equals. `threshold`: class 1 where the probability lies above the
    contract's threshold, else 0; the probability is the sigmoid of one score, or the softmax's second of two.
    """
    if contract.decision == "threshold":
        assert contract.threshold is not None  # validated when the contract was read
        score = logits_NCHW[:, 0] if logits_NCHW.shape[1] == 1 else logits_NCHW[:, 1] - logits_NCHW[:, 0]
        return (score > threshold_logit(contract.threshold)).to(torch.uint8)
    return logits_NCHW.argmax(dim=1).to(torch.uint8)


class ContractModule(nn.Module):
    """The reference: uint8 frame [N, H, W, 3] in, uint8 class map [N, H, W] out; normalisation and decision inside."""

    def __init__(self, net: nn.Module, contract: Contract) -> None:
        super().__init__()
        self.net = net
        self.contract = contract

    def forward(self, frame_NHWC: Tensor) -> Tensor:
        """Answer frames at the contract's size."""
        logits = self.net(normalise(frame_NHWC))
        return decide(upsample_logits(logits, (self.contract.height, self.contract.width)), self.contract)
