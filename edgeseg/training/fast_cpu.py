"""Detours that make a training step on a CPU cheaper.

Measured on a CPU with AVX-512 BF16, one thread, Fast-SCNN at 256x320:

- the backward pass of a *strided* depthwise convolution takes 9.3 ms an image in bf16 and 1.4 ms in fp32 (384 channels at 32x40; the same
  without stride: 0.4 against 0.5 ms), so these few layers stay in fp32 under bf16 autocast;
- bilinear upsampling of the scores by `F.interpolate` takes 17 ms an image forward and backward, of 77 in all; as two products with its
  constant interpolation matrices about 3 ms.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def keep_strided_depthwise_in_fp32(net: nn.Module) -> None:
    """Let strided depthwise convolutions of `net` compute in fp32 under CPU autocast, in place; parameters are untouched.

    The network must not be copied afterwards (its layers' `forward` are bound to it).
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 and module.stride != (1, 1):
            _bind(module)


def _bind(convolution: nn.Conv2d) -> None:
    plain = convolution.forward

    def forward(x_NCHW: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return plain(x_NCHW.float()).to(x_NCHW.dtype)

    convolution.forward = forward  # type: ignore[method-assign, assignment]


@lru_cache(maxsize=16)
def _matrix(size: int, wanted: int) -> Tensor:
    """Interpolation matrix float32 [wanted, size] of linear resizing with align_corners=False, taken from PyTorch itself."""
    rows = F.interpolate(torch.eye(size).unsqueeze(0), wanted, mode="linear", align_corners=False)
    return rows[0].T.contiguous()


def sampled_scores(logits_NChw: Tensor, labels_NHW: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Scores and labels at the pixels the loss is taken at: all of them, or every second row and column of a coarse network.

    Scores are `edgeseg.models.upsample_logits` as R_h X R_w^T, at the chosen rows and columns only. Networks at stride 8 or coarser are
    compared on a quarter of the pixels, whose phase walks with `step` through all four, so that none is left out: neighbours
    are interpolated from the same scores anyway, and softmax and losses at full size would take a third of the step.
    """
    (h, w), (H, W) = logits_NChw.shape[2:], labels_NHW.shape[1:]
    if (h, w) == (H, W):
        return logits_NChw, labels_NHW
    coarse = 8 * (h - 1) <= H and 8 * (w - 1) <= W
    every = 2 if coarse else 1
    top, left = step // 2 % every, step % every
    rows, columns = _matrix(h, H)[top::every], _matrix(w, W)[left::every]
    return rows @ (logits_NChw @ columns.T), labels_NHW[:, top::every, left::every]
