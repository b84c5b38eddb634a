"""The decision head that interpolates only where the answer changes: for runtimes that take tensors of a size known only at run time.

Four neighbouring scores span a cell of f x f pixels, and every score inside is a mean of the four with weights of at least 0. So where
the same class wins at all four corners it wins at every pixel between them, exactly. Such cells are filled with that class; the others
(the borders of regions: 15 to 30 % of the cells of a street scene at stride 8) are gathered, interpolated and decided, and put into place.
The time depends on the frame: with borders in every cell it takes as long as bands do and half as long as resize and argmax.

Legend: C = scores a pixel, h/w = rows/columns of the scores, f = pixels a score and axis, K = cells = (h + 1)(w + 1) with half cells at
the frame's edge, M = cells with a border in them.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from edgeseg.core.manifest import Contract
from exporters.head.banded import offsets_of

SMALLEST_FACTOR: Final = 4
"""Pixels a score and axis from which cells pay."""


def cells_fit(scores_hw: tuple[int, int], contract: Contract, num_scores: int) -> bool:
    """Whether this head can decide: more than two classes, and the same even number of pixels a score everywhere along an axis."""
    sizes = zip(scores_hw, (contract.height, contract.width), strict=True)
    return num_scores > 2 and all(out % own == 0 and out // own % 2 == 0 and out // own >= SMALLEST_FACTOR for own, out in sizes)


class CellHead(nn.Module):
    """Interpolate and decide in cells with a border only; see the head of this module.

    Args:
        num_scores: scores a pixel, more than 2.
        scores_hw: their rows and columns.
        contract: model size and decision; `cells_fit` says which.
    """

    def __init__(self, num_scores: int, scores_hw: tuple[int, int], contract: Contract) -> None:
        super().__init__()
        assert cells_fit(scores_hw, contract, num_scores)
        (h, w), self.size_hw = scores_hw, (contract.height, contract.width)
        self.factors = (contract.height // h, contract.width // w)
        self.cells_hw = (h + 1, w + 1)
        self.offsets: Tensor | None
        self.register_buffer("offsets", offsets_of(contract, num_scores))
        index = torch.arange(-1, h + 1).clamp(0, h - 1)[:, None] * w + torch.arange(-1, w + 1).clamp(0, w - 1)
        corners_4K = torch.stack([index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]]).reshape(4, -1)
        self.corners_4K: Tensor
        self.register_buffer("corners_4K", corners_4K.contiguous())
        shares = [torch.stack([1 - at, at]) for at in ((torch.arange(f) + 0.5) / f for f in self.factors)]
        self.weights: Tensor
        self.register_buffer("weights", torch.einsum("ay,bx->yxab", *shares).reshape(-1, 4).contiguous())
        self.filled: Tensor
        self.register_buffer("filled", torch.arange(num_scores, dtype=torch.uint8)[:, None].repeat(1, len(self.weights)))

    def forward(self, scores_NChw: Tensor) -> Tensor:
        """Map class scores [1, C, h, w] to the uint8 class map [1, H, W]."""
        scores = scores_NChw if self.offsets is None else scores_NChw + self.offsets
        scores_Cp = scores.reshape(scores.shape[1], -1)
        first, mixed_hw = self._corner_classes(scores_Cp.argmax(dim=0).to(torch.int32))
        mixed = torch.nonzero(mixed_hw.reshape(-1))[:, 0]
        mixed = torch.cat([mixed, mixed.new_zeros(1)])  # never empty: runtimes disagree on products of nothing
        corners = self.corners_4K.index_select(1, mixed).reshape(-1)
        values = scores_Cp.T.index_select(0, corners).reshape(4, -1, scores_Cp.shape[0]).permute(0, 2, 1)
        fine = torch.matmul(self.weights, values.reshape(4, -1)).reshape(len(self.weights), scores_Cp.shape[0], -1)
        cells = self.filled.index_select(0, first.reshape(-1))
        cells = cells.index_put((mixed,), fine.argmax(dim=1).to(torch.uint8).T)
        (rows, columns), (f_rows, f_columns), (height, width) = self.cells_hw, self.factors, self.size_hw
        wide = cells.reshape(rows, columns, f_rows, f_columns).permute(0, 2, 1, 3).reshape(rows * f_rows, columns * f_columns)
        top, left = f_rows // 2, f_columns // 2
        return wide[top : top + height, left : left + width][None]

    def _corner_classes(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Class at the first corner of each cell, and whether another differs, both [h + 1, w + 1]; slices, since a gather takes longer."""
        classes_hw = classes.reshape(self.cells_hw[0] - 1, self.cells_hw[1] - 1)
        wide = torch.cat([classes_hw[:, :1], classes_hw, classes_hw[:, -1:]], dim=1)
        left, right = wide[:, :-1], wide[:, 1:]
        low, high = torch.minimum(left, right), torch.maximum(left, right)
        smallest = torch.minimum(torch.cat([low[:1], low]), torch.cat([low, low[-1:]]))
        largest = torch.maximum(torch.cat([high[:1], high]), torch.cat([high, high[-1:]]))
        return torch.cat([left[:1], left]), smallest != largest
