"""Which training frames calibrate: spread evenly over the split, since neighbours in a drive or a field look alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeseg.core.errors import DataError


def choose_calibration(ids: Sequence[str], count: int, *, seed: int) -> list[int]:
    """Choose `count` of `ids` (all, where there are fewer): indices into `ids`, ascending.

    The ids are sorted and cut into `count` runs of equal length; one is taken from each, at an offset drawn from `seed`. So the choice
    does not depend on the order in which the ids are given.

    Raises:
        DataError: no ids.
    """
    if not ids:
        raise DataError("no training frames to calibrate on; check [data] dir and its train split")
    order = sorted(range(len(ids)), key=lambda index: ids[index])
    if count >= len(ids):
        return sorted(order)
    offset = np.random.Generator(np.random.Philox(seed)).random()
    return sorted(order[int((run + offset) * len(ids) / count)] for run in range(count))
