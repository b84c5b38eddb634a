"""Our runner against the SDKs alone: frames a second, and the time from process start to the first mask with and without a cache.

    python -m benchmarks.runner_speed BUNDLE ... [--only speed|start] [--pairs N] [--threads N] [--clock wall|cpu] [--json FILE]

speed    Real frames in (the bundle's golden frames and mirrored ones, in turn), masks out that are the caller's, against the SDK alone.
         Each frame's two arrays come again, as those of `predict`'s pipeline and of `bench` do (targets/stream/ring.py).
         OpenVINO's side, one golden frame again and again, is benchmark_app's own code, inference only (openvino.tools.benchmark): `sync`
         with one request, `async` with as many requests and streams as threads, where ours is one session that as many threads call.
         ONNX Runtime and LiteRT: benchmarks/bare.py on the same frames. In blocks ABBA in one process, warmed up; the ratio is the median
         over pairs, with a 95 % bootstrap interval. Above 1: ours gives more frames a second.
start    Seconds from starting a process to its first mask, cache filled over cache off, in turn; the least of each counts. OpenVINO only:
         ONNX Runtime keeps nothing on the CPU, LiteRT nothing at all.

Memory over the SDK alone is in benchmarks/end_to_end.py (`rss`).
"""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.bare import BARE, keeping_bytecode
from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.files import write_json
from edgeseg.core.lazy import require
from edgeseg.core.vendors import versions
from targets.machine import describe_machine
from targets.measure.loop import bootstrap_ratio
from targets.runtimes import RuntimeOptions, open_session
from targets.stream.ring import answer_array

Block = Callable[[int], None]
"""Answers so many frames."""
ASKED: Final = {"openvino": 0.98, "onnxruntime": 0.99, "litert": 0.99}
ASKED_START: Final = 0.5
CLOCKS: Final = {"wall": time.perf_counter, "cpu": time.process_time}
BLOCK_S: Final = 0.3
ROOT: Final = Path(__file__).resolve().parents[1]

CHILD: Final = """
import sys, time
from pathlib import Path
from edgeseg.core.bundle import open_bundle
from edgeseg.core.images import read_frame, to_model
from targets.runtimes import RuntimeOptions, open_session
folder, runtime, threads, cache = sys.argv[1:5]
bundle = open_bundle(Path(folder))
session = open_session(bundle, runtime, RuntimeOptions(num_threads=int(threads), cache_dir=cache))
frame, contract = read_frame(bundle.folder / bundle.manifest.golden[0].frame), bundle.manifest.contract
session.run(to_model(frame, contract.place(frame.shape[:2]))[0])
print(time.monotonic_ns())
"""


def frames_of(bundle: Bundle) -> list[np.ndarray[Any, Any]]:
    """Frames at model size that take turns: golden ones and mirrored ones; writeable, as those of `targets.stream.ring` are."""
    from edgeseg.core.images import to_model

    contract = bundle.manifest.contract
    found = []
    for frame, _ in bundle.golden_pairs():
        placed = contract.place((frame.shape[0], frame.shape[1]))
        found += [part.copy() for part in to_model(frame, placed)[:1]]
    return [*found, *(np.ascontiguousarray(frame[:, ::-1]) for frame in found)]


