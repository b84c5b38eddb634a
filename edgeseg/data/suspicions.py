"""What looks odd once all samples have been seen: look-alikes in two splits, rare classes, frames that lie on their side.

None of it is wrong for certain, so all of it is a warning.

Legend: N = samples, B = bits, S = sides of a thumbnail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeseg.core.images import IGNORE_INDEX, Frame
from edgeseg.data.base import SPLITS, Problem, Sample, counted, relative
from edgeseg.data.choice import is_background

_SIDE: Final = 16
MAX_BITS: Final = 32
"""Look-alikes differ in at most so many of the 256 bits of their dHash: copies that were shrunk, darkened or saved as JPEG of quality 30
differed in 0 to 34, different frames of CamVid, COCO, nuclei and EM slices in 37 and more ..."""
MIN_CORRELATION: Final = 0.97
"""... and their thumbnails correlate at least so much: the hash alone is fooled by frames that are nearly flat."""
_RARE_SHARE: Final = 0.001
_CHUNK: Final = 128
"""Frames compared at a time: with 100,000 others, 50 MB of distances."""


def thumbnail(frame_HWC: Frame) -> NDArray[np.uint8]:
    """Gray thumbnail, uint8 [16, 17]: what `near_duplicates` compares."""
    small = Image.fromarray(frame_HWC).resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    return np.asarray(small.convert("L"))


def difference_hash(thumbnail_SS: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """dHash: whether each pixel of the thumbnail is darker than its right neighbour, bool [256].

    N. Krawetz, "Kind of like that", 2013 (hackerfactor.com/blog, archive 529), there with 64 bits.
    """
    return (thumbnail_SS[:, :-1] < thumbnail_SS[:, 1:]).reshape(-1)


def near_duplicates(root: Path, samples: Sequence[Sample], thumbnails: Sequence[NDArray[np.uint8] | None]) -> list[Problem]:
    """One warning a pair of splits: how many frames of the later have a look-alike in the earlier, with examples."""
    warnings = []
    by_split = {split: [i for i, sample in enumerate(samples) if sample.split == split and thumbnails[i] is not None] for split in SPLITS}
    for i, first in enumerate(SPLITS):
        for second in SPLITS[i + 1 :]:
            pairs = look_alikes(by_split[first], by_split[second], thumbnails)
            if not pairs:
                continue
            shown = "; ".join(f"{relative(root, samples[b].image)} and {relative(root, samples[a].image)}" for a, b in pairs[:3])
            shown += "; ..." if len(pairs) > 3 else ""
            warnings.append(Problem(
                file=".", kind="near-duplicate",
                message=f"{len(pairs)} of {len(by_split[second])} frames of {second} look nearly the same as one of {first} ({shown}); "
                        f"numbers on {second} will flatter the network unless look-alikes share a split"))
    return warnings


def look_alikes(first: list[int], second: list[int], thumbnails: Sequence[NDArray[np.uint8] | None]) -> list[tuple[int, int]]:
    """For each of `second` the nearest of `first`, where it is near enough; not where the thumbnails are one and flat."""
    if not first or not second:
        return []
    small = {i: thumbnail for i in (*first, *second) if (thumbnail := thumbnails[i]) is not None}
    signs_NB = np.stack([difference_hash(small[i]) for i in first]).astype(np.float32) * 2 - 1
    pairs = []
    for start in range(0, len(second), _CHUNK):
        part = second[start : start + _CHUNK]
        signs = np.stack([difference_hash(small[i]) for i in part]).astype(np.float32) * 2 - 1
        bits_MN = (signs.shape[1] - signs @ signs_NB.T) / 2
        for row, j in enumerate(part):
            near = np.flatnonzero(bits_MN[row] <= MAX_BITS)
            near = near[np.argsort(bits_MN[row][near], kind="stable")][:20]
            found = next((first[k] for k in near if _correlation(small[first[k]], small[j]) >= MIN_CORRELATION), None)
            if found is not None:
                pairs.append((found, j))
    return pairs


def _correlation(a_SS: NDArray[np.uint8], b_SS: NDArray[np.uint8]) -> float:
    a, b = a_SS.astype(np.float64).reshape(-1), b_SS.astype(np.float64).reshape(-1)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if min(a.std(), b.std()) >= 2 else 0.0


def imbalance(split_counts: Mapping[str, NDArray[np.int64]], classes: tuple[str, ...]) -> list[Problem]:
    """One warning for the classes that have less than 0.1 % of train's labelled pixels, absent ones aside."""
    counts = split_counts.get("train")
    if counts is None or not len(counts):
        return []
    total = counts.sum(axis=0)[:IGNORE_INDEX][: len(classes)]
    share = total / max(1, int(total.sum()))
    rare = [i for i in np.argsort(share, kind="stable").tolist() if 0 < share[i] < _RARE_SHARE]
    if not rare:
        return []
    top = int(share.argmax())
    shown = ", ".join(f"{classes[i]} {share[i]:.3%} in {counted(int((counts[:, i] > 0).sum()), 'frame')}" for i in rare[:4])
    shown += ", ..." if len(rare) > 4 else ""
    return [Problem(file=".", kind="class-imbalance",
                    message=f"{len(rare)} of {len(classes)} classes have less than {_RARE_SHARE:.1%} of train's pixels ({shown}; "
                            f"{classes[top]} has {share[top]:.1%}); expect to miss them: add frames that show them, or keep [train] "
                            "class_weights on")]


def lying(root: Path, samples: Sequence[Sample], frame_hws: Sequence[tuple[int, int] | None]) -> list[Problem]:
    """A warning for each frame whose height and width are those of nearly all others swapped."""
    sizes = Counter(hw for hw in frame_hws if hw is not None)
    if not sizes:
        return []
    (common, count), odd = sizes.most_common(1)[0], []
    swapped = common[::-1]
    if common[0] == common[1] or count < 0.9 * sizes.total():
        return []
    odd = [sample for sample, hw in zip(samples, frame_hws, strict=True) if hw == swapped]
    return [Problem(file=relative(root, sample.image), kind="orientation",
                    message=f"{swapped[1]}x{swapped[0]}, where {count} of {sizes.total()} frames are {common[1]}x{common[0]}; if it lies "
                            "on its side, turn image and label") for sample in odd]


def absent(split_counts: Mapping[str, NDArray[np.int64]], classes: tuple[str, ...]) -> list[Problem]:
    """One warning a split for the classes of a fixed list that it does not show."""
    warnings = []
    for split, counts in split_counts.items():
        names = [name for i, name in enumerate(classes) if len(counts) and not counts[:, i].any() and not is_background(name)]
        if names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            effect = "they cannot be learnt; [data] classes chooses some" if split == "train" else "they will be reported as not evaluated"
            warnings.append(Problem(file=".", kind="class-absent",
                                    message=f"{len(names)} of {len(classes)} classes do not occur in {split} ({shown}); {effect}"))
    return warnings
