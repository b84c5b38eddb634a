"""What activations look like over the calibration frames: extremes and histograms, in memory that does not grow with the frames.

Two passes over the frames: the extremes first, over all values, then histograms between them. A histogram takes at most `SAMPLED` values
of a tensor and frame, which for 32 frames is 2 million: enough for the 99.99th percentile. They are drawn at random, other places for
each frame, and the same places whatever the layout, so that formats see the same numbers where their tensors are the same.

Legend: K = rows (1, or the channels of a tensor whose ranges are per channel), B = bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle
from edgeseg.core.images import Frame
from quantization.sampling import sample_places, to_channels_first
from quantization.tensors import TENSORS

SAMPLED: Final = 65_536
"""Values of a tensor and frame that enter a histogram, at most (four times as many where channels have histograms of their own)."""
BINS: Final = 2048
CHANNEL_BINS: Final = 512

_Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TensorStatistics:
    """Of one tensor over all frames."""

    low_K: _Array
    high_K: _Array
    """Extremes over all frames."""
    mean_low_K: _Array
    mean_high_K: _Array
    """Means over the frames of each frame's extremes."""
    counts_KB: NDArray[np.int64]
    """Histogram of each row, bins of equal width between `low_K` and `high_K`."""


def collect(
    bundle: Bundle, frames: Sequence[Frame], names: Sequence[str], channels: Mapping[str, int] | None = None
) -> dict[str, TensorStatistics]:
    """Statistics of the tensors `names` of a float bundle; those in `channels` by channel, along the axis given there."""
    axes, tensors = dict(channels or {}), TENSORS[bundle.manifest.format]
    extremes: dict[str, list[tuple[_Array, _Array]]] = {name: [] for name in names}
    for activations in tensors.observe(bundle, frames, names):
        for name, values in activations.items():
            rows = _rows(values, axes.get(name))
            extremes[name].append((rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)))
    found = {name: (np.stack([low for low, _ in pairs]), np.stack([high for _, high in pairs])) for name, pairs in extremes.items()}
    ends = {name: (low.min(axis=0), high.max(axis=0)) for name, (low, high) in found.items()}
    counts: dict[str, NDArray[np.int64]] = {}
    for frame, activations in enumerate(tensors.observe(bundle, frames, names)):
        for name, values in activations.items():
            taken = _sample(values, axes.get(name), frame=frame, channels_first=tensors.channels_first)
            added = _histogram(taken, *ends[name], bins=CHANNEL_BINS if name in axes else BINS)
            counts[name] = counts[name] + added if name in counts else added
    return {
        name: TensorStatistics(
            low_K=ends[name][0], high_K=ends[name][1], mean_low_K=low.mean(axis=0), mean_high_K=high.mean(axis=0), counts_KB=counts[name],
        )
        for name, (low, high) in found.items()
    }


def _rows(values: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Values as [K, n]; NaN and infinities (a padding of -inf before a maximum) become 0, which every range holds."""
    return _finite(_by_row(values, axis))


def _by_row(values: NDArray[Any], axis: int | None) -> NDArray[Any]:
    return values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    finite: NDArray[Any] = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    return finite


def _sample(values: NDArray[Any], axis: int | None, *, frame: int, channels_first: bool) -> NDArray[Any]:
    """The values that enter a histogram, as [K, n]; channels are looked at in the same places of the map."""
    rows_Kn = _by_row(values, axis)
    most = SAMPLED if axis is None else max(1, 4 * SAMPLED // len(rows_Kn))
    places = sample_places(rows_Kn.shape[1], most, frame=frame)
    if axis is None and channels_first and values.ndim == 4:
        places = to_channels_first(places, values.shape)
    return _finite(rows_Kn[:, places])


def _histogram(rows_Kn: NDArray[Any], low_K: _Array, high_K: _Array, *, bins: int) -> NDArray[np.int64]:
    width = np.maximum(high_K - low_K, np.finfo(np.float32).tiny)[:, None]
    index = np.clip((rows_Kn - low_K[:, None]) * (bins / width), 0, bins - 1).astype(np.int64)
    index += np.arange(len(rows_Kn))[:, None] * bins
    counts: NDArray[np.int64] = np.bincount(index.reshape(-1), minlength=len(rows_Kn) * bins).reshape(len(rows_Kn), bins)
    return counts
