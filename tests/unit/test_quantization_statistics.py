"""Histograms of large tensors take every channel, row and column alike, in every layout, and no more than they may."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantization import statistics
from quantization.calibrators import CALIBRATORS
from quantization.sampling import sample_places, to_channels_first
from quantization.statistics import BINS, SAMPLED, TensorStatistics, collect

SHAPE_NHWC = (1, 256, 512, 32)
"""64 strides of 65,536, and 64 is twice the number of channels."""


def seen(
    frames: Sequence[NDArray[Any]], monkeypatch: pytest.MonkeyPatch, *, channels_first: bool, axis: int | None = None
) -> TensorStatistics:
    """What `collect` sees of one tensor whose values on the frames are given."""

    def observe(bundle: object, given: Sequence[NDArray[Any]], names: object) -> Iterator[dict[str, NDArray[Any]]]:
        yield from ({"t": values} for values in given)

    monkeypatch.setitem(statistics.TENSORS, "null", SimpleNamespace(observe=observe, channels_first=channels_first))  # type: ignore[arg-type]
    bundle: Any = SimpleNamespace(manifest=SimpleNamespace(format="null"))
    return collect(bundle, list(frames), ["t"], None if axis is None else {"t": axis})["t"]


def first_channel_small() -> NDArray[np.float32]:
    """Channel 0 of deviation 0.2, the others of 5."""
    values = np.random.default_rng(0).standard_normal(SHAPE_NHWC, dtype=np.float32) * np.float32(5)
    values[..., 0] *= np.float32(0.04)
    return values


@pytest.mark.parametrize("channels_first", [False, True], ids=["nhwc", "nchw"])
def test_channels_enter_alike(channels_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    values = first_channel_small()
    found = seen([np.moveaxis(values, -1, 1) if channels_first else values], monkeypatch, channels_first=channels_first)
    for name, percent, rel in (("percentile 99.99", 99.995, 0.15), ("percentile 99.9", 99.95, 0.06)):  # 3 and 33 values beyond them
        low, high = CALIBRATORS[name](found)
        assert high[0] == pytest.approx(np.percentile(values, percent), rel=rel), name
        assert low[0] == pytest.approx(np.percentile(values, 100 - percent), rel=rel), name
    assert found.counts_KB.sum() == SAMPLED


def test_columns_enter_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 8th of 512 columns is small, as a border is."""
    values = np.random.default_rng(1).standard_normal((1, 32, 256, 512), dtype=np.float32)
    values[..., ::8] *= np.float32(0.01)
    whole = seen([values], monkeypatch, channels_first=True)
    assert CALIBRATORS["percentile 99.9"](whole)[1][0] == pytest.approx(np.percentile(values, 99.95), rel=0.06)
    by_channel = seen([values], monkeypatch, channels_first=True, axis=1)
    assert by_channel.counts_KB.sum(axis=1).tolist() == [4 * SAMPLED // 32] * 32
    expected = np.percentile(values, 99.95, axis=(0, 2, 3))
    assert CALIBRATORS["percentile 99.9"](by_channel)[1] == pytest.approx(expected, rel=0.15)


def test_layouts_see_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).standard_normal((1, 96, 90, 24), dtype=np.float32)
    last = seen([values, values + 1], monkeypatch, channels_first=False)
    first = seen([np.ascontiguousarray(np.moveaxis(v, -1, 1)) for v in (values, values + 1)], monkeypatch, channels_first=True)
    assert np.array_equal(first.counts_KB, last.counts_KB)
    again = seen([values, values + 1], monkeypatch, channels_first=False)
    assert np.array_equal(again.counts_KB, last.counts_KB)


def test_nan_and_infinity_count_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen([np.array([[1.0, np.nan, -np.inf, 3.0]], np.float32)], monkeypatch, channels_first=False)
    assert (found.low_K[0], found.high_K[0]) == (0, 3)
    assert (found.counts_KB[0, 0], found.counts_KB.sum(), found.counts_KB.shape) == (2, 4, (1, BINS))


@pytest.mark.parametrize(("count", "most"), [(5, 8), (8, 8), (9, 8), (12, 8), (65_537, 65_536), (4_194_304, 65_536)])
def test_places_are_within_in_order_and_no_more_than_asked_for(count: int, most: int) -> None:
    places = sample_places(count, most, frame=3)
    assert len(places) == min(count, most)
    assert places[0] >= 0 and places[-1] < count
    assert (np.diff(places) >= (1 if count <= most else 0)).all()
    assert np.array_equal(places, sample_places(count, most, frame=3))


@pytest.mark.parametrize("count", [96, 128, 160, 640])
def test_every_place_is_as_likely(count: int) -> None:
    """64 of `count`, 4000 times: each about 4000 x 64 / count times, whatever it is a multiple of."""
    drawn = np.concatenate([sample_places(count, 64, frame=frame) for frame in range(4000)])
    often = np.bincount(drawn, minlength=count)
    expected = 4000 * 64 / count
    assert np.abs(often - expected).max() < 5 * np.sqrt(expected)


def test_frames_are_looked_at_in_different_places() -> None:
    first, second = sample_places(10**6, 1000, frame=0), sample_places(10**6, 1000, frame=1)
    assert np.isin(first, second).mean() < 0.05


def test_places_of_another_layout() -> None:
    values_NHWC = np.arange(2 * 3 * 5 * 4).reshape(2, 3, 5, 4)
    values_NCHW = np.moveaxis(values_NHWC, -1, 1)
    places = np.array([0, 7, 59, 60, 119])
    assert values_NCHW.reshape(-1)[to_channels_first(places, values_NCHW.shape)].tolist() == places.tolist()
