"""Where ranges start from: on a few frames, the part of the extremes that leaves the smallest error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor

from quantization.qat.fake import fake_activations, grid
from quantization.qat.network import FakeQuantized
from quantization.sampling import sample_places

_SHARES: Final = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Of both ends of the extremes; the first wins a tie."""
_SAMPLED: Final = 65_536
"""Values of a tensor and frame, drawn at random, that errors are taken on; the whole costs as much as 16 runs of the network."""


@torch.no_grad()
def settle(net: FakeQuantized, frames: Sequence[Tensor]) -> None:
    """Set the ranges of `net` from normalised `frames` [1, 3, H, W], in evaluation mode.

    Each gets the extremes over all frames, or that share of them with the smallest mean squared error of rounding (Choukroun et al.
    2019, arXiv:1902.06822, by search over a few).
    """
    net.eval()
    low_K, high_K = torch.zeros_like(net.low), torch.zeros_like(net.high)

    def extremes(slot: int, x: Tensor) -> None:
        low_K[slot] = torch.minimum(low_K[slot], x.min())
        high_K[slot] = torch.maximum(high_K[slot], x.max())

    _watch(net, extremes, frames)
    grids = [grid(share * low_K, share * high_K) for share in _SHARES]
    error_SK = torch.zeros(len(_SHARES), len(low_K), device=low_K.device)

    def errors(slot: int, x: Tensor) -> None:
        x = x.flatten()[torch.from_numpy(sample_places(x.numel(), _SAMPLED)).to(x.device)]
        for index, (scale_K, zero_K) in enumerate(grids):
            rounded = fake_activations(x, scale_K[slot : slot + 1], zero_K[slot : slot + 1])
            error_SK[index, slot] += (rounded - x).square().mean()

    _watch(net, errors, frames)
    share_K = torch.tensor(_SHARES, device=low_K.device)[error_SK.argmin(dim=0)]
    net.low.copy_(share_K * low_K)
    net.high.copy_(share_K * high_K)
    net.log_low.zero_()
    net.log_high.zero_()


@torch.no_grad()
def watched(net: FakeQuantized, x_NCHW: Tensor) -> list[tuple[int, Tensor]]:
    """(slot, values before rounding) of one frame in a run where nothing is rounded, what is only rearranged included."""
    found: list[tuple[int, Tensor]] = []
    net.eval()
    _watch(net, lambda slot, x: found.append((slot, x)), [x_NCHW])
    return found


def _watch(net: FakeQuantized, watch: object, frames: Iterable[Tensor]) -> None:
    net.watch = watch  # type: ignore[assignment]
    try:
        for x_NCHW in frames:
            net(x_NCHW)
    finally:
        net.watch = None
