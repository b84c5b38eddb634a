"""Class by class: where in the frame the teacher sees it."""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor

_NOWHERE: Final = -1e4
"""A score whose share of a softmax is 0 in every float type, and whose differences are finite."""


def cwd(student_NChw: Tensor, teacher_NChw: Tensor, counts_Nhw: Tensor, temperature: float) -> Tensor:
    """T^2 / C sum_c KL(p_c(teacher) || p_c(student)), p_c = softmax of class c's scores / T over the frame's pixels that count.

    Channel-wise distillation (Shu et al., 2011.13256, eq. (3) to (5)), on scores; mean over the frames in which anything counts.
    """
    leave_out_N1hw = ~counts_Nhw.unsqueeze(1)
    student, teacher = (
        F.log_softmax((x / temperature).masked_fill(leave_out_N1hw, _NOWHERE).flatten(2), dim=2)
        for x in (student_NChw, teacher_NChw.detach())
    )
    apart_NC = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=2)
    frames_N = counts_Nhw.flatten(1).any(dim=1)
    return temperature**2 * (apart_NC.mean(dim=1) * frames_N).sum() / frames_N.sum().clamp(min=1)
