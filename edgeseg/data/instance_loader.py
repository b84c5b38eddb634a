"""Training batches of frames with their objects: the order, the crops and the colours of `edgeseg.data.loader`, masks moved one by one.

Order and augmentation are functions of (seed, epoch, position) alone (Philox, see `edgeseg.data.loader`): the same numbers of the same
generator, so that a frame is seen as a semantic network would see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.config import AugmentSection
from edgeseg.core.images import Frame
from edgeseg.core.instances import InstanceLabel
from edgeseg.data.augment import View, draw, look
from edgeseg.data.instance_store import InstanceStore
from edgeseg.data.loader import augmentation_generator, batches_per_epoch, epoch_order, prepared, slice_positions
from edgeseg.data.objects import ObjectMask, instance_label

MIN_SIDE: Final = 2
"""An object of which a crop shows less than this many rows or columns is left out: nothing can be learned from a sliver."""


@dataclass(frozen=True)
class InstanceBatch:
    """`frames_NHWC` uint8 RGB, the objects of each (at crop size), and the samples they were cut from."""

    frames_NHWC: NDArray[np.uint8]
    labels: tuple[InstanceLabel, ...]
    ids: tuple[str, ...]


def augment_instances(
    frame_HWC: Frame,
    label: InstanceLabel,
    *,
    crop_hw: tuple[int, int],
    section: AugmentSection,
    rng: np.random.Generator,
    model_hw: tuple[int, int] | None = None,
    resize: str = "stretch",
    resizer: str = "pillow",
) -> tuple[Frame, InstanceLabel]:
    """Cut one augmented crop, uint8 [h, w, 3], with the objects it shows; boxes are the tightest around what is left of the masks.

    Arguments as for `edgeseg.data.augment.augment`.

    Raises:
        ConfigError: an unknown resize policy.
        MissingExtraError: `resizer` is not installed.
    """
    view = look(draw(section, rng), frame_hw=(frame_HWC.shape[0], frame_HWC.shape[1]), crop_hw=crop_hw, model_hw=model_hw, resize=resize)
    return view.frame(frame_HWC, resizer), _move(label, view)


def _move(label: InstanceLabel, view: View) -> InstanceLabel:
    rows, columns = view.read_yx
    objects = []
    for mask_HW, index, crowd, (x0, y0, x1, y1) in zip(
        label.masks_NHW, label.classes_N.tolist(), label.crowd_N.tolist(), label.boxes_N4.tolist(), strict=True
    ):
        if y1 > rows.start and y0 < rows.stop and x1 > columns.start and x0 < columns.stop:
            moved = view.label(mask_HW.view(np.uint8), outside=0).view(np.bool_)
            objects.append(ObjectMask(moved, index, crowd))
    moved_label = instance_label(view.crop_hw, objects)
    sides = moved_label.boxes_N4[:, 2:] - moved_label.boxes_N4[:, :2]
    keep = (sides >= MIN_SIDE).all(axis=1)
    return InstanceLabel(boxes_N4=moved_label.boxes_N4[keep], classes_N=moved_label.classes_N[keep],
                         masks_NHW=moved_label.masks_NHW[keep], crowd_N=moved_label.crowd_N[keep])


def instance_batches(
    store: InstanceStore,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    crop_hw: tuple[int, int],
    section: AugmentSection,
    model_hw: tuple[int, int],
    resize: str,
    resizer: str = "pillow",
    num_workers: int = 1,
    part: tuple[int, int] = (0, 1),
) -> Iterator[InstanceBatch]:
    """Give the batches of one epoch; arguments and order as for `edgeseg.data.loader.batches`. A crop may show no object."""
    order = epoch_order(len(store), seed=seed, epoch=epoch)

    def prepare(number: int) -> InstanceBatch:
        positions = slice_positions(number, batch_size, part)
        picks = [order[position % len(order)] for position in positions]
        frames = np.empty((len(picks), *crop_hw, 3), dtype=np.uint8)
        labels = []
        for row, (position, pick) in enumerate(zip(positions, picks, strict=True)):
            rng = augmentation_generator(seed, epoch=epoch, position=position)
            frame, label = store[pick]
            frames[row], moved = augment_instances(
                frame, label, crop_hw=crop_hw, section=section, rng=rng, model_hw=model_hw, resize=resize, resizer=resizer
            )
            labels.append(moved)
        return InstanceBatch(frames, tuple(labels), tuple(store.samples[pick].id for pick in picks))

    return prepared(prepare, batches_per_epoch(len(store), batch_size), num_workers=num_workers)
