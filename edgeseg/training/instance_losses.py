"""Losses of Mask R-CNN. Each is a mean over the frames of what one frame says, so it does not matter how frames are dealt to processes.

Legend: N = frames, S = samples of a frame, D = positive samples, C = classes (0 = background), m = rows/columns of a mask.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

RPN_BETA: Final = 1 / 9
BOX_BETA: Final = 1.0
"""Offset from which on smooth L1 is linear (Girshick 2015, arXiv:1504.08083, eq. 3), as in the paper's own implementation."""


def proposal_losses(scores_S: Tensor, deltas_S4: Tensor, positive_S: Tensor, used_S: Tensor, wanted_S4: Tensor) -> tuple[Tensor, Tensor]:
    """Of the sampled anchors of one frame: is there an object, and where. Both sums are divided by the number of samples.

    Binary cross-entropy and smooth L1, eq. 1 of Ren et al. 2015, arXiv:1506.01497; offsets count for positives only.
    """
    weight_S = used_S.float() / used_S.sum().clamp(min=1)
    about = F.binary_cross_entropy_with_logits(scores_S.float(), positive_S.float(), reduction="none")
    return (about * weight_S).sum(), _smooth_l1(deltas_S4, wanted_S4, positive_S, RPN_BETA) / used_S.sum().clamp(min=1)


def box_losses(scores_SC: Tensor, deltas_S4: Tensor, classes_S: Tensor, used_S: Tensor, wanted_S4: Tensor) -> tuple[Tensor, Tensor]:
    """Of the sampled proposals of one frame: which class, and where. Both sums are divided by the number of samples.

    Cross-entropy and smooth L1 of the class's own box, eq. 1 of Girshick 2015, arXiv:1504.08083; class 0 has no box.
    """
    weight_S = used_S.float() / used_S.sum().clamp(min=1)
    about = F.cross_entropy(scores_SC.float(), classes_S, reduction="none")
    return (about * weight_S).sum(), _smooth_l1(deltas_S4, wanted_S4, classes_S > 0, BOX_BETA) / used_S.sum().clamp(min=1)


def mask_loss(masks_Dmm: Tensor, wanted_Dmm: Tensor, used_D: Tensor) -> Tensor:
    """Of the positives of one frame: binary cross-entropy of the class's own mask, its mean over samples and positives (section 3)."""
    about_D = F.binary_cross_entropy_with_logits(masks_Dmm.float(), wanted_Dmm, reduction="none").mean(dim=(1, 2))
    return (about_D * used_D.float()).sum() / used_D.sum().clamp(min=1)


def _smooth_l1(deltas_S4: Tensor, wanted_S4: Tensor, counts_S: Tensor, beta: float) -> Tensor:
    wanted_S4 = torch.where(counts_S[:, None], wanted_S4, torch.zeros_like(wanted_S4))  # a filler's may be infinite
    about_S4 = F.smooth_l1_loss(deltas_S4.float(), wanted_S4, reduction="none", beta=beta)
    return (about_S4 * counts_S.float()[:, None]).sum()


def mask_targets(masks_GHW: Tensor, object_D: Tensor, boxes_D4: Tensor, side: int) -> Tensor:
    """What the masks of `boxes_D4` should be: [D, side, side], each object's mask looked up bilinearly at the middle of each cell.

    Beyond the frame there is no object. The values 0..1 between are kept: where pasting cuts at a half, the outline then lies right.
    """
    height, width = masks_GHW.shape[1:]
    share = (torch.arange(side, dtype=torch.float32, device=boxes_D4.device) + 0.5) / side
    y_Dm = boxes_D4[:, 1:2] + (boxes_D4[:, 3:4] - boxes_D4[:, 1:2]) * share - 0.5
    x_Dm = boxes_D4[:, 0:1] + (boxes_D4[:, 2:3] - boxes_D4[:, 0:1]) * share - 0.5
    top_Dm, left_Dm = y_Dm.floor(), x_Dm.floor()

    def values(row_Dm: Tensor, column_Dm: Tensor) -> Tensor:
        row, column = row_Dm.long().clamp(0, height - 1), column_Dm.long().clamp(0, width - 1)
        return masks_GHW[object_D[:, None, None], row[:, :, None], column[:, None, :]].float()

    down, across = (y_Dm - top_Dm)[:, :, None], (x_Dm - left_Dm)[:, None, :]
    above = values(top_Dm, left_Dm) * (1 - across) + values(top_Dm, left_Dm + 1) * across
    below = values(top_Dm + 1, left_Dm) * (1 - across) + values(top_Dm + 1, left_Dm + 1) * across
    return above * (1 - down) + below * down
