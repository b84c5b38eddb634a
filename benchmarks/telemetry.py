"""What recording telemetry costs: its share of a processor, and the speed of a loop with it over without.

    python -m benchmarks.telemetry [--json FILE]          all sensors of this machine, a sample a second
    python -m benchmarks.telemetry --root DIR             the same on a recorded tree

Blocks with and without a recorder take turns (ABBA) in one process whose loop runs on one thread; the ratio is the median over the pairs of
frames/s with it over frames/s without, with its 95 % bootstrap interval. The share counts the samples and the programs they call.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from edgeseg.core.files import write_json
from targets.machine import describe_machine
from targets.measure.loop import bootstrap_ratio
from targets.telemetry.recorder import Recorder
from targets.telemetry.sensors import SENSORS

ASKED_SHARE = 0.01


def frames_per_s(seconds: float) -> float:
    """Speed of a loop that keeps one processor busy."""
    a_NN = np.ones((128, 128), dtype=np.float32)
    frames, start = 0, time.perf_counter_ns()
    while (now := time.perf_counter_ns()) - start < seconds * 1e9:
        np.sort(a_NN, axis=0)
        frames += 1
    return frames / (now - start) * 1e9


def main() -> None:
    """Parse, measure, print; exit code 1 where it costs more than is allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--block-seconds", type=float, default=3.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    recorder = Recorder(tuple(SENSORS), arguments.root)
    speeds: dict[bool, list[float]] = {True: [], False: []}
    cost_s, samples, columns = 0.0, 0, 0
    frames_per_s(0.5)
    for pair in range(arguments.pairs):
        for recorded in (True, False) if pair % 2 == 0 else (False, True):
            if not recorded:
                speeds[False].append(frames_per_s(arguments.block_seconds))
                continue
            recorder.start()
            speeds[True].append(frames_per_s(arguments.block_seconds))
            trace = recorder.stop()
            cost_s, samples, columns = cost_s + trace.cost_cpu_s, samples + len(trace.times_s), len(trace.columns)
    ratio, low, high = bootstrap_ratio(speeds[True], speeds[False])
    per_sample_ms, share = cost_s / samples * 1e3, cost_s / samples  # a sample a second
    print(f"{columns} columns: {per_sample_ms:.3f} ms of processor time a sample = {share:.3%} of one processor at a sample a second")
    print(f"frames/s with over without: {ratio:.4f} [{low:.4f}, {high:.4f}], {arguments.pairs} pairs of {arguments.block_seconds:g} s")
    if arguments.json:
        write_json(arguments.json, {
            "command": shlex.join(["python", "-m", "benchmarks.telemetry", *sys.argv[1:]]), "machine": asdict(describe_machine()),
            "versions": {"numpy": np.__version__}, "columns": columns, "cpu_ms_per_sample": per_sample_ms, "cpu_share": share,
            "asked_share": ASKED_SHARE, "speed_ratio": {"ratio": ratio, "low": low, "high": high, "pairs": arguments.pairs},
        })
    sys.exit(int(share > ASKED_SHARE))


if __name__ == "__main__":
    main()
