"""Rounding to 8 bits with a gradient: the arithmetic of Jacob et al. 2018, arXiv:1712.05877, section 3, in floats.

r = S (q - Z): activations one scale and zero point a tensor, 256 values that hold 0 exactly; weights one scale an output channel, Z = 0,
-127 to 127. What is rounded passes gradients as if it were not, what is clipped passes none (straight-through); the ends of an
activation's range learn too (Esser et al. 2020, arXiv:1902.08153; with an offset Bhalgat et al. 2020, arXiv:2004.09576).
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

LEVELS: Final = 255
"""Steps of an activation's range."""
_WEIGHT_LEVELS: Final = 127
_SMALLEST: Final = 1e-8
"""Of a scale, so that a tensor of zeros divides by something."""


def fake_weights(weight: Tensor, *, axis: int) -> Tensor:
    """Round weights to int8, symmetric, one scale for each index of `axis` (that of the output channels)."""
    others = [i for i in range(weight.ndim) if i != axis]
    scale = (weight.detach().abs().amax(dim=others) / _WEIGHT_LEVELS).clamp(min=_SMALLEST)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -_WEIGHT_LEVELS, _WEIGHT_LEVELS)


def grid(low_K: Tensor, high_K: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and zero points (not yet rounded) of ranges low <= 0 <= high, with gradients for the ends."""
    scale_K = ((high_K - low_K) / LEVELS).clamp(min=_SMALLEST)
    return scale_K, (-low_K / scale_K).clamp(0, LEVELS)


def fake_activations(x: Tensor, scale_1: Tensor, zero_1: Tensor) -> Tensor:
    """Round activations to 8 bits; `scale_1` and `zero_1` of `grid`, one value each.

    The gradient of the range is scaled as in LSQ, section 2.2: by 1 / sqrt(values x steps), so that it is of the size of the weights'.
    """
    factor = 1 / math.sqrt(x.numel() * LEVELS)
    return torch._fake_quantize_learnable_per_tensor_affine(x, scale_1, zero_1, 0, LEVELS, factor)
