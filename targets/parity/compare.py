"""How far two tensors, or two class maps, are apart.

Legend: H/W = rows/columns, C = classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

EXACT_DB: Final = 200.0
"""Stands for an infinite ratio: equal in every bit."""
_LAYOUTS: Final = ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2))


def sqnr_db(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """Signal to quantization noise, 10 log10(sum r^2 / sum (r - o)^2) in decibels, at most `EXACT_DB`; `-EXACT_DB` for o not finite."""
    r, o = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    if not np.isfinite(o).all():
        return -EXACT_DB
    noise, signal = float(np.square(r - o).sum()), float(np.square(r).sum())
    if noise == 0:
        return EXACT_DB
    return -EXACT_DB if signal == 0 else max(-EXACT_DB, min(EXACT_DB, 10 * math.log10(signal / noise)))


def noise_share(db: float) -> float:
    """Noise over signal, the other way to say `sqnr_db`."""
    return float(10 ** (-db / 10)) if db < EXACT_DB else 0.0


def cosine(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """Cosine of the angle between two tensors; 1 where both are 0, 0 where one is."""
    r, o = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    largest = max(float(np.abs(r).max(initial=0)), 1e-300), max(float(np.abs(o).max(initial=0)), 1e-300)
    r, o = r / largest[0], o / largest[1]  # a head scales its scores by 2^60
    norms = float(np.linalg.norm(r) * np.linalg.norm(o))
    if norms == 0:
        return 1.0 if not r.any() and not o.any() else 0.0
    return float(np.clip(r @ o / norms, -1.0, 1.0))


def aligned(reference: NDArray[Any], other: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """`reference` in each layout (channels first, channels last) in which it has the shape of `other`, axes of length 1 aside."""
    wanted = tuple(size for size in other.shape if size != 1)
    layouts = _LAYOUTS if reference.ndim == 4 else (tuple(range(reference.ndim)),)
    seen = set()
    for order in layouts:
        turned = reference.transpose(order)
        moved = tuple(axis for axis in order if reference.shape[axis] != 1)
        if moved not in seen and tuple(size for size in turned.shape if size != 1) == wanted:
            seen.add(moved)
            yield turned.reshape(other.shape)


def best_sqnr_db(reference: NDArray[Any], other: NDArray[Any]) -> float | None:
    """The largest `sqnr_db` over the layouts; `None` where no layout fits."""
    return max((sqnr_db(one, other) for one in aligned(reference, other)), default=None)


def without_scale(reference: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """`other` divided by the power of two that brings it nearest to `reference`: a decision head scales so, which changes no answer."""
    r, o = np.abs(reference.astype(np.float64)).sum(), np.abs(other.astype(np.float64)).sum()
    if r <= 0 or o <= 0 or not np.isfinite(o):
        return other
    power = round(math.log2(o / r))
    return other if power == 0 else (other.astype(np.float64) / 2.0**power).astype(np.float32)


class Fingerprints:
    """Finds the tensors of a reference that may equal a given one, by what does not depend on the layout."""

    def __init__(self, tensors: list[tuple[str, NDArray[Any]]]) -> None:
        """Remember `tensors`, each with what it is called, in the order they were computed."""
        self._tensors = tensors
        self._marks = [_mark(values) for _, values in tensors]
        self._by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, (_, values) in enumerate(tensors):
            self._by_shape.setdefault(_sizes(values), []).append(index)

    def knows(self, values: NDArray[Any]) -> bool:
        """Whether the reference has a tensor of this shape, in any layout."""
        return _sizes(values) in self._by_shape

    def nearest(self, values: NDArray[Any], *, tries: int = 3) -> tuple[str, float] | None:
        """Name of the reference's tensor that is nearest, and its `sqnr_db`; `None` where no shape fits."""
        candidates = self._by_shape.get(_sizes(values), [])
        mark = _mark(values)
        order = sorted(candidates, key=lambda index: float(np.abs(self._marks[index] - mark).sum()))[:tries]
        found = [(self._tensors[index][0], best_sqnr_db(self._tensors[index][1], values)) for index in order]
        known = [(name, db) for name, db in found if db is not None]
        return max(known, key=lambda pair: pair[1], default=None)


def _sizes(values: NDArray[Any]) -> tuple[int, ...]:
    return tuple(sorted(size for size in values.shape if size != 1))


def _mark(values: NDArray[Any]) -> NDArray[np.float64]:
    """Mean, spread and ends, which no layout changes."""
    wide = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return np.array([wide.mean(), wide.std(), wide.min(initial=0), wide.max(initial=0)]) if wide.size else np.zeros(4)
