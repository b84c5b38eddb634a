"""Percentiles: ours, those of the tools whose numbers get published, and MLPerf's early stopping."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from edgeseg.core.early_stopping import early_stopping, frames_needed, over_latency
from edgeseg.core.percentiles import DEFINITIONS, PERCENTS, as_others
from edgeseg.core.stats import latency_stats, nearest_rank


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 64, 99, 100, 101, 300])
def test_nearest_rank_is_its_definition(count: int) -> None:
    values = np.random.Generator(np.random.Philox(count)).permutation(count).astype(float).tolist()
    for percent in PERCENTS:
        least = min(v for v in values if 100 * sum(w <= v for w in values) >= percent * count)
        assert nearest_rank(values, percent) == least


def test_other_tools_take_the_same_rank_or_the_next() -> None:
    for count in range(1, 300):
        ascending = [float(i) for i in range(count)]
        for percent in PERCENTS:
            ours = nearest_rank(ascending, percent)
            assert DEFINITIONS["benchmark_app"](ascending, percent) == ours
            for tool in ("benchmark_app C++", "LoadGen"):
                exact = math.floor(Fraction(count * percent, 100))
                assert abs(DEFINITIONS[tool](ascending, percent) - exact) <= (1 if (count * percent) % 100 == 0 else 0)
                assert 0 <= DEFINITIONS[tool](ascending, percent) - ours <= 1
            if percent != 50:
                assert 0 <= DEFINITIONS["trtexec"](ascending, percent) - ours <= 1


def test_trtexec_counts_in_single_precision() -> None:
    """(1 - 0.99f) * 100 is 0.99999905: nothing is left out, and p99 of 100 frames is the slowest."""
    ascending = [float(i) for i in range(100)]
    assert DEFINITIONS["trtexec"](ascending, 99) == 99
    assert DEFINITIONS["trtexec"](ascending, 90) == 89
    assert DEFINITIONS["trtexec"](ascending, 50) == 49.5


def test_as_others_says_each_tool_in_milliseconds() -> None:
    said = as_others([i * 1_000_000 for i in range(100, 0, -1)])
    assert said["benchmark_app"] == {"p50_ms": 50, "p90_ms": 90, "p99_ms": 99}
    assert said["LoadGen"] == {"p50_ms": 51, "p90_ms": 91, "p99_ms": 100}
    assert set(said) == set(DEFINITIONS)


def test_early_stopping_needs_the_frames_that_mlperf_says() -> None:
    """64 and 662 are in LoadGen's own words; so are the numbers it discards (published single-stream logs)."""
    assert (frames_needed(90), frames_needed(99)) == (64, 662)
    assert early_stopping(range(63), 90).value is None
    assert early_stopping(range(64), 90).value == 63
    for frames, discarded in ((700, 50), (2048, 172), (2116, 178), (2145, 181), (4_776_846, 476_158)):
        assert over_latency(frames, 90) - 1 == discarded


def test_early_stopping_is_the_binomial_bound() -> None:
    """By exact fractions: of n frames of which each is slow with probability 1 - p, t or fewer are slow with less than 1 %."""
    for percent, frames in ((90, 64), (90, 200), (99, 662), (99, 1500), (50, 40)):
        t = over_latency(frames, percent)

        def at_most(count: int, n: int = frames, fast: int = percent) -> Fraction:
            ways = sum(math.comb(n, k) * (100 - fast) ** k * fast ** (n - k) for k in range(count + 1))
            return Fraction(ways, 100**n)

        assert at_most(t) < Fraction(1, 100) <= at_most(t + 1)


def test_early_stopping_is_not_below_the_percentile_and_holds_as_often_as_it_says() -> None:
    rng = np.random.Generator(np.random.Philox(7))
    true_p90, below = float(np.exp(1.2815515655446004 * 0.5)), 0
    for _ in range(200):
        values = rng.lognormal(0, 0.5, 300).tolist()
        estimate = early_stopping(values, 90).value
        assert estimate is not None
        assert estimate >= nearest_rank(values, 90)
        below += estimate < true_p90
    assert below <= 8  # 2 expected


def test_stats_of_a_stream_hold_the_estimates_or_none() -> None:
    few, many = latency_stats([1_000_000] * 63), latency_stats([i * 1000 for i in range(700)])
    assert (few.p90_early_stopping_ms, few.p99_early_stopping_ms) == (None, None)
    assert many.p90_early_stopping_ms == 0.649  # 50 discarded
    assert many.p99_early_stopping_ms == 0.699


def test_equal_to_benchmark_app_and_to_loadgen_itself() -> None:
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen has no wheel here")
    from benchmarks.percentiles import compare_definitions, run_loadgen

    assert all(row.equal == row.samples for row in compare_definitions(seed=1, sizes=(1, 10, 64, 99, 100, 101)))
    values, said = run_loadgen(700, seed=1)
    assert len(values) == 700
    for percent in PERCENTS:
        assert DEFINITIONS["LoadGen"](values, percent) == said[f"result_{percent}.00_percentile_latency_ns"]
    assert early_stopping(values, 90).value == said["early_stopping_latency_ss"]
    assert early_stopping(values, 99).value == said["early_stopping_latency_ms"]
