"""Objects one by one: what a label says of them, and what a model answers.

A model of task `instance` has two outputs of fixed size (`from_outputs` reads them): `detections`, float32 [K, 6] = x0, y0, x1, y1 in
pixels at model size, score (0 = empty slot), class; and `masks`, uint8 [K, 28, 28] = 0..255 for probability 0..1 over the box.

Legend: N = objects labelled, K = objects found, H/W = rows/columns of the frame, h/w = rows/columns of a mask inside its box.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.errors import BundleError
from edgeseg.core.files import atomic_path
from edgeseg.core.images import ClassMap

MASK_SIZE: Final = 28
"""Rows and columns of a mask inside its box (He et al. 2017, arXiv:1703.06870)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InstanceLabel:
    """The labelled objects of one frame, at the frame's own size, upright."""

    boxes_N4: NDArray[np.float32]
    """x0, y0, x1, y1 in pixels, edges at integers: the tightest box around the mask, x1 and y1 one past its last pixel."""
    classes_N: NDArray[np.int64]
    """Index into the classes of the data set; class 0 is background and never an object."""
    masks_NHW: NDArray[np.bool_]
    """Which pixels each object has; objects may overlap."""
    crowd_N: NDArray[np.bool_]
    """A crowd is a region of objects nobody told apart: neither learned nor counted as a miss."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """The objects found in one frame, highest score first; none found = arrays of length 0."""

    boxes_K4: NDArray[np.float32]
    """x0, y0, x1, y1 in pixels (of the model's size or of the frame, as the giver says); the box covers x0 <= x < x1."""
    scores_K: NDArray[np.float32]
    """Above 0, at most 1."""
    classes_K: NDArray[np.int64]
    """Index into `manifest.classes`; class 0 is background and never an object."""
    masks_Khw: NDArray[np.uint8]
    """[K, 28, 28], 0..255 = probability 0..1, over the box: sample (i, j) lies at the middle of the cell of row i and column j."""

    def __len__(self) -> int:
        """How many objects were found."""
        return len(self.scores_K)


def from_outputs(detections_K6: NDArray[np.float32], masks_Khw: NDArray[np.uint8], *, num_classes: int) -> Instances:
    """Read the two outputs of an instance model: drop empty slots, sort by falling score (ties keep their order).

    Raises:
        ValueError: shapes differ from [K, 6] and [K, 28, 28], a value is not finite, a score above 1, or a class outside 1..C-1.
    """
    if detections_K6.ndim != 2 or detections_K6.shape[1] != 6 or masks_Khw.shape != (len(detections_K6), MASK_SIZE, MASK_SIZE):
        raise ValueError(f"detections {list(detections_K6.shape)} and masks {list(masks_Khw.shape)} are not [K, 6] and [K, 28, 28]")
    if not np.isfinite(detections_K6).all():
        raise ValueError("detections hold NaN or infinity")
    used = np.flatnonzero(detections_K6[:, 4] > 0)
    order = used[np.argsort(-detections_K6[used, 4], kind="stable")]
    found = detections_K6[order]
    classes = np.rint(found[:, 5]).astype(np.int64)
    if len(order) and (found[0, 4] > 1 or classes.min() < 1 or classes.max() >= num_classes):
        raise ValueError(
            f"a score of {found[0, 4]:.3g} or classes {classes.min()}..{classes.max()} outside 1..{num_classes - 1}"
        )
    return Instances(
        boxes_K4=found[:, :4].astype(np.float32), scores_K=found[:, 4].astype(np.float32), classes_K=classes,
        masks_Khw=np.ascontiguousarray(masks_Khw[order]),
    )


Answer: TypeAlias = ClassMap | Instances
"""What a model says of one frame: a class map for task `semantic`, objects for task `instance`."""


def as_class_map(answer: Answer) -> ClassMap:
    """Give the answer of a semantic model, of which the caller knows that it is one."""
    assert not isinstance(answer, Instances), "an instance model was asked for a class map"
    return answer


def as_instances(answer: Answer) -> Instances:
    """Give the answer of an instance model, of which the caller knows that it is one."""
    assert isinstance(answer, Instances), "a semantic model was asked for objects"
    return answer


_FILES: Final = {"boxes": ("<f4", (4,)), "scores": ("<f4", ()), "classes": ("<i8", ()), "masks": ("|u1", (MASK_SIZE, MASK_SIZE))}
"""Arrays of an .npz file: dtype, and shape behind the first axis."""


def write_instances(path: Path, found: Instances) -> None:
    """Write an .npz of four plain arrays, atomically; same objects, same bytes (numpy's own savez stamps the time of day)."""
    import zipfile  # not loaded by who writes none

    arrays = {"boxes": found.boxes_K4, "scores": found.scores_K, "classes": found.classes_K, "masks": found.masks_Khw}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, (dtype, _) in _FILES.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(arrays[name], dtype=dtype), allow_pickle=False)


def read_instances(path: Path) -> Instances:
    """Read what `write_instances` wrote; nothing in the file is ever executed.

    Raises:
        BundleError: damaged, or other arrays than those.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:  # given a path, numpy leaves a bad file open
            arrays = {name: archive[name] for name in sorted(archive.files)}
    except Exception as error:  # numpy, zipfile and zlib raise a dozen types for damaged files
        raise BundleError(f"{path.name}: not a readable .npz of plain arrays; copy or export the bundle again") from error
    count = len(arrays["scores"]) if "scores" in arrays and arrays["scores"].ndim else 0
    for name, (dtype, shape) in _FILES.items():
        got = arrays.get(name)
        if got is None or got.dtype != np.dtype(dtype) or got.shape != (count, *shape) or len(arrays) != len(_FILES):
            raise BundleError(f"{path.name}: expected the arrays {', '.join(_FILES)} of one length; export the bundle again")
    return Instances(boxes_K4=arrays["boxes"], scores_K=arrays["scores"], classes_K=arrays["classes"], masks_Khw=arrays["masks"])
