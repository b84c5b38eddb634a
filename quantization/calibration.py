"""Which training frames calibrate: those that cover what the training frames show, or an even spread over the split.

Neighbours in a drive or a field look alike, so `spread` takes one out of each run of ids. `cover` also sees to it that rare classes, dark
and bright frames and flat and contrasty ones are among them: activations reach their extremes there. Its choice is greedy for

    f(S) = sum over groups g of the mean over items j of g of sqrt(frames in S that have j)

a feature-based submodular function: what is rare counts most, and what is there often counts ever less (K. Wei, R. Iyer and J. Bilmes,
"Submodularity in Data Subset Selection and Active Learning", ICML 2015; greedy is within 1 - 1/e of the best, Nemhauser et al. 1978).

Legend: N = frames, J = items a frame may have, C = classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.errors import DataError
from edgeseg.core.images import Frame

WAYS: Final = ("cover", "spread")
_BINS: Final = 8
"""Parts of the range of a statistic, each an item."""
_RUNS: Final = 16
"""Runs of consecutive ids, each an item."""
_PIXELS: Final = 1 << 16
_LUMA: Final = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is looked at of one frame."""

    classes: tuple[int, ...]
    """Indices of the classes its label holds; none without a label."""
    brightness: float
    """Mean luma, 0..255."""
    contrast: float
    """Its standard deviation."""
    dark: float
    bright: float
    """Luma that 1 % of the pixels are below, and above: the ends of what the first layer sees."""
    warmth: float
    """Mean of red minus mean of blue."""


def look_at(frame_HWC: Frame, classes: Sequence[int] = ()) -> Look:
    """Look at a frame, at every few pixels of a large one."""
    step = max(1, int(np.sqrt(frame_HWC.shape[0] * frame_HWC.shape[1] / _PIXELS)))
    part = frame_HWC[::step, ::step].astype(np.float64)
    luma = part @ _LUMA
    dark, bright = np.percentile(luma, [1, 99])
    return Look(
        classes=tuple(classes), brightness=float(luma.mean()), contrast=float(luma.std()), dark=float(dark), bright=float(bright),
        warmth=float(part[..., 0].mean() - part[..., 2].mean()),
    )


def choose_covering(ids: Sequence[str], looks: Sequence[Look], count: int) -> list[int]:
    """Choose `count` of `ids` (all, where there are fewer) that cover what `looks` saw in them: indices into `ids`, ascending.

    The choice does not depend on the order in which the ids are given.

    Raises:
        DataError: no ids.
    """
    _some(ids)
    order = sorted(range(len(ids)), key=lambda index: ids[index])
    if count >= len(ids):
        return sorted(order)
    items_NJ, weights_J = _items([looks[index] for index in order])
    had_J, free_N = np.zeros(len(weights_J)), np.ones(len(order), dtype=bool)
    chosen = []
    for _ in range(count):
        gains_N = items_NJ @ (weights_J * (np.sqrt(had_J + 1) - np.sqrt(had_J)))
        best = int(np.argmax(np.where(free_N, gains_N, -1.0)))  # the first of equals
        free_N[best] = False
        had_J += items_NJ[best]
        chosen.append(order[best])
    return sorted(chosen)


def _items(looks: Sequence[Look]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Which frame has which item, 0 or 1 [N, J], and the weight of each; items that no frame has are left out."""
    count = len(looks)
    highest = max((max(look.classes, default=-1) for look in looks), default=-1) + 1
    groups = [np.array([[c in look.classes for c in range(highest)] for look in looks], dtype=np.float64).reshape(count, highest)]
    for name in ("brightness", "contrast", "dark", "bright", "warmth"):
        values = np.array([getattr(look, name) for look in looks])
        low, high = float(values.min()), float(values.max())
        part = np.minimum(((values - low) / max(high - low, 1e-9) * _BINS).astype(int), _BINS - 1)
        groups.append(np.eye(_BINS)[part])
    groups.append(np.eye(_RUNS)[np.arange(count) * _RUNS // count])
    there = [group[:, group.any(axis=0)] for group in groups]
    return np.concatenate(there, axis=1), np.concatenate([np.full(group.shape[1], 1 / max(1, group.shape[1])) for group in there])


def covered(looks: Sequence[Look], chosen: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    """What a choice covers of what there is: frames of each class, and the range of brightness and contrast; for the manifest."""

    def part(indices: Sequence[int]) -> dict[str, Any]:
        seen = [looks[index] for index in indices]
        frames = {name: sum(c in look.classes for look in seen) for c, name in enumerate(classes)}
        return {
            "class_frames": frames if any(frames.values()) else {},
            **{name: _range([getattr(look, name) for look in seen]) for name in ("brightness", "contrast")},
        }

    return {"chosen": part(chosen), "of": {"num_frames": len(looks), **part(range(len(looks)))}}


def _range(values: Sequence[float]) -> list[float]:
    return [round(min(values), 1), round(max(values), 1)]


def choose_calibration(ids: Sequence[str], count: int, *, seed: int) -> list[int]:
    """Choose `count` of `ids` (all, where there are fewer), spread evenly: indices into `ids`, ascending.

    The ids are sorted and cut into `count` runs of equal length; one is taken from each, at an offset drawn from `seed`. So the choice
    does not depend on the order in which the ids are given.

    Raises:
        DataError: no ids.
    """
    _some(ids)
    order = sorted(range(len(ids)), key=lambda index: ids[index])
    if count >= len(ids):
        return sorted(order)
    offset = np.random.Generator(np.random.Philox(seed)).random()
    return sorted(order[int((run + offset) * len(ids) / count)] for run in range(count))


def _some(ids: Sequence[str]) -> None:
    if not ids:
        raise DataError("no training frames to calibrate on; check [data] dir and its train split")
