"""The contract in torch: what every exported graph is compared with, bit for bit where the arithmetic allows it.

Legend: N = frames, C = scores a pixel (1 stands for two classes), H/W = rows/columns at model size, h/w = those at the network's stride.
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


def binary_limit(contract: Contract) -> float:
    """Log-odds of class 1 above which it is the answer of a network of one score a pixel, or two: 0 for argmax."""
    if contract.decision == "threshold":
        assert contract.threshold is not None  # validated when the contract was read
        return threshold_logit(contract.threshold)
    if contract.decision == "thresholds":
        assert contract.thresholds is not None
        background, foreground = contract.thresholds
        return math.log(foreground / background)
    return 0.0


def class_offsets(contract: Contract) -> tuple[float, ...] | None:
    """What decision `thresholds` adds to each class's score, -ln t_c; `None` for other decisions."""
    return None if contract.thresholds is None else tuple(-math.log(threshold) for threshold in contract.thresholds)


def decide(logits_NCHW: Tensor, contract: Contract) -> Tensor:
    """Class map uint8 [N, H, W] from scores at model size; p_c is their softmax, and one score s a pixel stands for the two scores 0 and s.

    `argmax`: the class with the largest score, the first of equals.
    `threshold`: class 1 where p_1 lies above the contract's threshold, else 0.
    `thresholds`: among the classes with p_c > t_c the one with the largest p_c / t_c. The thresholds sum to 1, as the probabilities do, so
    the largest ratio is at least 1 and belongs to such a class (but where p = t, and all are equal: then the first). Hence the answer is
    the argmax of p_c / t_c, which is that of score_c - ln t_c: no softmax is computed, and equal thresholds are plain argmax. With two
    classes it is `threshold` with t_1.
    """
    if logits_NCHW.shape[1] == 1 or contract.decision == "threshold":
        score = logits_NCHW[:, 0] if logits_NCHW.shape[1] == 1 else logits_NCHW[:, 1] - logits_NCHW[:, 0]
        return (score > binary_limit(contract)).to(torch.uint8)
    offsets = class_offsets(contract)
    if offsets is not None:
        logits_NCHW = logits_NCHW + torch.tensor(offsets, dtype=logits_NCHW.dtype, device=logits_NCHW.device).view(1, -1, 1, 1)
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
