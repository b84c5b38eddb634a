"""Ranges that were learnt in torch, carried to the tensors of any format.

Converters rename, fuse, split and transpose, so names say nothing. But the float graph computes the same numbers, whatever their order: a
value of the network and a tensor of a graph are the same where, on one probe frame, they have as many elements with the same order
statistics. Equal tensors (a reshaped or transposed copy) share a range. A tensor that no value matches is left to calibration, a value
that no tensor matches is named: the manifest counts both.

Legend: V = values watched, M = marks of a fingerprint, S = slots (ranges).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import TrainingError
from edgeseg.core.files import read_json, write_json
from edgeseg.core.images import Frame
from quantization.tensors import TENSORS

JSON_NAME: Final = "qat.json"
ARRAYS_NAME: Final = "qat.npz"
_ORDERS: Final = 33
"""Order statistics in a fingerprint, evenly spaced from the smallest value to the largest."""
_TOLERANCE: Final = 1e-3
"""Largest difference of two marks, relative to the largest magnitude: float rounding through a network gives 1e-5 to 1e-4."""

_Marks = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LearntRanges:
    """What quantization-aware training leaves beside its checkpoint."""

    names: tuple[str, ...]
    """Of each slot, for people."""
    ranges: tuple[tuple[float, float], ...]
    """(low, high) of each slot, 0 among its 256 values."""
    frame: Frame
    """The probe: uint8 at model size."""
    slots_V: tuple[int, ...]
    """Slot of each value watched; several values may share one."""
    sizes_V: tuple[int, ...]
    """Elements of each."""
    marks_VM: _Marks


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What of the learnt ranges arrived in a format."""

    ranges: dict[str, tuple[float, float]]
    """Tensor of the float graph -> (low, high), as `Int8Plan.ranges` takes it."""
    calibrated: int
    """Float tensors of the graph that no value matches: their ranges are left to calibration."""
    lost: tuple[str, ...]
    """Names of the slots that no tensor matches."""

    def facts(self) -> dict[str, Any]:
        """For the manifest."""
        return {"carried": len(self.ranges), "calibrated": self.calibrated, "lost": list(self.lost)}


def fingerprint(values: NDArray[Any]) -> _Marks:
    """Marks [M] of an array whatever its layout: mean, standard deviation, and order statistics from the smallest to the largest."""
    flat = np.asarray(values, dtype=np.float32).reshape(-1)
    ranks = np.linspace(0, flat.size - 1, _ORDERS).round().astype(np.int64)
    orders = np.partition(flat, np.unique(ranks))[ranks]
    return np.concatenate([[flat.mean(dtype=np.float64), flat.std(dtype=np.float64)], orders.astype(np.float64)])


def learnt(
    names: Sequence[str], ranges: Sequence[tuple[float, float]], frame: Frame, watched: Sequence[tuple[int, NDArray[Any]]]
) -> LearntRanges:
    """Make fingerprints of `watched`, pairs of slot and values on the probe `frame`."""
    return LearntRanges(
        names=tuple(names), ranges=tuple(ranges), frame=frame, slots_V=tuple(slot for slot, _ in watched),
        sizes_V=tuple(int(values.size) for _, values in watched), marks_VM=np.stack([fingerprint(values) for _, values in watched]),
    )


def carry(ranges: LearntRanges, bundle: Bundle) -> Carried:
    """Match the float tensors of an fp32 `bundle` with the learnt values, by what both are on the probe frame.

    Raises:
        ConfigError: no tensors can be looked at in this format.
    """
    (tensors,) = TENSORS[bundle.manifest.format].observe(bundle, [ranges.frame])
    sizes_V, slots_V = np.array(ranges.sizes_V), np.array(ranges.slots_V)
    found: dict[str, tuple[float, float]] = {}
    arrived: set[int] = set()
    for name, values in tensors.items():
        same_size = np.flatnonzero(sizes_V == values.size)
        if not same_size.size:
            continue
        alike = same_size[_distances(ranges.marks_VM[same_size], fingerprint(values)) <= _TOLERANCE]
        if alike.size:
            slots = sorted({int(slot) for slot in slots_V[alike]})
            arrived.update(slots)
            ends = [ranges.ranges[slot] for slot in slots]
            found[name] = (min(low for low, _ in ends), max(high for _, high in ends))
    lost = tuple(name for slot, name in enumerate(ranges.names) if slot not in arrived)
    return Carried(ranges=found, calibrated=len(tensors) - len(found), lost=lost)


def _distances(marks_VM: _Marks, marks_M: _Marks) -> NDArray[np.float64]:
    """Largest difference of the marks, relative to the largest magnitude, of each row."""
    scale_V = np.maximum(np.abs(marks_VM).max(axis=1), np.abs(marks_M).max())
    distance: NDArray[np.float64] = np.abs(marks_VM - marks_M).max(axis=1) / np.maximum(scale_V, np.finfo(np.float32).tiny)
    return distance


def save_ranges(folder: Path, ranges: LearntRanges) -> None:
    """Write `qat.json` and `qat.npz` into a checkpoint's folder; the same ranges give the same bytes."""
    values = asdict(ranges)
    arrays = {"frame": values.pop("frame"), "marks": values.pop("marks_VM")}
    write_json(folder / JSON_NAME, values)
    with zipfile.ZipFile(folder / ARRAYS_NAME, "w", zipfile.ZIP_DEFLATED) as archive:  # numpy's own savez stamps the time of day
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def load_ranges(folder: Path) -> LearntRanges:
    """Read what `save_ranges` wrote.

    Raises:
        TrainingError: it is missing or damaged.
    """
    try:
        raw = read_json(folder / JSON_NAME)
        with np.load(folder / ARRAYS_NAME, allow_pickle=False) as archive:
            return LearntRanges(
                names=tuple(raw["names"]), ranges=tuple((float(low), float(high)) for low, high in raw["ranges"]), frame=archive["frame"],
                slots_V=tuple(raw["slots_V"]), sizes_V=tuple(raw["sizes_V"]), marks_VM=archive["marks"],
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{folder}: learnt ranges are missing or damaged ({error}); train for int8 again: edgeseg quantize") from error
