"""Are our percentiles those of benchmark_app, trtexec and MLPerf LoadGen, on the same samples?

    python -m benchmarks.percentiles [--json FILE]

Each tool's p50, p90 and p99 by `edgeseg.core.percentiles`, and LoadGen's early-stopping estimates by `edgeseg.core.early_stopping`,
against the tool:

- benchmark_app: the function of the installed openvino package.
- LoadGen: it runs (`mlcommons-loadgen`), against a system that answers after a random time; the samples are those in its own trace.
- benchmark_app C++, trtexec: their documented definitions, written down here a second time, in exact fractions and in C's floats. What
  they are cannot be run here.

Samples are lognormal with a slow tail, with ties, of 1 to 5000 frames. "Nearest rank" counts how often our own definition (which is
benchmark_app's) gives the same value as the tool's.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.early_stopping import early_stopping
from edgeseg.core.files import write_json
from edgeseg.core.percentiles import DEFINITIONS, PERCENTS
from edgeseg.core.stats import nearest_rank
from edgeseg.core.vendors import versions
from targets.machine import describe_machine

SIZES: Final = (*range(1, 202), 256, 500, 661, 662, 999, 1000, 1001, 1024, 2048, 5000)
LOADGEN_QUERIES: Final = (64, 100, 662, 1000, 2048)
PACKAGES: Final = ("numpy", "openvino", "mlcommons-loadgen")


@dataclass
class Row:
    """One tool and one percentile."""

    tool: str
    figure: str
    against: str
    samples: int = 0
    """Sets of samples."""
    equal: int = 0
    nearest_rank: int = 0
    """Sets in which our nearest rank is the tool's value, too."""


def sample_sets(seed: int, sizes: Sequence[int] = SIZES) -> Iterator[list[float]]:
    """Times in milliseconds, in ascending order: each size with and without ties."""
    rng = np.random.Generator(np.random.Philox(seed))
    for size in sizes:
        times_N = np.where(rng.random(size) < 0.02, 5.0, 1.0) * rng.lognormal(3, 0.3, size)
        yield sorted(times_N.tolist())
        yield sorted(np.round(times_N).tolist())


def benchmark_app(values: Sequence[float], percent: int) -> float:
    """Call the installed tool's own function."""
    return float(importlib.import_module("openvino.tools.benchmark.benchmark").percentile(values, percent))


def benchmark_app_cpp(values: Sequence[float], percent: int) -> float:
    """`latencies[size_t(latencies.size() / 100.0 * percentile_boundary)]` (samples/cpp/common, latency_metrics.cpp), in C's doubles."""
    return values[int(ctypes.c_double(ctypes.c_double(len(values) / 100.0).value * percent).value)]


def trtexec(values: Sequence[float], percent: int) -> float:
    """`findPercentile` and `findMedian` of TensorRT's samples/common/sampleReporting.cpp, each operation rounded to C's float."""
    count = len(values)
    if percent == 50:
        return float((Fraction(values[(count - 1) // 2]) + Fraction(values[count // 2])) / 2)

    def as_float(value: float) -> float:
        return ctypes.c_float(value).value

    share = as_float(1 - as_float(percent / 100))
    return values[max(count - 1 - int(as_float(share * count)), 0)]


TOOLS: Final[dict[str, tuple[Callable[[Sequence[float], int], float], str]]] = {
    "benchmark_app": (benchmark_app, "the tool's function"),
    "benchmark_app C++": (benchmark_app_cpp, "its definition"),
    "trtexec": (trtexec, "its definition"),
}


def run_loadgen(num_queries: int, seed: int) -> tuple[list[int], dict[str, Any]]:
    """Run LoadGen's single stream; give the latencies (ns) of its trace, ascending, and what its log says of them."""
    lg = importlib.import_module("mlperf_loadgen")
    waits_ns = iter((np.random.Generator(np.random.Philox(seed)).lognormal(0, 0.4, num_queries) * 100_000).astype(int).tolist())

    def issue(queries: list[Any]) -> None:
        until = time.perf_counter_ns() + next(waits_ns)
        while time.perf_counter_ns() < until:
            pass
        lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0) for query in queries])

    settings = lg.TestSettings()
    settings.scenario, settings.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
    settings.min_query_count = settings.max_query_count = num_queries
    settings.min_duration_ms, settings.single_stream_expected_latency_ns = 0, 100_000
    with tempfile.TemporaryDirectory(prefix="edgeseg-loadgen-") as folder:
        log = lg.LogSettings()
        log.log_output.outdir, log.log_output.copy_summary_to_stdout, log.enable_trace = folder, False, True
        sut, qsl = lg.ConstructSUT(issue, lambda: None), lg.ConstructQSL(16, 16, lambda _: None, lambda _: None)
        try:
            lg.StartTestWithLogSettings(sut, qsl, settings, log)
        finally:
            lg.DestroyQSL(qsl)
            lg.DestroySUT(sut)
        trace = Path(folder, "mlperf_log_trace.json").read_text(encoding="utf-8")  # not always whole JSON
        lines = Path(folder, "mlperf_log_detail.txt").read_text(encoding="utf-8").splitlines()
    latencies = sorted(int(found) for found in re.findall(r'"complete_ns":(\d+)', trace))
    entries = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines if line.startswith(":::MLLOG ")]
    return latencies, {entry["key"]: entry["value"] for entry in entries}


