"""Percentiles as the tools define them whose numbers get published, so that ours can be set beside them: same samples, same definition.

Ours is the nearest rank (`edgeseg.core.stats.nearest_rank`). On the same samples another definition gives the same value or the one of
the next rank, and trtexec and LoadGen on few samples the maximum. A rank is 0-based, n = number of samples, p = percent.

    benchmark_app      ceil(n p / 100) - 1               OpenVINO 2026.0, openvino/tools/benchmark/benchmark.py
    benchmark_app C++  floor(n / 100 * p)                OpenVINO, samples/cpp/common, latency_metrics.cpp
    trtexec            n - 1 - floor((1 - p / 100) n)    TensorRT, samples/common/sampleReporting.cpp, in float32; p50 is the median
    LoadGen            floor(n p)                        MLPerf, loadgen/results.cc
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from edgeseg.core.stats import nearest_rank

PERCENTS: Final = (50, 90, 99)

Definition = Callable[[Sequence[float], int], float]
"""Values in ascending order, and a whole percentage in 1..99."""


def _benchmark_app_cpp(ascending: Sequence[float], percent: int) -> float:
    return ascending[int(len(ascending) / 100.0 * percent)]


def _trtexec(ascending: Sequence[float], percent: int) -> float:
    if percent == 50:
        return statistics.median(ascending)
    count, one = len(ascending), np.float32(1)
    exclude = int((one - np.float32(percent) / np.float32(100)) * np.float32(count))
    return ascending[max(count - 1 - exclude, 0)]


def _loadgen(ascending: Sequence[float], percent: int) -> float:
    return ascending[int(len(ascending) * (percent / 100))]


DEFINITIONS: Final[dict[str, Definition]] = {
    "benchmark_app": nearest_rank,
    "benchmark_app C++": _benchmark_app_cpp,
    "trtexec": _trtexec,
    "LoadGen": _loadgen,
}


def as_others(times_ns: Sequence[int]) -> dict[str, dict[str, float]]:
    """p50, p90 and p99 of times in nanoseconds as each tool would print them: `{"trtexec": {"p50_ms": ...}}`."""
    ascending_ms = sorted(time / 1e6 for time in times_ns)
    return {tool: {f"p{percent}_ms": define(ascending_ms, percent) for percent in PERCENTS} for tool, define in DEFINITIONS.items()}
