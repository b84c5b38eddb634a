"""Learning to find objects: Mask R-CNN's two stages trained together ("approximate joint training", arXiv:1506.01497, section 3.2).

Legend: N = frames, A = anchors, R = proposals, S = samples of a frame, D = positive samples of a frame, C = classes (0 = background).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from edgeseg.core.errors import DataError
from edgeseg.data.instance_loader import instance_batches
from edgeseg.data.loader import batches_per_epoch, slice_positions
from edgeseg.models import normalise
from edgeseg.models.mask_rcnn import MaskRcnn, Regions
from edgeseg.models.mask_rcnn.boxes import encode
from edgeseg.models.mask_rcnn.heads import BOX_WEIGHTS
from edgeseg.training.instance_evaluate import evaluate_instances, instance_predictor
from edgeseg.training.instance_losses import box_losses, mask_loss, mask_targets, proposal_losses
from edgeseg.training.instance_matching import ANCHORS, PROPOSALS, Objects, Place, match, objects_of, sample
from edgeseg.training.task import Epoch, TaskContext, Validation

ANCHOR_SAMPLES: Final = 256
ANCHOR_POSITIVES: Final = 128
BOX_SAMPLES: Final = 128
BOX_POSITIVES: Final = 32
"""Of each frame; 128 proposals as in arXiv:1506.01497 (FPN's 512 need the memory of a large GPU)."""


@dataclass(frozen=True)
class InstanceTaskBatch:
    """`frames_NHWC` uint8 RGB on the device, what is labelled in each, and where in the training each is seen."""

    frames_NHWC: Tensor
    objects: tuple[Objects, ...]
    places: tuple[Place, ...]
    ids: tuple[str, ...]


class InstanceTask:
    """Boxes, classes and masks of objects; the score is COCO's mask AP at the frames' own size.

    The loss is the sum of the paper's five: objectness and box of the proposals, class, box and mask of the objects. `[train] loss` and
    `class_weights` are of pixels and play no part.

    Raises:
        DataError: no object of val is labelled.
    """

    def __init__(self, context: TaskContext) -> None:
        self.context = context
        self.train_store, self.val_store = context.stores
        if not sum(self.val_store.object_counts):
            raise DataError(f"{context.data.root}: no object of val is labelled, so no network can be chosen by it; label some, or put "
                            "frames with objects into val")

    def batches(self, epoch: int) -> Epoch:
        """Give this process's slices of the epoch's batches."""
        context, config = self.context, self.context.config
        size, part = config.train.batch_size, (context.ranks.rank, context.ranks.count)

        def stream() -> Iterator[InstanceTaskBatch]:
            cut = instance_batches(
                self.train_store, seed=config.train.seed, epoch=epoch, batch_size=size, crop_hw=context.crop_hw,
                section=config.augment, model_hw=config.data.size, resize=config.data.resize,
                resizer=config.data.resizer, part=part,
            )
            for number, batch in enumerate(cut):
                places = tuple(Place(config.train.seed, epoch, position) for position in slice_positions(number, size, part))
                objects = tuple(objects_of(label, context.device) for label in batch.labels)
                yield InstanceTaskBatch(torch.from_numpy(batch.frames_NHWC).to(context.device), objects, places, batch.ids)

        return Epoch(batches_per_epoch(len(self.train_store), size), stream())

    def loss(self, net: nn.Module, batch: InstanceTaskBatch) -> Tensor:
        """Sum of the five losses, a mean over frames."""
        frames, frame_hw = len(batch.objects), (int(batch.frames_NHWC.shape[1]), int(batch.frames_NHWC.shape[2]))
        with self.context.autocast():
            regions: Regions = net(normalise(batch.frames_NHWC))
        network = _network(net)
        anchors_A4 = regions.anchors_A4
        losses: list[Tensor] = []
        chosen = []
        for i, (objects, place) in enumerate(zip(batch.objects, batch.places, strict=True)):
            losses += _proposal_losses(regions.scores_NA[i], regions.deltas_NA4[i], anchors_A4, objects, place)
            chosen.append(_choose(network, _detached(regions), i, frame_hw, objects, place))
        sizes = [len(c.boxes_S4) for c in chosen]
        frame_S = torch.arange(frames).repeat_interleave(torch.tensor(sizes)).to(anchors_A4.device)
        positives = [min(BOX_POSITIVES, len(c.boxes_S4)) for c in chosen]  # of each frame the first; see `Sample`
        with self.context.autocast():
            features = network.look_up(regions.levels, torch.cat([c.boxes_S4 for c in chosen]), frame_S)
            scores_SC, deltas_SD = network.box_head(features)
            per_frame = features.split(sizes)
            rows_D = torch.cat([c.classes_S[:count] for c, count in zip(chosen, positives, strict=True)])
            masks_Dmm = network.mask_head(
                torch.cat([part[:count] for part, count in zip(per_frame, positives, strict=True)]), (rows_D - 1).clamp(min=0)
            )
        for c, scores, deltas, masks, count, objects in zip(
            chosen, scores_SC.split(sizes), deltas_SD.split(sizes), masks_Dmm.split(positives), positives, batch.objects, strict=True
        ):
            deltas_SO4 = deltas.view(len(deltas), -1, 4)
            own_S4 = deltas_SO4[torch.arange(len(deltas), device=deltas.device), (c.classes_S - 1).clamp(min=0)]
            losses += box_losses(scores, own_S4, c.classes_S, c.used_S, c.wanted_S4)
            if len(objects.boxes_G4):
                wanted = mask_targets(objects.masks_GHW, c.object_S[:count], c.boxes_S4[:count], masks.shape[-1])
                losses.append(mask_loss(masks, wanted, c.classes_S[:count] > 0))
            else:
                losses.append(masks.sum() * 0.0)  # every parameter has a gradient in every step
        return torch.stack(losses).sum() / frames

    def validate(self, net: nn.Module) -> Validation:
        """Mask AP; the first process answers all frames and tells the others."""
        context = self.context
        result = None
        if context.ranks.is_first:
            score = evaluate_instances(
                instance_predictor(net, len(context.data.classes), context.device), self.val_store, context.contract
            )
            result = {"val_ap": score.ap, "val_ap50": score.ap50, "val_box_ap": score.box_ap}
        metrics: dict[str, float] = context.ranks.told(result)
        return Validation(score=metrics["val_ap"], metric="mask AP", metrics=metrics)


def _network(net: nn.Module) -> MaskRcnn:
    """The network itself where `net` is a compiled form of it."""
    plain = getattr(net, "_orig_mod", net)
    assert isinstance(plain, MaskRcnn), "the task is 'instance' and the network gives a class a pixel"
    return plain


def _detached(regions: Regions) -> Regions:
    return regions._replace(scores_NA=regions.scores_NA.detach().float(), deltas_NA4=regions.deltas_NA4.detach().float())


def _proposal_losses(scores_A: Tensor, deltas_A4: Tensor, anchors_A4: Tensor, objects: Objects, place: Place) -> tuple[Tensor, Tensor]:
    matched = match(anchors_A4, objects, above=0.7, below=0.3, best_too=True)
    keys_A = place.numbers(ANCHORS, len(anchors_A4), anchors_A4.device)
    drawn = sample(matched, keys_A, count=ANCHOR_SAMPLES, most_positive=ANCHOR_POSITIVES)
    anchors_S4 = anchors_A4[drawn.index_S]
    wanted_S4 = _wanted(anchors_S4, objects, matched.object_A[drawn.index_S], (1.0, 1.0))
    return proposal_losses(scores_A[drawn.index_S], deltas_A4[drawn.index_S], drawn.positive_S, drawn.used_S, wanted_S4)


@dataclass(frozen=True)
class _Chosen:
    """Boxes of one frame that the second stage learns from, positives first."""

    boxes_S4: Tensor
    object_S: Tensor
    classes_S: Tensor
    used_S: Tensor
    wanted_S4: Tensor


@torch.no_grad()
def _choose(net: MaskRcnn, regions: Regions, frame: int, frame_hw: tuple[int, int], objects: Objects, place: Place) -> _Chosen:
    """Draw from the frame's proposals and the labelled boxes themselves, positive from IoU 0.5 on."""
    boxes_A4 = torch.cat([net.propose(regions, frame, frame_hw), objects.boxes_G4])
    matched = match(boxes_A4, objects, above=0.5, below=0.5, best_too=False)
    drawn = sample(matched, place.numbers(PROPOSALS, len(boxes_A4), boxes_A4.device), count=BOX_SAMPLES, most_positive=BOX_POSITIVES)
    boxes_S4, object_S = boxes_A4[drawn.index_S], matched.object_A[drawn.index_S]
    classes_S = torch.zeros_like(object_S)
    if len(objects.classes_G):
        classes_S = torch.where(drawn.positive_S, objects.classes_G[object_S], classes_S)
    return _Chosen(boxes_S4, object_S, classes_S, drawn.used_S, _wanted(boxes_S4, objects, object_S, BOX_WEIGHTS))


def _wanted(boxes_S4: Tensor, objects: Objects, object_S: Tensor, weights: tuple[float, float]) -> Tensor:
    if not len(objects.boxes_G4):
        return torch.zeros_like(boxes_S4)
    return encode(boxes_S4, objects.boxes_G4[object_S], weights)
