"""How far IoU and its drop would move on other frames of the same kind: the bootstrap over frames.

Frames are drawn anew with replacement, 2000 times, and float network and bundle are scored on the same draw (paired): what makes a frame
hard for both cancels out of the drop. B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: the percentile
interval, here stretched about the measured value by `small_sample_factor`, since resampling n frames shows too little spread where n is
small. A class counts the frames whose label holds it. ADR 0014 says why not BCa.

Legend: N = frames, C = classes, B = resamples; `confusions_NCC[n]` is the confusion matrix of frame n, rows = label.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.stats import CONFIDENCE, Interval, small_sample_factor

RESAMPLES: Final = 2000
SEED: Final = 20140
_CHUNK: Final = 4_000_000
"""Weights held at a time: 32 MB."""
_MOST: Final = 1_000_000
"""More frames than that are not asked for by number."""

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Intervals of one bundle on its frames; `None` = the class does not occur, or there is no reference on the same frames."""

    miou: Interval
    iou: tuple[Interval | None, ...]
    miou_drop: Interval | None
    """Reference minus bundle; so are the next."""
    class_drop: tuple[Interval | None, ...]

    def to_json(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Give all as JSON values, those of classes by name."""

        def plain(interval: Interval | None) -> dict[str, Any] | None:
            return None if interval is None else interval.to_json()

        return {
            "confidence": CONFIDENCE, "miou": plain(self.miou), "miou_drop": plain(self.miou_drop),
            "iou": {name: plain(one) for name, one in zip(classes, self.iou, strict=True)},
            "class_drop": {name: plain(one) for name, one in zip(classes, self.class_drop, strict=True)},
        }


def intervals(after_NCC: Counts, before_NCC: Counts | None = None, *, resamples: int = RESAMPLES, seed: int = SEED) -> Intervals:
    """Intervals of mIoU and of each class's IoU, and with the float network's `before_NCC` those of the drops.

    Where every frame counts the same with both, the drop is 0 with the interval 0 to 0, however few the frames.

    Raises:
        ValueError: no labelled pixel, or the two are not of the same labels (see `same_labels`).
    """
    if before_NCC is not None and not same_labels(before_NCC, after_NCC):
        raise ValueError("the confusion matrices are of other frames: their labels differ")
    present = after_NCC.sum(axis=(0, 2)) > 0
    if not present.any():
        raise ValueError("no labelled pixel to evaluate")
    num_frames = int((after_NCC.sum(axis=(1, 2)) > 0).sum())
    frames_C = (after_NCC.sum(axis=2) > 0).sum(axis=0)
    after = _Frames(after_NCC)
    before = after if before_NCC is None else _Frames(before_NCC)
    drawn_after, drawn_before = [], []
    for weights_BN in _draws(len(after_NCC), resamples, seed):
        drawn_after.append(after.iou(weights_BN))
        drawn_before.append(before.iou(weights_BN) if before is not after else drawn_after[-1])
    after_BC, before_BC = np.concatenate(drawn_after), np.concatenate(drawn_before)
    whole = np.ones((1, len(after_NCC)))
    now_C, was_C = after.iou(whole)[0], before.iou(whole)[0]
    iou = tuple(
        _interval(float(now_C[c]), after_BC[:, c], int(frames_C[c]), 0.0, still=False) if present[c] else None for c in range(len(present))
    )
    miou = _interval(_mean(now_C), _means(after_BC), num_frames, 0.0, still=False)
    if before_NCC is None:
        return Intervals(miou=miou, iou=iou, miou_drop=None, class_drop=(None,) * len(iou))
    still_C = (after.counts_N2C == before.counts_N2C).all(axis=(0, 1))
    drop = tuple(
        _interval(float(was_C[c] - now_C[c]), before_BC[:, c] - after_BC[:, c], int(frames_C[c]), -1.0, still=bool(still_C[c]))
        if present[c] else None for c in range(len(present))
    )
    miou_drop = _interval(
        _mean(was_C) - _mean(now_C), _means(before_BC) - _means(after_BC), num_frames, -1.0, still=bool(still_C[present].all())
    )
    return Intervals(miou=miou, iou=iou, miou_drop=miou_drop, class_drop=drop)


def same_labels(first_NCC: Counts, second_NCC: Counts) -> bool:
    """Whether both were counted on frames with the same labels, in the same order."""
    return first_NCC.shape == second_NCC.shape and bool((first_NCC.sum(axis=2) == second_NCC.sum(axis=2)).all())


class _Frames:
    """Per frame and class, the pixels that are right and the pixels that are labelled or answered so."""

    def __init__(self, confusions_NCC: Counts) -> None:
        hit_NC = np.diagonal(confusions_NCC, axis1=1, axis2=2)
        self._labelled_NC = confusions_NCC.sum(axis=2).astype(np.float64)
        self.counts_N2C = np.stack([hit_NC, confusions_NCC.sum(axis=2) + confusions_NCC.sum(axis=1) - hit_NC], axis=1)

    def iou(self, weights_BN: Floats) -> Floats:
        """IoU of each draw and class, float64 [B, C]; NaN where the draw's labels do not hold the class."""
        hit, union = (weights_BN @ self.counts_N2C[:, i].astype(np.float64) for i in (0, 1))
        found_BC: Floats = np.full(hit.shape, np.nan)
        np.divide(hit, union, out=found_BC, where=weights_BN @ self._labelled_NC > 0)
        return found_BC


def _draws(num_frames: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each frame was drawn: float64 [part of B, N]."""
    generator = np.random.Generator(np.random.Philox(seed))
    step = max(1, _CHUNK // num_frames)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = generator.multinomial(num_frames, np.full(num_frames, 1 / num_frames), size=count)
        yield drawn.astype(np.float64)


def _mean(values_C: Floats) -> float:
    return float(np.nanmean(values_C))


def _means(values_BC: Floats) -> Floats:
    """Mean over the classes that a draw holds; NaN where it holds none."""
    known = ~np.isnan(values_BC)
    count = known.sum(axis=1)
    means_B: Floats = np.full(len(values_BC), np.nan)
    np.divide(np.where(known, values_BC, 0.0).sum(axis=1), count, out=means_B, where=count > 0)
    return means_B


def _interval(value: float, drawn_B: Floats, num_frames: int, least: float, *, still: bool) -> Interval:
    """The stretched percentile interval, cut to `least`..1; `still` = not a single count differs, so there is nothing to doubt."""
    if still:
        return Interval(value=0.0, low=0.0, high=0.0, num_frames=num_frames)
    if num_frames < 2:
        return Interval(value=value, low=None, high=None, num_frames=num_frames, reason="one frame shows no spread")
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(drawn_B, [tail, 100 - tail])
    factor = small_sample_factor(num_frames)
    return Interval(
        value=value, low=max(least, value - factor * max(0.0, value - float(low))),
        high=min(1.0, value + factor * max(0.0, float(high) - value)), num_frames=num_frames,
    )


def more_frames(interval: Interval, limit: float, *, num_frames: int) -> int | None:
    """About how many more frames like the `num_frames` measured would shrink the interval until it no longer holds `limit`.

    Its sides shrink with 1 / sqrt(n), and with `small_sample_factor`. `None` = more than a million: the value lies at the limit. Where
    one frame alone bears on it, what would make them eight.
    """
    if interval.low is None or interval.high is None:
        return 7 * num_frames
    if not interval.low <= limit <= interval.high:
        return 0
    room, side = abs(limit - interval.value), interval.high - interval.value if limit >= interval.value else interval.value - interval.low
    here = small_sample_factor(interval.num_frames)

    def enough(times: float) -> bool:
        return side / math.sqrt(times) * small_sample_factor(max(2, int(interval.num_frames * times))) / here < room

    most = _MOST / num_frames + 1
    if not room or not enough(most):
        return None
    low, high = 1.0, most
    while (high - low) * num_frames > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(1, math.ceil((high - 1) * num_frames - 0.5))
