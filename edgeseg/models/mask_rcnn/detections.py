"""From class scores and boxes of all proposals to the K objects of a frame, at fixed size (He et al. 2017, section 3.1, inference).

Legend: R = proposals, C = classes (0 = background), Q = R (C - 1) pairs of proposal and class, M = candidates, K = slots.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.mask_rcnn.boxes import clip, decode, iou, suppress, take
from edgeseg.models.mask_rcnn.heads import BOX_WEIGHTS

OVERLAP: Final = 0.5
MIN_SCORE: Final = 0.05
"""Less likely objects are left out; the slot stays empty."""
_MIN_CANDIDATES: Final = 128


class Detections(nn.Module):
    """The `slots` likeliest objects, those of one class suppressing each other."""

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = slots

    def forward(self, boxes_R4: Tensor, scores_RC: Tensor, deltas_RD: Tensor, frame_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Objects [K, 6] = x0, y0, x1, y1, score, class by falling score (all 0 = empty slot), and int64 [K], the class less 1."""
        count, objects = int(scores_RC.shape[0]), int(scores_RC.shape[1]) - 1
        device = boxes_R4.device
        prob_Q = torch.softmax(scores_RC, dim=1)[:, 1:].reshape(-1)
        boxes_Q4 = decode(boxes_R4[:, None, :].expand(count, objects, 4).reshape(-1, 4), deltas_RD.reshape(-1, 4), BOX_WEIGHTS)
        row_Q1 = torch.arange(objects, dtype=torch.float32, device=device)[None].expand(count, objects).reshape(-1, 1)
        prob_M, index_M = torch.topk(prob_Q, min(count * objects, max(2 * self.slots, _MIN_CANDIDATES)))
        boxes_M4, row_M1 = clip(take(boxes_Q4, index_M), frame_hw), take(row_Q1, index_M)
        same_MM = (row_M1 == row_M1.reshape(1, -1)).to(torch.float32)
        kept_M = suppress(iou(boxes_M4, boxes_M4) * same_MM, OVERLAP)
        score_M = prob_M * kept_M * (prob_M >= MIN_SCORE).to(torch.float32)
        score_K, index_K = torch.topk(score_M, min(self.slots, score_M.shape[0]))
        used_K1 = (score_K > 0).to(torch.float32)[:, None]
        row_K1 = take(row_M1, index_K)
        found = torch.cat([take(boxes_M4, index_K), score_K[:, None], row_K1 + 1], dim=1) * used_K1
        if found.shape[0] < self.slots:  # a frame so small that it has fewer proposals than slots
            missing = self.slots - found.shape[0]
            found, row_K1 = F.pad(found, (0, 0, 0, missing)), F.pad(row_K1, (0, 0, 0, missing))
        return found, row_K1[:, 0].to(torch.int64)
