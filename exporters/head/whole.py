"""The decision head in one piece, for a GPU: bilinear resize and argmax are kernels of its runtime, and bytes exist at the very end only.

Legend: N = frames, C = scores a pixel, H/W = rows/columns at model size, h/w = rows/columns of the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.core.manifest import Contract
from edgeseg.models.decision import upsample_logits
from exporters.head.banded import offsets_of


class WholeHead(nn.Module):
    """Resize, decide, cast: TensorRT gives uint8 only as an output and casts to it from floats only.

    Args:
        num_scores: scores a pixel (1 for two classes as one score).
        contract: model size and decision.
    """

    def __init__(self, num_scores: int, contract: Contract) -> None:
        super().__init__()
        self.size_hw = (contract.height, contract.width)
        self.binary = num_scores <= 2
        assert self.binary or contract.decision != "threshold", "a threshold decides between two classes"
        self.offsets: Tensor | None
        self.register_buffer("offsets", offsets_of(contract, num_scores))

    def forward(self, scores_NChw: Tensor) -> Tensor:
        """Map class scores to the uint8 class map [N, H, W]."""
        scores = scores_NChw if self.offsets is None else scores_NChw + self.offsets
        if self.binary and scores.shape[1] == 2:
            scores = scores[:, 1:] - scores[:, :1]
        scores_NCHW = upsample_logits(scores, self.size_hw)
        answer = scores_NCHW[:, 0] > 0.0 if self.binary else scores_NCHW.argmax(dim=1)
        return answer.to(torch.float32).to(torch.uint8)