def compare_definitions(seed: int, sizes: Sequence[int] = SIZES) -> list[Row]:
    """All tools but LoadGen."""
    rows = {(tool, percent): Row(tool, f"p{percent}", against) for tool, (_, against) in TOOLS.items() for percent in PERCENTS}
    for values in sample_sets(seed, sizes):
        for (tool, percent), row in rows.items():
            theirs = TOOLS[tool][0](values, percent)
            row.samples += 1
            row.equal += DEFINITIONS[tool](values, percent) == theirs
            row.nearest_rank += nearest_rank(values, percent) == theirs
    return list(rows.values())


def compare_loadgen(seed: int) -> list[Row]:
    """LoadGen itself: percentiles, and early-stopping estimates of p90 and p99 where it gives them."""
    rows = {percent: Row("LoadGen", f"p{percent}", "the tool, running") for percent in PERCENTS}
    early = {percent: Row("LoadGen", f"p{percent} early stopping", "the tool, running") for percent in (90, 99)}
    for number, num_queries in enumerate(LOADGEN_QUERIES):
        values, said = run_loadgen(num_queries, seed + number)
        for percent, row in rows.items():
            theirs = said[f"result_{percent}.00_percentile_latency_ns"]
            row.samples += 1
            row.equal += DEFINITIONS["LoadGen"](values, percent) == theirs
            row.nearest_rank += nearest_rank(values, percent) == theirs
        for percent, key in ((90, "early_stopping_latency_ss"), (99, "early_stopping_latency_ms")):
            theirs = said[key] or None  # 0 = none
            early[percent].samples += 1
            early[percent].equal += early_stopping(values, percent).value == theirs
            early[percent].nearest_rank += nearest_rank(values, percent) == theirs
    return [*rows.values(), *early.values()]


def main() -> None:
    """Print the table; exit 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows, the machine, versions and the command here")
    arguments = parser.parse_args()
    rows = [*compare_definitions(seed=0), *compare_loadgen(seed=0)]
    print(f"{'tool':<18} {'figure':<19} {'against':<20} {'equal':>11}  {'nearest rank':>12}")
    for row in rows:
        counts = f"{row.equal:>4} of {row.samples:>3}  {row.nearest_rank:>5} of {row.samples:>3}"
        print(f"{row.tool:<18} {row.figure:<19} {row.against:<20} {counts}")
    passed = all(row.equal == row.samples for row in rows)
    print("equal" if passed else "NOT EQUAL")
    if arguments.json:
        write_json(arguments.json, {
            "command": shlex.join(["python", "-m", "benchmarks.percentiles", *sys.argv[1:]]), "machine": asdict(describe_machine()),
            "versions": versions(*PACKAGES), "seed": 0, "sizes": list(SIZES), "loadgen_queries": list(LOADGEN_QUERIES),
            "equal": passed, "rows": [asdict(row) for row in rows],
        })
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
