"""Mask R-CNN: He, Gkioxari, Dollar, Girshick 2017, arXiv:1703.06870, on a feature pyramid (arXiv:1612.03144), at fixed size throughout.

No shape depends on what is in the frame: so many proposals, so many slots, empty ones marked by score 0. So one graph does it all in
ONNX Runtime, OpenVINO and LiteRT. `width` scales the pyramid and the heads, not the encoder: of those there are smaller ones, and their
starting weights fit one width only.

Legend: N = frames, F = channels of the pyramid, A = anchors, K = slots, m = 28.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.core.encoders import encoder_of
from edgeseg.models.blocks import initialise, scaled, size_of
from edgeseg.models.encoders import Encoder, build_encoder
from edgeseg.models.mask_rcnn.align import RoiAlign
from edgeseg.models.mask_rcnn.anchors import Anchors
from edgeseg.models.mask_rcnn.detections import Detections
from edgeseg.models.mask_rcnn.heads import BoxHead, MaskHead
from edgeseg.models.mask_rcnn.proposals import Proposals, RpnHead
from edgeseg.models.mask_rcnn.pyramid import STRIDES, FeaturePyramid

MIN_PROPOSALS: Final = 128
"""Proposals a frame; more where more objects than that are asked for. The paper takes 1000, which a board has no time for."""


class Regions(NamedTuple):
    """What the first stage says of N frames."""

    levels: tuple[Tensor, ...]
    """P2 to P5, each [N, F, h, w]: what boxes are looked up in."""
    scores_NA: Tensor
    """Score of each anchor before the sigmoid, finest level first."""
    deltas_NA4: Tensor
    """Offsets from each anchor to its object."""
    anchors_A4: Tensor
    """In pixels."""


class MaskRcnn(nn.Module):
    """Normalised frames in. Training mode: `Regions`, whose boxes the caller gives to `look_up`, `box_head` and `mask_head`.

    Evaluation mode: one frame in, its objects out.
    """

    def __init__(self, encoder: Encoder, num_classes: int, *, width: float = 1.0, max_instances: int = 100) -> None:
        super().__init__()
        self.max_instances = max_instances
        self.encoder = encoder
        self.taken = tuple(encoder.strides.index(stride) for stride in STRIDES[:4])
        channels, inner = scaled(256, width), scaled(1024, width)
        self.pyramid = FeaturePyramid([encoder.channels[i] for i in self.taken], channels)
        self.rpn = RpnHead(channels)
        self.box_head = BoxHead(channels, inner, num_classes)
        self.mask_head = MaskHead(channels, channels, num_classes)
        self.anchors = Anchors(STRIDES)
        self.proposals = Proposals(max(MIN_PROPOSALS, max_instances))
        self.look_up = RoiAlign(STRIDES[:4])
        self.detections = Detections(max_instances)
        initialise(self)
        for module, deviation in ((self.rpn.conv, 0.01), (self.rpn.scores, 0.01), (self.rpn.deltas, 0.01),
                                  (self.box_head.scores, 0.01), (self.box_head.deltas, 0.001)):  # as in the paper's implementation
            nn.init.normal_(module.weight, std=deviation)
            assert module.bias is not None
            nn.init.zeros_(module.bias)

    def regions(self, x_NCHW: Tensor) -> Regions:
        """Run the first stage."""
        maps = self.encoder(x_NCHW)
        levels = self.pyramid([maps[i] for i in self.taken])
        scored = [self.rpn(level) for level in levels]
        anchors_A4 = self.anchors([size_of(level) for level in levels], x_NCHW.device)
        scores_NA, deltas_NA4 = (torch.cat(parts, dim=1) for parts in zip(*scored, strict=True))
        return Regions(tuple(levels[:4]), scores_NA, deltas_NA4, anchors_A4)

    def propose(self, regions: Regions, frame: int, frame_hw: tuple[int, int]) -> Tensor:
        """Proposals [R, 4] for one of the frames."""
        boxes_R4: Tensor = self.proposals(regions.scores_NA[frame], regions.deltas_NA4[frame], regions.anchors_A4, frame_hw)
        return boxes_R4

    def forward(self, x_NCHW: Tensor) -> Regions | tuple[Tensor, Tensor]:
        """Training mode: see `Regions`. Else, for one frame: `detections` float32 [K, 6] and masks [K, 28, 28], probabilities 0..1.

        Detections are x0, y0, x1, y1 in pixels of the frame, score, class; by falling score; an empty slot is all 0, its mask too.
        """
        if self.training:
            return self.regions(x_NCHW)
        return self.detect(x_NCHW, size_of(x_NCHW))

    def detect(self, x_NCHW: Tensor, frame_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `forward`, evaluation mode. `frame_hw` is the frame's size, where `x_NCHW` comes with a border (exporters)."""
        assert x_NCHW.shape[0] == 1, "one frame at a time"
        regions = self.regions(x_NCHW)
        boxes_R4 = self.propose(regions, 0, frame_hw)
        scores_RC, deltas_RD = self.box_head(self.look_up(regions.levels, boxes_R4))
        found_K6, row_K = self.detections(boxes_R4, scores_RC, deltas_RD, frame_hw)
        masks_Kmm = torch.sigmoid(self.mask_head(self.look_up(regions.levels, found_K6[:, :4]), row_K))
        return found_K6, masks_Kmm * (found_K6[:, 4] > 0).to(masks_Kmm.dtype)[:, None, None]


def build(section: ModelSection, num_classes: int) -> nn.Module:
    """Build from `[model]`."""
    encoder = build_encoder(encoder_of(section))
    return MaskRcnn(encoder, num_classes, width=section.width, max_instances=section.max_instances)
