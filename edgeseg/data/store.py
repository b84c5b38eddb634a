"""Decoded frames: read once, kept as uint8 in memory, or in one memory-mapped file where they exceed the limit."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeseg.core.errors import DataError
from edgeseg.core.files import atomic_path, sha256_json
from edgeseg.core.images import IGNORE_INDEX, ClassMap, Frame, read_frame
from edgeseg.data.base import Sample, counted

BYTES_PER_PIXEL: Final = 4  # three of the frame, one of the label
_DECODERS: Final = min(4, os.cpu_count() or 1)


def read_sample(sample: Sample, *, num_classes: int) -> tuple[Frame, ClassMap]:
    """Decode one sample: frame uint8 [H, W, 3] RGB and label uint8 [H, W], EXIF orientation applied to both.

    Raises:
        DataError: unreadable, sizes differ, or a label value outside the classes (with counts).
    """
    frame = read_frame(sample.image, name=_show(sample.image))
    label = sample.read_label(sample.label)
    if frame.shape[:2] != label.shape:
        raise DataError(f"{_show(sample.shown)}: {size_mismatch(sample, frame.shape[:2], label.shape)}")
    strange = strange_values(label, num_classes)
    if strange:
        raise DataError(f"{_show(sample.shown)}: {explain_strange(strange, num_classes)}")
    return frame, label


def size_mismatch(sample: Sample, frame_hw: tuple[int, ...], label_hw: tuple[int, ...]) -> str:
    """Say how the sizes differ, and what that usually means; of a JSON file that gives the size, where to correct it."""
    listed = sample.label.suffix.lower() == ".json"
    given = f"{'/'.join(sample.label.parts[-2:])} gives" if listed else "mask is"
    said = f"{given} {label_hw[1]}x{label_hw[0]}, its image {'has ' * listed}{frame_hw[1]}x{frame_hw[0]} (width x height)"
    if tuple(frame_hw) == tuple(label_hw)[::-1]:
        return said + "; width and height are swapped: one of them was turned by 90 degrees, or its EXIF orientation was lost"
    return said + ("; correct width and height there" if listed else "; both need the same size")


def strange_values(label_HW: ClassMap, num_classes: int) -> dict[int, int]:
    """Label values outside 0..`num_classes`-1 and 255, with how many pixels each has."""
    counts = np.bincount(label_HW.reshape(-1), minlength=256)
    return {value: int(counts[value]) for value in range(num_classes, IGNORE_INDEX) if counts[value]}


def explain_strange(strange: dict[int, int], num_classes: int) -> str:
    """Put `strange_values` into words."""
    shown = ", ".join(f"{value} ({counted(count, 'pixel')})" for value, count in list(strange.items())[:5])
    more = f" and {len(strange) - 5} other values" if len(strange) > 5 else ""
    return f"mask values {shown}{more} are outside the classes 0..{num_classes - 1} (255 = ignore)"


@dataclass(frozen=True)
class _Slot:
    """Where a sample lies in the memory-mapped file, and its size."""

    offset: int
    height: int
    width: int


class FrameStore:
    """Frames and labels of `samples` at their own size, decoded and validated when the store is made.

    Up to `memory_limit_mb` (10^6 bytes) they stay in memory. Above, they go to one memory-mapped file in `cache_dir`, which the next
    process finds again (its name hashes path, size and time of every file); with no `cache_dir`, to an unnamed temporary file.

    Raises:
        DataError: see `read_sample`; the first bad file in the order of `samples` is named.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        num_classes: int,
        memory_limit_mb: int,
        cache_dir: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.samples: tuple[Sample, ...] = tuple(samples)
        self.num_classes = num_classes
        self._progress = progress
        self._memory: list[tuple[Frame, ClassMap]] = []
        self._mapped: NDArray[np.uint8] | None = None
        self._slots: list[_Slot] = []
        sizes = [_frame_hw(sample) for sample in self.samples]
        total = BYTES_PER_PIXEL * sum(height * width for height, width in sizes)
        if total <= memory_limit_mb * 1_000_000:
            self._memory = list(self._decode())
            for pair in self._memory:
                for array in pair:
                    array.setflags(write=False)
            return
        offset = 0
        for height, width in sizes:
            self._slots.append(_Slot(offset, height, width))
            offset += BYTES_PER_PIXEL * height * width
        self._mapped = self._map(total, cache_dir)

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Frame, ClassMap]:
        """Frame uint8 [H, W, 3] and label uint8 [H, W] of sample `index`, read-only."""
        if self._mapped is None:
            return self._memory[index]
        slot = self._slots[index]
        pixels = slot.height * slot.width
        start = slot.offset
        frame = self._mapped[start : start + 3 * pixels].reshape(slot.height, slot.width, 3)
        label = self._mapped[start + 3 * pixels : start + 4 * pixels].reshape(slot.height, slot.width)
        return frame, label

    def __iter__(self) -> Iterator[tuple[Frame, ClassMap]]:
        """Give all pairs in order."""
        return (self[index] for index in range(len(self)))

    @property
    def is_mapped(self) -> bool:
        """Whether the frames lie in a file."""
        return self._mapped is not None

    def _decode(self) -> Iterator[tuple[Frame, ClassMap]]:
        """Decode in order on a few threads (Pillow releases the interpreter lock), a bounded number ahead."""

        def read(sample: Sample) -> tuple[Frame, ClassMap]:
            return read_sample(sample, num_classes=self.num_classes)

        step = 4 * _DECODERS
        with ThreadPoolExecutor(_DECODERS) as pool:
            for start in range(0, len(self.samples), step):
                for offset, pair in enumerate(pool.map(read, self.samples[start : start + step])):
                    yield pair
                    if self._progress is not None:
                        self._progress(start + offset + 1, len(self.samples))

    def _map(self, total: int, cache_dir: Path | None) -> NDArray[np.uint8]:
        if cache_dir is None:
            with tempfile.TemporaryFile() as stream:
                self._write(stream)
                return np.memmap(stream, dtype=np.uint8, mode="r", shape=(total,))
        path = cache_dir / f"frames-{self._key()}.bin"
        if not (path.is_file() and path.stat().st_size == total):
            with atomic_path(path) as temporary, temporary.open("wb") as stream:
                self._write(stream)
        return np.memmap(path, dtype=np.uint8, mode="r", shape=(total,))

    def _write(self, stream: IO[bytes]) -> None:
        """Write what `_slots` describes. Not through the memory map: there, a full disk kills the process (SIGBUS)."""
        for slot, (frame, label) in zip(self._slots, self._decode(), strict=True):
            if label.shape != (slot.height, slot.width):
                raise DataError(f"a frame changed its size while it was read ({label.shape[1]}x{label.shape[0]}); run the command again")
            stream.write(frame.tobytes())
            stream.write(label.tobytes())
        stream.flush()

    def _key(self) -> str:
        """Identity of the decoded content, cheap to take: no file is read."""
        rows = []
        for sample in self.samples:
            for path in sample.files:
                stat = path.stat()
                rows.append([sample.id, str(path.resolve()), stat.st_size, stat.st_mtime_ns, *([sample.reading] if sample.reading else [])])
        return sha256_json({"format": 1, "num_classes": self.num_classes, "files": rows})[:24]


def _frame_hw(sample: Sample) -> tuple[int, int]:
    """Size of the frame after EXIF orientation, from the file's header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(sample.image) as image:
                turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
                return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # Pillow raises a dozen types for damaged files
        height, width = read_frame(sample.image, name=_show(sample.image)).shape[:2]  # raises the message for users
        return int(height), int(width)


def _show(path: Path) -> str:
    return "/".join(path.parts[-3:])
