"""What is said of each box: its class, a better box, and a mask (He et al. 2017, arXiv:1703.06870, figure 4 right; 1612.03144, section 5).

Legend: R = boxes, F = channels, C = classes (0 = background), P = points a side, D = features of a box, m = 2P.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.mask_rcnn.align import POINTS
from edgeseg.models.mask_rcnn.boxes import take

BINS: Final = POINTS // 2
BOX_WEIGHTS: Final = (10.0, 5.0)
"""Of the offsets of the second stage (`edgeseg.models.mask_rcnn.boxes.Weights`): they are small, and learnt slowly otherwise."""


class BoxHead(nn.Module):
    """Two fully connected layers over 7x7 bins, then class scores and one box a class."""

    def __init__(self, channels: int, inner: int, num_classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * BINS * BINS, inner)
        self.fc2 = nn.Linear(inner, inner)
        self.scores = nn.Linear(inner, num_classes)
        self.deltas = nn.Linear(inner, 4 * (num_classes - 1))

    def forward(self, features_RFPP: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores before the softmax [R, C], and the offsets of a box a class [R, 4 (C - 1)]."""
        x_RD = F.avg_pool2d(features_RFPP, 2).flatten(1)
        x_RD = torch.relu(self.fc2(torch.relu(self.fc1(x_RD))))
        return self.scores(x_RD), self.deltas(x_RD)


class MaskHead(nn.Module):
    """Four 3x3 convolutions, an up-convolution to 28x28, and one mask a class, of which only the asked one is computed."""

    def __init__(self, channels: int, inner: int, num_classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels if i == 0 else inner, inner, 3, padding=1) for i in range(4))
        self.up = nn.ConvTranspose2d(inner, inner, 2, stride=2)
        self.scores = nn.Conv2d(inner, num_classes - 1, 1)

    def forward(self, features_RFPP: Tensor, row_R: Tensor) -> Tensor:
        """Mask [R, m, m] before the sigmoid, of the class `row_R` (from 0, the first after background) of each box.

        The mask of one class is one row of the last 1x1 convolution: with 81 classes 80 times less work than all rows.
        """
        x = features_RFPP
        for conv in self.convs:
            x = torch.relu(conv(x))
        x = torch.relu(self.up(x))
        weight_R1F = take(self.scores.weight[:, :, 0, 0], row_R)[:, None, :]
        assert self.scores.bias is not None
        mask_Rm = torch.matmul(weight_R1F, x.flatten(2))[:, 0, :] + take(self.scores.bias[:, None], row_R)
        return mask_Rm.reshape(-1, 2 * POINTS, 2 * POINTS)
