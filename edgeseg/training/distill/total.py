"""From a teacher's network to the part of the loss that comes from it.

Legend: N = frames, C = classes, H/W = rows/columns of the label, h/w = rows/columns at the student's stride.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.core.config import TrainSection
from edgeseg.core.errors import ConfigError
from edgeseg.core.images import IGNORE_INDEX
from edgeseg.models.outputs import Outputs
from edgeseg.training.distill.registry import DISTILLERS


def frozen(teacher: nn.Module, device: torch.device) -> nn.Module:
    """Give a copy of a teacher that is never trained: on the device, in evaluation mode, without gradients."""
    return copy.deepcopy(teacher).to(device).eval().requires_grad_(False)


@torch.no_grad()
def check_teacher(teacher: nn.Module, *, num_classes: int, crop_hw: tuple[int, int], device: torch.device) -> None:
    """Run a `frozen` teacher once, on a grey frame of the size it will see.

    Raises:
        ConfigError: it does not tell `num_classes` classes apart (one score a pixel tells two).
    """
    scores = scores_of(teacher(torch.zeros(1, 3, *crop_hw, device=device)))
    got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if not isinstance(scores, Tensor) or scores.ndim != 4:
        raise ConfigError(f"the teacher gives {got} and no scores [N, C, h, w]; choose a network that gives a class a pixel")
    if scores.shape[1] != num_classes and (scores.shape[1], num_classes) != (1, 2):
        raise ConfigError(f"the teacher tells {scores.shape[1]} classes apart, the student {num_classes}; "
                          "choose a teacher that was trained on the same classes")


def scores_of(output: Tensor | Outputs) -> Tensor:
    """Class scores that a network answers with, without those of its auxiliary heads."""
    return output.main if isinstance(output, Outputs) else output


def taught_loss(student_NChw: Tensor, teacher_NCxy: Tensor, labels_NHW: Tensor, section: TrainSection) -> Tensor:
    """`[train] distill_weight` times the distiller of `[train]`, in float32, at the student's size.

    Scores of a teacher of another stride are interpolated to it (the mean of what is left out, where they become fewer). A pixel counts
    where at least half of what it covers is labelled: borders that an augmentation filled up are nobody's scene.

    Args:
        student_NChw: class scores.
        teacher_NCxy: class scores at any stride.
        labels_NHW: 255 = ignore.
        section: `[train]`.
    """
    size = (int(student_NChw.shape[2]), int(student_NChw.shape[3]))
    student, teacher = _same_scores(student_NChw.float(), teacher_NCxy.detach().float())
    if teacher.shape[2:] != student.shape[2:]:
        teacher = F.interpolate(teacher, size, mode="bilinear", align_corners=False, antialias=True)
    known_N1HW = (labels_NHW != IGNORE_INDEX).unsqueeze(1).float()
    counts_Nhw = F.adaptive_avg_pool2d(known_N1HW, size).squeeze(1) >= 0.5
    return section.distill_weight * DISTILLERS[section.distiller](student, teacher, counts_Nhw, section.distill_temperature)


def _same_scores(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two scores a pixel become one, their difference, where the other network has one: it tells the same two classes apart."""
    if student.shape[1] == teacher.shape[1]:
        return student, teacher
    student, teacher = (x[:, 1:] - x[:, :1] if x.shape[1] == 2 else x for x in (student, teacher))
    return student, teacher
