"""What each calibrator makes of a tensor, and that 0 is always a value of its own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.core.errors import ConfigError
from quantization import Int8Plan
from quantization.bounds import with_zero
from quantization.calibrators import CALIBRATORS
from quantization.statistics import BINS, TensorStatistics, _histogram, _rows


def seen(frames: list[NDArray[np.float64]]) -> TensorStatistics:
    """Statistics as `collect` makes them."""
    rows = [_rows(frame, None) for frame in frames]
    lows, highs = np.array([row.min(axis=1) for row in rows]), np.array([row.max(axis=1) for row in rows])
    low, high = lows.min(axis=0), highs.max(axis=0)
    counts = sum(_histogram(row, low, high, bins=BINS) for row in rows)
    assert isinstance(counts, np.ndarray)
    return TensorStatistics(low_K=low, high_K=high, mean_low_K=lows.mean(axis=0), mean_high_K=highs.mean(axis=0), counts_KB=counts)


def frames(outlier: float) -> list[NDArray[np.float64]]:
    """Two frames of 60,000 values of deviation 1; the second has one outlier."""
    values = np.random.default_rng(0).normal(size=(2, 60_000))
    values[1, 0] = outlier
    return list(values)


def test_extremes_and_their_mean() -> None:
    found = seen(frames(100.0))
    assert CALIBRATORS["min-max"](found)[1] == pytest.approx([100.0])
    assert CALIBRATORS["mean of the frames' min-max"](found)[1] == pytest.approx([52.0], abs=1.0)


@pytest.mark.parametrize(("name", "least", "most"), [
    ("percentile 99.99", 3.5, 5.0), ("percentile 99.9", 3.1, 3.6), ("squared error", 60.0, 95.0), ("entropy", 12.0, 30.0),
])
def test_an_outlier_is_cut_off(name: str, least: float, most: float) -> None:
    low, high = CALIBRATORS[name](seen(frames(100.0)))
    assert least <= high[0] <= most
    assert low[0] < 0


def test_without_outliers_nothing_much_is_cut() -> None:
    even = [np.random.default_rng(1).uniform(0, 1, 60_000)]
    for name, calibrator in CALIBRATORS.items():
        low, high = calibrator(seen(even))
        assert (low[0], high[0]) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.06)), name


def test_zeros_of_a_relu_stay_the_lowest_value() -> None:
    values = [np.maximum(frame, 0) for frame in frames(30.0)]
    for name, calibrator in CALIBRATORS.items():
        assert calibrator(seen(values))[0][0] == pytest.approx(0, abs=0.02), name


def test_rows_are_cut_one_by_one() -> None:
    values = np.stack([np.linspace(0, 1, 5000), np.linspace(-8, 8, 5000)])
    counts = _histogram(values, values.min(axis=1), values.max(axis=1), bins=64)
    assert counts.sum(axis=1).tolist() == [5000, 5000]
    assert counts.max() < 90


@pytest.mark.parametrize(("low", "high"), [(-3.0, 5.0), (0.0, 6.0), (-1e-3, 6.0), (-2.0, 2.0), (0.0, 0.0), (-4.0, -1.0), (1.0, 4.0)])
def test_zero_is_a_value_and_the_range_is_kept(low: float, high: float) -> None:
    first, last = (float(v[0]) for v in with_zero(np.array([low]), np.array([high]), levels=256))
    step = (last - first) / 255
    assert -first / step == pytest.approx(round(-first / step), abs=1e-6)
    assert first <= min(low, 0) + step and last >= max(high, 0) - step
    assert (first == 0) == (low >= 0 or abs(low) < step / 2)


def test_symmetric_ranges_have_their_zero_in_the_middle() -> None:
    low, high = with_zero(np.array([-2.0]), np.array([2.0]), levels=256)
    assert high[0] == 2.0
    assert low[0] == pytest.approx(-2 * 128 / 127)


@pytest.mark.parametrize("ends", [(1.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_a_range_that_is_none_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="must be finite"):
        Int8Plan(ranges={"t": ends})
