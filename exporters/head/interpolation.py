"""Bilinear interpolation as products with constant matrices that hold little more than the two taps of each row."""

from __future__ import annotations

import itertools
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK: Final = 64
"""Columns made by one product: 480 columns from 60 in one product have 30 zeros a tap, and took as long as a third of all the rows."""


def bilinear_matrix(num_in: int, num_out: int) -> Tensor:
    """Weights [num_out, num_in] of torch's own bilinear resize (align_corners=False) along one axis; rows sum to 1."""
    column = F.interpolate(torch.eye(num_in)[:, None, :, None], (num_out, 1), mode="bilinear", align_corners=False)
    return column[:, 0, :, 0].T.contiguous()


def bilinear_blocks(num_in: int, num_out: int, num_blocks: int) -> list[tuple[int, int, Tensor]]:
    """Cut the outputs into runs of nearly equal length: `(first, stop, weights)`, weights [run, stop - first] over the inputs read."""
    weights = bilinear_matrix(num_in, num_out)
    edges = [round(i * num_out / num_blocks) for i in range(num_blocks + 1)]
    blocks = []
    for begin, end in itertools.pairwise(edges):
        used = torch.nonzero(weights[begin:end].abs().sum(0)).flatten()
        first, stop = int(used.min()), int(used.max()) + 1
        blocks.append((first, stop, weights[begin:end, first:stop].contiguous()))
    return blocks
