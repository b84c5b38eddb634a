"""Decoded frames with their objects: what fits the limit stays in memory, the rest is decoded anew each time it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.errors import DataError
from edgeseg.core.images import Frame, read_frame
from edgeseg.core.instances import InstanceLabel
from edgeseg.data.base import Sample
from edgeseg.data.store import size_mismatch

_DECODERS: Final = 2


@dataclass(frozen=True, eq=False)
class _Packed:
    """An `InstanceLabel` with each mask as the bits inside its box: what 40 masks of a large frame take fits in one frame's bytes."""

    frame_hw: tuple[int, int]
    boxes_N4: NDArray[np.float32]
    classes_N: NDArray[np.int64]
    crowd_N: NDArray[np.bool_]
    bits: tuple[NDArray[np.uint8], ...]

    @property
    def num_bytes(self) -> int:
        return sum(bits.nbytes + 100 for bits in self.bits)

    def unpack(self) -> InstanceLabel:
        masks = np.zeros((len(self.bits), *self.frame_hw), dtype=np.bool_)
        for mask_HW, bits, (x0, y0, x1, y1) in zip(masks, self.bits, self.boxes_N4.astype(np.int64).tolist(), strict=True):
            inside = np.unpackbits(bits, count=(y1 - y0) * (x1 - x0)).reshape(y1 - y0, x1 - x0)
            mask_HW[y0:y1, x0:x1] = inside
        return InstanceLabel(boxes_N4=self.boxes_N4, classes_N=self.classes_N, masks_NHW=masks, crowd_N=self.crowd_N)


def _pack(label: InstanceLabel) -> _Packed:
    boxes = label.boxes_N4.astype(np.int64).tolist()
    bits = tuple(np.packbits(mask_HW[y0:y1, x0:x1]) for mask_HW, (x0, y0, x1, y1) in zip(label.masks_NHW, boxes, strict=True))
    height, width = label.masks_NHW.shape[1:]
    return _Packed((height, width), label.boxes_N4, label.classes_N, label.crowd_N, bits)


def read_instances(sample: Sample, *, num_classes: int) -> tuple[Frame, InstanceLabel]:
    """Decode one sample: frame uint8 [H, W, 3] RGB and its objects, both upright.

    Raises:
        DataError: unreadable, sizes differ, a class outside 1..`num_classes`-1, or a layout that does not tell objects apart.
    """
    if sample.read_instances is None:
        raise DataError(f"{sample.id}: its labels are class maps, which do not tell objects apart; instances need COCO, Pascal VOC with "
                        "SegmentationObject, Cityscapes with instanceIds, or one mask file an object")
    frame = read_frame(sample.image, name=sample.image.name)
    label = sample.read_instances()
    if frame.shape[:2] != label.masks_NHW.shape[1:]:
        raise DataError(f"{sample.image.name}: {size_mismatch(sample, frame.shape[:2], label.masks_NHW.shape[1:])}")
    strange = label.classes_N[(label.classes_N < 1) | (label.classes_N >= num_classes)]
    if strange.size:
        raise DataError(f"{sample.image.name}: an object of class {int(strange[0])}; objects have the classes 1..{num_classes - 1}")
    return frame, label


class InstanceStore:
    """Frames and objects of `samples` at their own size, every one decoded and validated when the store is made.

    Frames (uint8) and masks (bits) stay in memory up to `memory_limit_mb` (10^6 bytes), in the order of `samples`; those beyond are
    decoded again on every access. May be read from several threads.

    Raises:
        DataError: see `read_instances`; the first bad sample in the order of `samples` is named.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        num_classes: int,
        memory_limit_mb: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.samples: tuple[Sample, ...] = tuple(samples)
        self.num_classes = num_classes
        self.object_counts: tuple[int, ...] = ()
        """Objects per sample, crowds not counted."""
        self._kept: list[tuple[Frame, _Packed]] = []
        left = memory_limit_mb * 1_000_000
        counts = []
        for done, (frame, label) in enumerate(self._decode(), start=1):
            counts.append(int(np.count_nonzero(~label.crowd_N)))
            packed = _pack(label)
            left -= frame.nbytes + packed.num_bytes
            if left >= 0:
                frame.setflags(write=False)
                self._kept.append((frame, packed))
            if progress is not None:
                progress(done, len(self.samples))
        self.object_counts = tuple(counts)

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Frame, InstanceLabel]:
        """Frame uint8 [H, W, 3] and objects of sample `index`."""
        if index < len(self._kept):
            frame, packed = self._kept[index]
            return frame, packed.unpack()
        return read_instances(self.samples[index], num_classes=self.num_classes)

    def __iter__(self) -> Iterator[tuple[Frame, InstanceLabel]]:
        """Give all pairs in order."""
        return (self[index] for index in range(len(self)))

    @property
    def num_kept(self) -> int:
        """How many samples stay in memory."""
        return len(self._kept)

    def _decode(self) -> Iterator[tuple[Frame, InstanceLabel]]:
        def read(sample: Sample) -> tuple[Frame, InstanceLabel]:
            return read_instances(sample, num_classes=self.num_classes)

        step = 2 * _DECODERS
        with ThreadPoolExecutor(_DECODERS) as pool:
            for start in range(0, len(self.samples), step):
                yield from pool.map(read, self.samples[start : start + step])
