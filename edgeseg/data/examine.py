"""Look at one sample and say everything that is wrong with it; `check` does so for all, `inspect` for some."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeseg.core.errors import DataError
from edgeseg.core.images import ClassMap, read_class_map, read_frame
from edgeseg.core.instances import InstanceLabel
from edgeseg.data.base import Problem, Sample, counted, relative
from edgeseg.data.choice import MAX_CLASSES
from edgeseg.data.labels import LOSSY_SUFFIXES
from edgeseg.data.orientation import edge_agreement
from edgeseg.data.store import size_mismatch
from edgeseg.data.suspicions import thumbnail

_ORIENTATION: Final = 0x0112
_INDEX_MODES: Final = ("1", "L", "P")
_MANY_COLOURS: Final = MAX_CLASSES + 1
"""More than these need not be known: they are no classes."""


@dataclass(kw_only=True)
class Examined:
    """What one sample is like."""

    frame_hw: tuple[int, int] | None = None
    """`None` where the image cannot be read."""
    counts: NDArray[np.int64] | None = None
    """Pixels per mask value, [256]; `None` where the mask cannot be read."""
    num_objects: dict[int, int] | None = None
    """Objects per class, crowds not counted; `None` where the layout does not tell them apart."""
    pixels_hash: bytes = b""
    """Hash of the decoded frame, so that a renamed or re-saved PNG is still recognised."""
    thumbnail: NDArray[np.uint8] | None = None
    """See `edgeseg.data.suspicions.thumbnail`."""
    colours: NDArray[np.uint32] | None = None
    """Of a mask in colours that no palette names: up to 256 of them, as 65536 R + 256 G + B; else `None`."""
    agreement: NDArray[np.float64] | None = None
    """See `edgeseg.data.orientation.edge_agreement`."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Header:
    mode: str
    orientation: int
    num_pictures: int


def examine(root: Path, sample: Sample) -> Examined:
    """Decode image and label and note whatever is wrong; raises nothing for bad files."""
    found = Examined()
    image_header = _header(sample.image)
    mask_header = _header(sample.label) if sample.own_label else None
    try:
        frame = read_frame(sample.image, name=sample.image.name)
    except (DataError, OSError) as error:
        found.problems.append(_unreadable(root, sample.image, error))
    else:
        found.frame_hw = (int(frame.shape[0]), int(frame.shape[1]))
        digest = hashlib.blake2b(repr(frame.shape).encode(), digest_size=16)
        digest.update(frame.tobytes())
        found.pixels_hash = digest.digest()
        found.thumbnail = thumbnail(frame)
    indices = sample.read_label is read_class_map
    if indices and mask_header is not None and mask_header.mode not in _INDEX_MODES and not mask_header.mode.startswith("I"):
        _examine_colours(root, sample, mask_header.mode, found)
    else:
        try:
            label = sample.read_label(sample.label)
            if sample.read_instances is not None:
                found.num_objects = _count(sample.read_instances())
        except (DataError, OSError) as error:
            found.problems.append(_unreadable(root, sample.label, error, kind="unreadable" if indices else "bad-label"))
        else:
            _examine_label(root, sample, label, found, image_header, mask_header)
            if found.frame_hw == label.shape:
                found.agreement = edge_agreement(frame, label)
    for path, header in ((sample.image, image_header), (sample.label, mask_header)):
        if header is not None and header.num_pictures > 1:
            found.warnings.append(Problem(file=relative(root, path), kind="several-pictures",
                                          message=f"holds {header.num_pictures} pictures; only the first is read"))
    return found


def _count(label: InstanceLabel) -> dict[int, int]:
    counts = np.bincount(label.classes_N[~label.crowd_N], minlength=1)
    return {int(index): int(counts[index]) for index in np.flatnonzero(counts)}


