"""Region proposals: where objects may be (RPN, Ren et al. 2015, arXiv:1506.01497; one head for all levels, arXiv:1612.03144).

Legend: N = frames, F = channels, h/w = rows/columns of a level, A = anchors, M = candidates, R = proposals.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from edgeseg.models.mask_rcnn.anchors import RATIOS
from edgeseg.models.mask_rcnn.boxes import clip, decode, iou, suppress, take

CANDIDATES: Final = 512
"""Best-scored boxes that take part in the suppression."""
OVERLAP: Final = 0.7
_BEHIND: Final = 64.0
"""Puts suppressed boxes behind all others, in their own order. Scores are clamped to half of it."""


class RpnHead(nn.Module):
    """A 3x3 convolution, then for each anchor whether it holds an object, and where that lies."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.scores = nn.Conv2d(channels, len(RATIOS), 1)
        self.deltas = nn.Conv2d(channels, 4 * len(RATIOS), 1)

    def forward(self, level_NFhw: Tensor) -> tuple[Tensor, Tensor]:
        """Scores before the sigmoid [N, A] and offsets [N, A, 4] of one level."""
        x_NFhw = torch.relu(self.conv(level_NFhw))
        frames = level_NFhw.shape[0]
        scores_NA = self.scores(x_NFhw).permute(0, 2, 3, 1).reshape(frames, -1)
        return scores_NA, self.deltas(x_NFhw).permute(0, 2, 3, 1).reshape(frames, -1, 4)


class Proposals(nn.Module):
    """The `count` boxes of a frame that most likely hold an object and overlap least; fewer where the frame has fewer anchors.

    Selection and suppression run once over all levels together. Where less than `count` are left, suppressed ones fill up, best first:
    the number is fixed, and the suppression of detections removes what was found twice.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, scores_A: Tensor, deltas_A4: Tensor, anchors_A4: Tensor, frame_hw: tuple[int, int]) -> Tensor:
        """Boxes [R, 4] of one frame, cut off at its border, from the scores, offsets and anchors of all levels."""
        scores_M, index_M = torch.topk(scores_A, min(CANDIDATES, scores_A.shape[0]))
        boxes_M4 = clip(decode(take(anchors_A4, index_M), take(deltas_A4, index_M)), frame_hw)
        kept_M = suppress(iou(boxes_M4, boxes_M4), OVERLAP)
        order_M = torch.clamp(scores_M, -0.5 * _BEHIND, 0.5 * _BEHIND) + _BEHIND * kept_M
        _, index_R = torch.topk(order_M, min(self.count, order_M.shape[0]))
        return take(boxes_M4, index_R)
