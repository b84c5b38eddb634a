"""The decision head in bands of rows: every score is interpolated, a band at a time, and decided while it is in the cache.

1. Bilinear interpolation is linear and separable, so it is two constant matrix products. Both matrices are banded (two taps a row), so
   columns and rows are made in blocks that each read only a few: fewer products, and a band of rows stays in the cache.
2. The decision is taken band by band, in whichever form is fastest in the runtime (`exporters.head.decisions`).
3. A threshold is a constant added to a score (`edgeseg.models.decision`), to each class's or to one of two. The weights of an
   interpolation sum to 1, so it is added at the network's stride, where it costs next to nothing, and the decisions stay as they are.

Legend: N = frames, C = scores a pixel, H/W = rows/columns at model size, h/w = rows/columns of the scores, B = rows of a band.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from edgeseg.core.manifest import Contract
from edgeseg.models.decision import binary_limit, class_offsets, upsample_logits
from exporters.head.decisions import DECISIONS, HALF, SCALE, SCALED, by_argmax
from exporters.head.interpolation import BLOCK, bilinear_blocks

BAND_BYTES: Final = 768 * 1024
"""Scores of one band: what stays in a second-level cache of 1 MiB. Smaller bands gain nothing and make converters slow."""
_LARGEST_SCORE: Final = 1e6
"""Stands for an infinite threshold; `SCALE` times this is still a float32."""


class ResizeHead(nn.Module):
    """The plain form, kept to be measured against: bilinear resize, then argmax."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        super().__init__()
        self.size_hw = size_hw

    def forward(self, scores_NChw: Tensor) -> Tensor:
        """Map class scores to the uint8 class map [N, H, W]."""
        return by_argmax(upsample_logits(scores_NChw, self.size_hw))


class BandedHead(nn.Module):
    """Interpolate and decide band by band of rows; see the head of this module.

    Args:
        num_scores: scores a pixel (1 for two classes as one score).
        scores_hw: their rows and columns.
        contract: model size and decision.
        decision: a name of `DECISIONS`; two classes need none of them, one comparison decides.
        band_bytes: largest size of one band's scores.
    """

    def __init__(self, num_scores: int, scores_hw: tuple[int, int], contract: Contract, decision: str, *,
                 band_bytes: int = BAND_BYTES) -> None:
        super().__init__()
        self.size_hw = (contract.height, contract.width)
        self.binary = num_scores <= 2
        assert self.binary or contract.decision != "threshold", "a threshold decides between two classes"
        self.decide = DECISIONS[decision]
        self.scale = SCALE if decision in SCALED else 1.0
        self.as_floats = decision in SCALED
        self.offsets: Tensor | None
        self.register_buffer("offsets", offsets_of(contract, num_scores))
        (h, w), (height, width) = scores_hw, self.size_hw
        channels = 1 if self.binary else num_scores
        num_bands = 1 if h == height else max(1, min(height, -(-channels * height * width * 4 // band_bytes)))
        self.columns = [] if w == width else self._keep("columns", w, width, max(1, round(width / BLOCK)), transposed=True)
        self.bands = [(0, h)] if h == height else self._keep("rows", h, height, num_bands)

    def _keep(self, name: str, num_in: int, num_out: int, num_blocks: int, *, transposed: bool = False) -> list[tuple[int, int]]:
        """Keep the matrices of one axis as buffers; give what each reads."""
        reads = []
        for i, (first, stop, weights) in enumerate(bilinear_blocks(num_in, num_out, num_blocks)):
            self.register_buffer(f"{name}_{i}", weights.T.contiguous() if transposed else weights)
            reads.append((first, stop))
        return reads

    def forward(self, scores_NChw: Tensor) -> Tensor:
        """Map class scores to the uint8 class map [N, H, W]."""
        scores = scores_NChw
        if self.offsets is not None:
            scores = scores + self.offsets
        if self.binary and scores.shape[1] == 2:
            scores = scores[:, 1:] - scores[:, :1]
        if self.scale != 1.0:
            scores = scores * self.scale
        if self.columns:
            blocks = [torch.matmul(scores[..., a:b], getattr(self, f"columns_{i}")) for i, (a, b) in enumerate(self.columns)]
            scores = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=3)
        parts = []
        for i, (first, stop) in enumerate(self.bands):
            rows: Tensor | None = getattr(self, f"rows_{i}", None)
            band = scores if rows is None else torch.matmul(rows, scores[:, :, first:stop])
            parts.append(self._positive(band[:, 0]) if self.binary else self.decide(band))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _positive(self, score_NBW: Tensor) -> Tensor:
        if not self.as_floats:
            return (score_NBW > 0.0).to(torch.uint8)
        return torch.clamp(score_NBW, 0.0, 1.0 + HALF).to(torch.uint8)


def offsets_of(contract: Contract, num_scores: int) -> Tensor | None:
    """What is added to each score, [1, C, 1, 1]: a part of the class layer's bias in the end. `None` where it is nothing."""
    if num_scores > 2:
        offsets = class_offsets(contract)
        return None if offsets is None else torch.tensor(offsets).view(1, -1, 1, 1)
    limit = max(-_LARGEST_SCORE, min(_LARGEST_SCORE, binary_limit(contract)))
    return None if limit == 0 else torch.tensor([0.0, -limit][-num_scores:]).view(1, -1, 1, 1)
