"""Pixel by pixel: the class probabilities of the teacher as soft targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def kd(student_NChw: Tensor, teacher_NChw: Tensor, counts_Nhw: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the pixels that count (Hinton et al., 1503.02531, section 2).

    T^2 keeps the size of the gradient whatever the temperature. One score a pixel stands for two: 0 and the score.
    """
    if student_NChw.shape[1] == 1:
        student_NChw, teacher_NChw = (torch.cat([torch.zeros_like(x), x], dim=1) for x in (student_NChw, teacher_NChw))
    student, teacher = (F.log_softmax(x / temperature, dim=1) for x in (student_NChw, teacher_NChw.detach()))
    apart_Nhw = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * (apart_Nhw * counts_Nhw).sum() / counts_Nhw.sum().clamp(min=1)
