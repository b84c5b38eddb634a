"""The weighted sum of `[train] loss`, over the main scores, auxiliary heads and a boundary head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.core.config import TrainSection
from edgeseg.models import upsample_logits
from edgeseg.models.outputs import Outputs
from edgeseg.training.fast_cpu import sampled_scores
from edgeseg.training.losses.edges import AWARENESS_WEIGHT, EDGE_WEIGHT, boundary_awareness, edge_loss, edge_map
from edgeseg.training.losses.registry import LOSSES


def total_loss(
    output: Tensor | Outputs, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection, *, step: int | None = None
) -> Tensor:
    """Sum of the losses with their weights of `[train] loss`.

    Auxiliary heads take the same sum, times their weight of `Outputs`. A boundary head adds 20 times its own loss and the
    boundary-awareness term (`edgeseg.training.losses.edges`).

    Args:
        output: class scores [N, C, h, w] of any float type and stride, or what a network with auxiliary heads gives. One score a pixel
            (C = 1) stands for two classes: 0 and the score.
        labels_NHW: int64, 255 = ignore.
        class_weights_C: float32; used by ce, bce and focal.
        section: `[train]`.
        step: number of the training step where scores are compared by `edgeseg.training.fast_cpu.sampled_scores` (which see; the fast
            way on a CPU); `None` = at every pixel.
    """
    outputs = output if isinstance(output, Outputs) else Outputs(output)
    main_NCHW, at_NHW = _compared(outputs.main, labels_NHW, step)
    log_probs = F.log_softmax(main_NCHW, dim=1)
    total = _sum(log_probs, at_NHW, class_weights_C, section)
    for aux_NChw, weight in zip(outputs.aux, outputs.aux_weights, strict=True):
        aux_NCHW, aux_at_NHW = _compared(aux_NChw, labels_NHW, step)
        total = total + weight * _sum(F.log_softmax(aux_NCHW, dim=1), aux_at_NHW, class_weights_C, section)
    if outputs.boundary is not None:
        edges_NHW = edge_map(labels_NHW)
        scores_N1HW, edges_at_NHW = _brought(outputs.boundary, edges_NHW, step)
        if scores_N1HW.shape[2:] != main_NCHW.shape[2:]:  # strides that are sampled differently
            scores_N1HW, edges_at_NHW = _brought(outputs.boundary, edges_NHW, None)
            main_NCHW, at_NHW = _compared(outputs.main, labels_NHW, None)
            log_probs = F.log_softmax(main_NCHW, dim=1)
        edge_scores_NHW = scores_N1HW[:, 0]
        total = total + EDGE_WEIGHT * edge_loss(edge_scores_NHW, edges_at_NHW)
        total = total + AWARENESS_WEIGHT * boundary_awareness(log_probs, edge_scores_NHW, at_NHW, class_weights_C, section)
    return total


def _sum(log_probs_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor, section: TrainSection) -> Tensor:
    weights = section.loss
    parts = [weights[name] * loss(log_probs_NCHW, labels_NHW, class_weights_C, section)
             for name, loss in LOSSES.items() if weights.get(name, 0.0) > 0]
    return torch.stack(parts).sum()


def _compared(logits_NChw: Tensor, labels_NHW: Tensor, step: int | None) -> tuple[Tensor, Tensor]:
    """Class scores and labels at the same pixels, in float32; one score a pixel becomes two."""
    logits_NCHW, labels_NHW = _brought(logits_NChw, labels_NHW, step)
    if logits_NCHW.shape[1] == 1:
        logits_NCHW = torch.cat([torch.zeros_like(logits_NCHW), logits_NCHW], dim=1)
    return logits_NCHW, labels_NHW


def _brought(scores_NChw: Tensor, labels_NHW: Tensor, step: int | None) -> tuple[Tensor, Tensor]:
    if step is not None:
        return sampled_scores(scores_NChw.float(), labels_NHW, step)
    height, width = labels_NHW.shape[1:]
    return upsample_logits(scores_NChw.float(), (height, width)), labels_NHW
