"""How the range of a tensor is chosen from what was seen of it. The same ways for every format, since all see the same numbers.

No one way is best: the plain extremes follow a few outliers, a percentile cuts what a deep layer needs (docs/adr/0005). So several are
tried and the answers decide (`quantization.ladder.choose_plan`).

Legend: K = rows of a tensor (1, or its channels), B = bins of a histogram, A = share of the range that is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from quantization.statistics import TensorStatistics

Ranges = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Lowest and highest value of each row, float64 [K]."""
Calibrator = Callable[[TensorStatistics], Ranges]
_Array = NDArray[np.float64]

_LEVELS: Final = 256
_SHARES: Final = np.linspace(0.2, 1.0, 41)
"""Shares of the largest magnitude that the entropy and the squared error are computed for."""


def by_extremes(seen: TensorStatistics) -> Ranges:
    """Lowest and highest value over all frames: nothing is clipped."""
    return seen.low_K, seen.high_K


def by_mean_extremes(seen: TensorStatistics) -> Ranges:
    """Mean over the frames of each frame's extremes: one odd frame does not set the range."""
    return seen.mean_low_K, seen.mean_high_K


def by_percentile(seen: TensorStatistics, *, percent: float) -> Ranges:
    """The smallest range of bins that holds `percent` % of the values, as much cut off at either end; an end at 0 stays there."""
    cut = (100 - percent) / 200 * seen.counts_KB.sum(axis=1, keepdims=True)
    below_KB = np.cumsum(seen.counts_KB, axis=1)
    bins = seen.counts_KB.shape[1]
    first = (below_KB <= cut).sum(axis=1)
    last = bins - (below_KB[:, -1:] - below_KB + seen.counts_KB <= cut).sum(axis=1)
    width = (seen.high_K - seen.low_K) / bins
    return seen.low_K + first * width, seen.low_K + np.maximum(last, first + 1) * width


def by_entropy(seen: TensorStatistics) -> Ranges:
    """The range whose 256 levels lose the least information: smallest Kullback-Leibler divergence of the quantized histogram.

    Migacz 2017, "8-bit inference with TensorRT" (GTC): values beyond the range are added to its ends in the histogram that is compared
    with, and not in the one that is quantized.
    """
    return _best_share(seen, _divergence)


def by_squared_error(seen: TensorStatistics) -> Ranges:
    """The range with the smallest mean squared error of a value, rounding and clipping together (Banner et al. 2019, arXiv:1810.05723)."""
    return _best_share(seen, _squared_error)


CALIBRATORS: Final[dict[str, Calibrator]] = {
    "min-max": by_extremes,
    "mean of the frames' min-max": by_mean_extremes,
    "percentile 99.99": partial(by_percentile, percent=99.99),
    "percentile 99.9": partial(by_percentile, percent=99.9),
    "entropy": by_entropy,
    "squared error": by_squared_error,
}


def _best_share(seen: TensorStatistics, costs: Callable[[_Array, _Array, _Array, _Array], _Array]) -> Ranges:
    """Clip each row at the magnitude, one of `_SHARES` of the largest, that costs least; the largest of equal ones.

    Values that are exactly 0 are exact in every range: the bin of 0 counts as much as the one beside it.
    """
    low_K, high_K = np.minimum(seen.low_K, 0.0), np.maximum(seen.high_K, 0.0)
    for row, counts_B in enumerate(seen.counts_KB):
        low, high = float(seen.low_K[row]), float(seen.high_K[row])
        if not low < high:
            continue
        weights_B = counts_B.astype(np.float64)
        zero = int(-low / (high - low) * len(weights_B))
        if 0 <= zero < len(weights_B) - 1:
            weights_B[zero] = min(weights_B[zero], weights_B[zero + 1])
        limits_A = _SHARES[::-1] * max(-low, high)
        starts_A, ends_A = np.maximum(low_K[row], -limits_A), np.minimum(high_K[row], limits_A)
        best = int(np.argmin(costs(weights_B, np.linspace(low, high, len(weights_B) + 1), starts_A, ends_A)))
        low_K[row], high_K[row] = starts_A[best], ends_A[best]
    return low_K, high_K


def _squared_error(weights_B: _Array, edges: _Array, starts_A: _Array, ends_A: _Array) -> _Array:
    """Mean over the values of (value - nearest level)^2, for each range; within it a step's square over 12. `edges` = those of the bins."""
    centres_B = (edges[1:] + edges[:-1]) / 2
    below_AB, above_AB = starts_A[:, None] - centres_B, centres_B - ends_A[:, None]
    clipped_AB = np.maximum(np.maximum(below_AB, above_AB), 0) ** 2
    rounded_A = ((ends_A - starts_A) / (_LEVELS - 1)) ** 2 / 12
    cost_A: _Array = (np.where(clipped_AB > 0, clipped_AB, rounded_A[:, None]) @ weights_B) / max(1.0, float(weights_B.sum()))
    return cost_A


def _divergence(weights_B: _Array, edges: _Array, starts_A: _Array, ends_A: _Array) -> _Array:
    """KL(P || Q) over the bins of each range; infinite where fewer bins than levels lie there."""
    first_A = np.searchsorted(edges, starts_A, side="right") - 1
    last_A = np.searchsorted(edges, ends_A, side="left")
    pairs = zip(np.maximum(first_A, 0), np.minimum(last_A, len(weights_B)), strict=True)
    return np.array([_divergence_of(weights_B, int(first), int(last)) for first, last in pairs])


def _divergence_of(weights_B: _Array, first: int, last: int) -> float:
    if last - first < min(_LEVELS, len(weights_B)):
        return float("inf")
    inside = weights_B[first:last]
    wanted = inside.copy()
    wanted[0] += weights_B[:first].sum()
    wanted[-1] += weights_B[last:].sum()
    level = np.arange(last - first) * _LEVELS // (last - first)
    occupied = inside > 0
    totals = np.bincount(level, weights=inside, minlength=_LEVELS)
    sharing = np.bincount(level, weights=occupied, minlength=_LEVELS)
    got = np.where(occupied, (totals / np.maximum(sharing, 1))[level], 0.0)
    p, q = wanted / max(wanted.sum(), 1), got / max(got.sum(), 1)
    both = p > 0
    return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))).sum())