def ours(bundle: Bundle, runtime: str, threads: int, streams: int) -> Block:
    """As `predict` and `bench` call: arrays that come again in pairs; by as many threads as streams, each with its own answers."""
    session = open_session(bundle, runtime, RuntimeOptions(num_threads=threads, streams=streams))
    frames, contract = frames_of(bundle), bundle.manifest.contract

    def caller(offset: int) -> Block:
        own = [*frames[offset % len(frames):], *frames[: offset % len(frames)]]
        turns = itertools.cycle([(frame, answer_array(contract)) for frame in own])

        def block(count: int) -> None:
            for _ in range(count):
                session.run(*next(turns))

        return block

    callers = [caller(number) for number in range(streams)]
    if streams == 1:
        return callers[0]

    def together(count: int) -> None:
        threads_ = [threading.Thread(target=one, args=(count // streams,)) for one in callers[1:]]
        for thread in threads_:
            thread.start()
        callers[0](count - (count // streams) * (streams - 1))
        for thread in threads_:
            thread.join()

    return together


class _OneFrame:
    """What benchmark_app's loop asks of its queue of data, in its mode `inference only`."""

    def get_next_batch_size(self) -> int:
        return 1


def benchmark_app(bundle: Bundle, threads: int, streams: int) -> Block:
    """benchmark_app's own loop: the same model, hints, streams and requests; frames set once, masks left where they are."""
    benchmark = require("openvino.tools.benchmark.benchmark", extra="intel").Benchmark
    app = benchmark("CPU", streams, 1, None, "sync" if streams == 1 else "async", True)
    app.set_config({"CPU": {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams,
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
    }})
    requests = app.create_infer_requests(app.core.compile_model(app.read_model(str(bundle.model_path)), "CPU"))
    frame = frames_of(bundle)[0][np.newaxis]
    tensor = require("openvino", extra="intel").Tensor
    for request in requests:
        request.set_input_tensor(tensor(frame, shared_memory=True))
    app.first_infer(requests)

    def block(count: int, _held: object = frame) -> None:  # a tensor does not keep the memory it shares
        app.niter = count
        app.main_loop(requests, _OneFrame(), [1], 50, False)

    return block


def bare(bundle: Bundle, threads: int) -> Block:
    """The SDK alone in a bare loop."""
    call = BARE[bundle.manifest.format][1](bundle, threads, frames_of(bundle))

    def block(count: int) -> None:
        for _ in range(count):
            call()

    return block


def compare(a: Block, b: Block, pairs: int, clock: Callable[[], float]) -> dict[str, float]:
    """Frames a second of `a` over those of `b`, in blocks ABBA of equal length."""

    def seconds(block: Block, count: int) -> float:
        start = clock()
        block(count)
        return clock() - start

    for block in (a, b):
        block(4)
    count = max(4, 2 * math.ceil(BLOCK_S * 4 / max(seconds(a, 8), 1e-6)))
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            times[side].append(seconds((a, b)[side], count))
    ratio, low, high = bootstrap_ratio(times[1], times[0])
    return {"ratio": ratio, "low": low, "high": high, "least_ratio": min(times[1]) / min(times[0]), "pairs": pairs, "frames_a_block": count}


def child(bundle: Bundle, runtime: str, threads: int, cache: str, environment: dict[str, str]) -> float:
    """Seconds a process took to its first mask; how it ends does not count."""
    start_ns = time.monotonic_ns()
    done = subprocess.run([sys.executable, "-c", CHILD, str(bundle.folder.resolve()), runtime, str(threads), cache], check=True,
                          capture_output=True, text=True, cwd=ROOT, env=environment)
    return (int(done.stdout) - start_ns) / 1e9


def start(bundle: Bundle, runtime: str, threads: int, repeats: int) -> dict[str, float]:
    """Cache filled over cache off, in turn."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as bytecode:
        environment = keeping_bytecode(Path(bytecode))
        child(bundle, runtime, threads, folder, environment)  # fills both
        taken: dict[str, list[float]] = {"": [], folder: []}
        for _ in range(repeats):
            for cache, times in taken.items():
                times.append(child(bundle, runtime, threads, cache, environment))
    return {"ratio": min(taken[folder]) / min(taken[""]), "with_s": min(taken[folder]), "without_s": min(taken[""])}


def measure(bundle: Bundle, parts: list[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All figures of one bundle."""
    runtime, rows = BARE[bundle.manifest.format][0], []
    about = {"bundle": bundle.manifest.name, "runtime": runtime, "precision": bundle.manifest.precision, "threads": arguments.threads}
    clock = CLOCKS[arguments.clock]
    if "speed" in parts and runtime == "openvino":
        for mode, streams in (("sync", 1), ("async", arguments.threads)):
            if mode == "sync" or streams > 1:
                found = compare(ours(bundle, runtime, arguments.threads, streams), benchmark_app(bundle, arguments.threads, streams),
                                arguments.pairs, clock)
                rows.append({**about, "figure": f"frames/s over benchmark_app, {mode}", "asked": ASKED[runtime], "above": True, **found})
    elif "speed" in parts:
        found = compare(ours(bundle, runtime, arguments.threads, 1), bare(bundle, arguments.threads), arguments.pairs, clock)
        rows.append({**about, "figure": "frames/s over a bare loop", "asked": ASKED[runtime], "above": True, **found})
    if "start" in parts and runtime == "openvino":
        found = start(bundle, runtime, arguments.threads, 12)
        rows.append({**about, "figure": "start to first mask, cache over none", "asked": ASKED_START, "above": False, **found})
    return rows


def main() -> None:
    """Parse, measure, print; exit code 1 where what was asked for is not reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--only", choices=("speed", "start"), nargs="*", default=["speed", "start"])
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: the process's own time, for a machine that others use too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(f"{'bundle':24} {'runtime':12} {'figure':40} {'ratio':>7}  95 % interval   asked")
    for folder in arguments.bundles:
        for row in measure(open_bundle(folder), arguments.only, arguments):
            rows.append({**row, "reached": row["ratio"] >= row["asked"] if row["above"] else row["ratio"] <= row["asked"]})
            interval = f"{row['low']:.3f} to {row['high']:.3f}" if "low" in row else " " * 14
            print(f"{row['bundle']:24} {row['runtime']:12} {row['figure']:40} {row['ratio']:7.3f}  {interval}  "
                  f"{'>=' if row['above'] else '<='} {row['asked']} {'' if rows[-1]['reached'] else 'MISSED'}", flush=True)
    if arguments.json:
        write_json(arguments.json, {
            "command": shlex.join(["python", "-m", "benchmarks.runner_speed", *sys.argv[1:]]), "machine": asdict(describe_machine()),
            "versions": versions("onnxruntime", "openvino", "ai-edge-litert", "numpy"), "clock": arguments.clock, "results": rows,
        })
    sys.exit(int(not all(row["reached"] for row in rows)))


if __name__ == "__main__":
    main()
