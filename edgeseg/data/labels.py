"""Masks that do not hold class indices: black and white, in colours, or one file an object.

Where black-and-white masks are cut: at the middle, 127 | 128. Lossy masks are smeared around edges, and nearer to one side there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.errors import DataError
from edgeseg.core.images import IGNORE_INDEX, ClassMap, open_image
from edgeseg.core.instances import InstanceLabel
from edgeseg.data.base import Palette, counted
from edgeseg.data.objects import ObjectMask, instance_label, paint

LOSSY_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".webp"})
MIDDLE: Final = 127
_CLEAR: Final = 64
"""A gray value this far from black and from white is neither."""
_MANY_VALUES: Final = 16
"""Values that masks with soft edges have at least."""


def gray_values(path: Path) -> NDArray[np.uint8]:
    """Values of a mask that ought to be gray: uint8 [H, W]; of a palette mask its indices, of three equal channels one.

    Raises:
        DataError: unreadable, or a lossless mask in colours.
    """
    image = open_image(path, name=path.name)
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in ("L", "P"):
        return np.ascontiguousarray(np.asarray(image, dtype=np.uint8))
    if image.mode in ("LA", "RGB", "RGBA"):
        channels = np.asarray(image)
        colour = channels[:, :, : 1 if image.mode == "LA" else 3]
        if path.suffix.lower() in LOSSY_SUFFIXES:
            mean = (colour.astype(np.uint16).sum(axis=2) + colour.shape[2] // 2) // colour.shape[2]
            return np.asarray(mean, dtype=np.uint8)
        if (colour == colour[:, :, :1]).all():
            return np.ascontiguousarray(colour[:, :, 0])
    raise DataError(f"{path.name}: a mask of mode {image.mode} where black and white was expected; save it as 8-bit gray PNG")


@dataclass(frozen=True)
class BinaryMask:
    """Reads a black-and-white mask: 0 = background, 1 = object; nothing is ignored."""

    cut_anything: bool
    """Whether lossless masks may hold other values than 0 and 255 (soft edges)."""

    def __call__(self, path: Path) -> ClassMap:
        """Class map uint8 [H, W] of 0 and 1.

        Raises:
            DataError: unreadable, in colours, or a lossless mask with gray values unless `cut_anything`.
        """
        values = gray_values(path)
        if not self.cut_anything and path.suffix.lower() not in LOSSY_SUFFIXES:
            strange = values[(values != 0) & (values != 255)]
            if strange.size:
                raise DataError(f"{path.name}: masks looked at first hold 0 and 255 only, this one has the value {int(strange[0])} ("
                                f"{strange.size} pixels are neither); set [data] masks = \"binary\" to cut all at the middle, \"index\" to "
                                "ignore 255")
        return (values > MIDDLE).astype(np.uint8)


@dataclass(frozen=True)
class ColourMask:
    """Reads a mask of colours, one a class; masks of indices are read as such."""

    palette: Palette
    ignored: tuple[int, int, int] | None = None

    def __call__(self, path: Path) -> ClassMap:
        """Class map uint8 [H, W].

        Raises:
            DataError: unreadable, or a colour that no class has.
        """
        image = open_image(path, name=path.name)
        if image.mode in ("1", "L", "P"):
            return np.ascontiguousarray(np.asarray(image).astype(np.uint8))
        packed_HW = _packed(np.asarray(image.convert("RGB")))
        colours, inverse = np.unique(packed_HW, return_inverse=True)
        index_of = {int(_packed(np.array(colour))): index for index, colour in enumerate(self.palette)}
        if self.ignored is not None:
            index_of[int(_packed(np.array(self.ignored)))] = IGNORE_INDEX
        strange = [int(colour) for colour in colours if int(colour) not in index_of]
        if strange:
            counts = {colour: int((packed_HW == colour).sum()) for colour in strange[:4]}
            shown = ", ".join(f"#{colour:06x} ({counted(count, 'pixel')})" for colour, count in counts.items())
            lossy = "; lossy compression smears colours, masks in colours need PNG" if path.suffix.lower() in LOSSY_SUFFIXES else ""
            shown += ", ..." if len(strange) > 4 else ""
            raise DataError(f"{path.name}: {counted(len(strange), 'colour')} that no class has: {shown}{lossy}; complete the palette, or "
                            "name the colour that means ignore in [data] ignore_colour")
        table = np.array([index_of[int(colour)] for colour in colours], dtype=np.uint8)
        return np.ascontiguousarray(table[inverse.reshape(packed_HW.shape)])


@dataclass(frozen=True)
class ObjectFiles:
    """Reads one mask file an object: black and white, 0/1 or 0/255, lossy or not."""

    files: tuple[tuple[Path, int], ...]
    """Mask and its class index."""

    def __call__(self, path: Path) -> ClassMap:
        """Class map uint8 [H, W]; overlaps by the rule of `edgeseg.data.objects`."""
        objects = self._objects()
        return paint(_hw(objects), objects)

    def instances(self) -> InstanceLabel:
        """Give the objects, in the order of their files' names."""
        objects = self._objects()
        return instance_label(_hw(objects), objects)

    def _objects(self) -> list[ObjectMask]:
        objects: list[ObjectMask] = []
        for path, index in self.files:
            values = gray_values(path)
            lossless_bits = path.suffix.lower() not in LOSSY_SUFFIXES and int(values.max(initial=0)) == 1
            one = ObjectMask(values == 1 if lossless_bits else values > MIDDLE, index)
            if objects and one.mask_HW.shape != objects[0].mask_HW.shape:
                (h, w), (first_h, first_w) = one.mask_HW.shape, objects[0].mask_HW.shape
                raise DataError(f"{path.parent.name}/{path.name}: {w}x{h}, the first mask of the same image is {first_w}x{first_h}; "
                                "all need the image's size")
            objects.append(one)
        return objects


def looks_binary(path: Path) -> bool | None:
    """Whether a mask is black and white: 0 and 255 only, or smeared by lossy compression; `None` where it is all black or unreadable."""
    try:
        values = gray_values(path)
    except (DataError, OSError):
        return None
    counts = np.bincount(values.reshape(-1), minlength=256)
    if path.suffix.lower() in LOSSY_SUFFIXES:
        unclear = int(counts[_CLEAR : 256 - _CLEAR].sum())
        return None if not counts[_CLEAR:].any() else unclear <= 0.05 * values.size
    return None if counts[0] == values.size else int(counts[0] + counts[255]) == values.size


def looks_soft(counts_V: NDArray[np.int64]) -> bool:
    """Whether pixels per mask value, [256], look like black and white with soft edges: many values, few pixels far from both ends."""
    middle = int(counts_V[_CLEAR : 256 - _CLEAR].sum())
    bright = counts_V[256 - _CLEAR : IGNORE_INDEX].any()  # 255 alone may mean ignore
    return bool(np.count_nonzero(counts_V) >= _MANY_VALUES and bright and 0 < middle <= counts_V.sum() // 4)


def _hw(objects: list[ObjectMask]) -> tuple[int, int]:
    height, width = objects[0].mask_HW.shape
    return int(height), int(width)


def _packed(colours: NDArray[np.generic]) -> NDArray[np.int64]:
    """R, G, B in the last axis as one number."""
    return colours.astype(np.int64) @ np.array([65536, 256, 1], dtype=np.int64)
