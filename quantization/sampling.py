"""Which values of a large tensor are looked at: drawn at random, from a fixed seed.

An even stride will not do: where it shares a factor with the number of channels or columns it meets the same few of them over and over.

Legend: N = frames, C = channels, H/W = rows/columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def sample_places(count: int, most: int, *, frame: int = 0) -> NDArray[np.int64]:
    """Give `most` of the places 0 ... `count` - 1, ascending, or all where there are no more than that.

    One is drawn from each of `most` equal parts (two parts may share one where they touch), so every place is as likely as any other
    (Cochran 1977, "Sampling Techniques", section 5). The same arguments give the same places; `frame` is the key of the generator.
    """
    if count <= most:
        return np.arange(count, dtype=np.int64)
    drawn = np.random.Generator(np.random.Philox(key=frame)).random(most)
    places: NDArray[np.int64] = ((np.arange(most) + drawn) * (count / most)).astype(np.int64)
    return np.minimum(places, count - 1)


def to_channels_first(places: NDArray[np.int64], shape_NCHW: Sequence[int]) -> NDArray[np.int64]:
    """Where the values at `places` of a flattened NHWC tensor lie in the same tensor as NCHW."""
    n, c, h, w = shape_NCHW
    at_n, at_h, at_w, at_c = np.unravel_index(places, (n, h, w, c))
    return np.asarray(np.ravel_multi_index((at_n, at_c, at_h, at_w), (n, c, h, w)), dtype=np.int64)