def _examine_label(
    root: Path, sample: Sample, label: ClassMap, found: Examined, image_header: _Header | None, mask_header: _Header | None
) -> None:
    file = relative(root, sample.shown)
    found.counts = np.bincount(label.reshape(-1), minlength=256).astype(np.int64)
    if sample.read_label is read_class_map and sample.label.suffix.lower() in LOSSY_SUFFIXES:
        found.warnings.append(Problem(file=file, kind="lossy-mask", message="lossy compression changes class indices; save it as PNG"))
    if found.counts[255] == label.size:
        found.warnings.append(Problem(file=file, kind="all-ignored", message="every pixel is 255 (ignore); the frame teaches nothing"))
    if found.frame_hw is None:
        return
    mask_hw = (int(label.shape[0]), int(label.shape[1]))
    turned = image_header.orientation if image_header is not None else 1
    mask_turned = mask_header.orientation if mask_header is not None else 1
    if mask_hw != found.frame_hw:
        message = size_mismatch(sample, found.frame_hw, mask_hw)
        if turned != mask_turned and mask_header is None:
            message += f" (EXIF orientation of the image: {turned}; its size is that of the upright image)"
        elif turned != mask_turned:
            message += f" (EXIF orientation: image {turned}, mask {mask_turned}; store both upright)"
        found.problems.append(Problem(file=file, kind="size-mismatch", message=message))
    elif turned != mask_turned and ((turned < 5 and mask_turned < 5) or mask_hw[0] == mask_hw[1]):
        # A quarter turn of an oblong frame shows in the size; anything else does not.
        found.warnings.append(Problem(
            file=file, kind="exif-orientation",
            message=f"EXIF orientation of the image is {turned}, of its mask {mask_turned}; sizes cannot tell whether the mask was drawn "
                    "on the upright image (then all is well) or on the stored pixels (then it is turned); look, or store both upright"))


def _header(path: Path) -> _Header | None:
    """Mode, orientation and size without decoding; `None` where even that cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                orientation = int(image.getexif().get(_ORIENTATION, 1) or 1)
                count = int(getattr(image, "n_frames", 1))
                return _Header(mode=image.mode, orientation=orientation, num_pictures=count)
    except Exception:  # Pillow raises a dozen types for damaged files; decoding says what is wrong
        return None


def _unreadable(root: Path, path: Path, error: DataError | OSError, *, kind: str = "unreadable") -> Problem:
    if isinstance(error, PermissionError):
        message = "no permission to read it"
    elif isinstance(error, DataError):
        empty = path.is_file() and path.stat().st_size == 0
        message = "the file is empty (0 bytes)" if empty else str(error).removeprefix(f"{path.name}: ")
    else:
        message = f"cannot be read: {error.strerror or error}"
    return Problem(file=relative(root, path), kind=kind, message=message)


def _colours(path: Path) -> NDArray[np.uint32] | None:
    """Colours of a mask as 65536 R + 256 G + B, rising; `None` where it cannot be decoded."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    except Exception:  # Pillow raises a dozen types for damaged files; what is known is said
        return None
    return np.unique(pixels.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32))


def _examine_colours(root: Path, sample: Sample, mode: str, found: Examined) -> None:
    """Note a mask in colours where class indices were expected."""
    said = f"a colour mask (mode {mode}) where class indices were expected, as 8-bit gray or palette PNG"
    colours = _colours(sample.label)
    lossy = sample.label.suffix.lower() in LOSSY_SUFFIXES
    gray = colours is not None and bool(((colours >> 16 == colours & 255) & (colours >> 8 & 255 == colours & 255)).all())
    if gray and lossy:
        said += "; it looks like a gray mask smeared by lossy compression: cut it at the middle between its values and save it as PNG"
    elif gray:
        said += "; its three channels are equal: save it as 8-bit gray"
    elif colours is not None:
        smeared = " (lossy compression adds some)" if lossy else ""
        said += (f"; it has {counted(len(colours), 'colour')}{smeared}: {_hex(colours)}; where they mean classes, "
                 "name them all in [data] palette, or in dataset.json")
        found.colours = colours[:_MANY_COLOURS]
    found.problems.append(Problem(file=relative(root, sample.label), kind="colour-mask", message=said))


def _hex(colours: NDArray[np.uint32], *, most: int = 4, form: str = "#{:06x}") -> str:
    return ", ".join(form.format(colour) for colour in colours[:most].tolist()) + (", ..." if len(colours) > most else "")


def problems_of(looks: Sequence[Examined]) -> list[Problem]:
    """What is wrong with each sample; where most masks are in colours that no palette names, that is one problem."""
    coloured = [look.colours for look in looks if look.colours is not None]
    if len(coloured) < 2 or 2 * len(coloured) <= len(looks):
        return [problem for look in looks for problem in look.problems]
    colours = np.unique(np.concatenate(coloured))
    said = f"{len(coloured)} of {len(looks)} masks are in colours, and no palette says which class a colour means; "
    if len(colours) > MAX_CLASSES:
        said += (f"they have more than {MAX_CLASSES}, which is no set of classes: lossy compression and soft edges add colours; save masks "
                 "as PNG, one colour a class")
    else:
        listed = _hex(colours, most=12, form='"#{:06x}"')
        said += f"name all {len(colours)} in the order of the classes: --set 'data.palette=[{listed}]', or palette in dataset.json"
    rest = [one for look in looks for one in look.problems if look.colours is None or one.kind != "colour-mask"]
    return [Problem(file=".", kind="colour-mask", message=said), *rest]
