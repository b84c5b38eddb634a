"""The process that measures: `python -m targets.measure.worker`, one JSON request on stdin, JSON lines on stdout.

A process of its own makes load time and peak memory honest, and lets an SDK crash without taking anybody along. Lines:
`{"stage": ..., "done": ...}` while it works, then `{"result": {...}}` or `{"error": {"type": ..., "message": ...}}`.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import PIL

from edgeseg import __version__
from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.errors import EdgesegError, explain_os_error
from edgeseg.core.images import place, read_frame, to_model
from edgeseg.core.stats import latency_stats
from targets.boards import find_target, measured_on
from targets.executed import executed_facts
from targets.machine import describe_machine
from targets.measure.loop import (
    BlockMedians,
    Clock,
    Progress,
    Stream,
    bootstrap_ratio,
    cycle,
    interleave,
    measure_stream,
    take_turns,
    warm_up,
)
from targets.measure.result import FULL, QUICK, BenchResult, SpeedRatio
from targets.runtimes import RUNTIMES, RuntimeOptions, Session, open_session

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer the request on stdin; never raises for what a user can cause."""
    answers = _keep_stdout_for_answers()
    request = json.loads(sys.stdin.read())
    _die_with_parent(request["parent_pid"])

    def say(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    def on_progress(stage: str, done: float) -> None:
        say({"stage": stage, "done": done})

    jobs: dict[str, Callable[[dict[str, Any], Progress, Clock], dict[str, Any]]] = {"bench": _bench, "compare": _compare, "sweep": _sweep}
    try:
        say({"result": jobs[request["job"]](request, on_progress, time.perf_counter_ns)})
    except EdgesegError as error:
        say({"error": {"type": type(error).__name__, "message": str(error)}})
    except OSError as error:
        explained = explain_os_error(error, doing="reading")
        say({"error": {"type": type(explained).__name__, "message": str(explained)}})


def _keep_stdout_for_answers() -> TextIO:
    """Move stdout away and let whatever an SDK prints go to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere the pipe's end does)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before we asked
        os._exit(1)


def _bench(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    bundle, target = open_bundle(Path(request["bundle"])), find_target(request["target"])
    options = RuntimeOptions(**request["options"])
    files = [Path(file) for file in request["files"]]
    limits = QUICK if request["quick"] else FULL
    import_rss_bytes = _status_bytes("VmRSS")

    on_progress("open", 0.0)
    session, cold_open_ns = _timed(clock, lambda: open_session(bundle, request["runtime"], options))
    first_frame = _model_frames(bundle, files[:1])[0]
    _, first_ns = _timed(clock, lambda: session.run(first_frame))
    stream = Stream(session, bundle.manifest.contract, files, clock)
    warm = warm_up(stream.step, limits, clock, on_progress)
    on_progress("measure", 0.0)
    times, seconds = measure_stream(stream, limits, clock, on_progress)
    peak_rss_bytes = _status_bytes("VmHWM")
    settings = dict(session.settings)
    session.close()
    again, load_ns = _timed(clock, lambda: open_session(bundle, request["runtime"], options))
    again.close()

    machine = describe_machine()
    result = BenchResult(
        bundle=bundle.manifest.name, bundle_sha256=bundle.manifest.sha256, format=bundle.manifest.format,
        precision=bundle.manifest.precision, target=target.name, runtime=request["runtime"], provider=options.provider,
        num_threads=options.num_threads, quick=request["quick"],
        inference=latency_stats(times.inference), decode=latency_stats(times.decode), resize=latency_stats(times.resize),
        resize_back=latency_stats(times.resize_back), end_to_end=latency_stats(times.end_to_end),
        calls_per_frame=len(times.inference) / len(times.end_to_end), measured_s=seconds,
        warmup_frames=warm.frames, warmup_s=warm.seconds, steady=warm.steady,
        cold_open_ms=cold_open_ns / 1e6, load_ms=load_ns / 1e6, first_inference_ms=first_ns / 1e6,
        import_rss_bytes=import_rss_bytes, peak_rss_bytes=peak_rss_bytes, size_bytes=bundle.size_bytes,
        settings=settings, versions=_versions(request["runtime"]),
        clock_resolution_ns=time.get_clock_info("perf_counter").resolution * 1e9,
        machine=machine, measured_on=measured_on(target, machine), executed=executed_facts(bundle, request["runtime"], options),
    )
    return asdict(result)


def _compare(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    target, limits = find_target(request["target"]), QUICK if request["quick"] else FULL
    files = [Path(file) for file in request["files"]]
    calls, sessions = [], []
    for side in ("a", "b"):
        on_progress("open", 0.0)
        bundle = open_bundle(Path(request[side]["bundle"]))
        session: Session = open_session(bundle, request[side]["runtime"], RuntimeOptions(**request[side]["options"]))
        stream = Stream(session, bundle.manifest.contract, files, clock)
        warm_up(stream.step, limits, clock, on_progress)
        calls.append(cycle(session, _model_frames(bundle, files)))
        sessions.append(session)
    medians: BlockMedians = interleave(calls[0], calls[1], limits, clock, on_progress)
    for session in sessions:
        session.close()
    ratio, low, high = bootstrap_ratio(medians.a, medians.b)
    return asdict(SpeedRatio(
        ratio=ratio, low=low, high=high, blocks=len(medians.a), frames_per_block=medians.frames_per_block,
        a_p50_ms=float(np.median(medians.a)) / 1e6, b_p50_ms=float(np.median(medians.b)) / 1e6, quick=request["quick"],
        measured_on=measured_on(target, describe_machine()),
    ))


def _sweep(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    options = RuntimeOptions(**request["options"])
    if options.num_threads == 1 and options.provider == "cpu":
        clock = time.process_time_ns  # one thread computes: its own time, without what a busy machine takes away meanwhile
    sessions, calls = [], []
    for number, folder in enumerate(request["bundles"]):
        bundle = open_bundle(Path(folder))
        session = open_session(bundle, request["runtime"], options)
        contract = bundle.manifest.contract
        noise_HWC = np.random.Generator(np.random.Philox(0)).integers(0, 256, (contract.height, contract.width, 3), dtype=np.uint8)
        sessions.append(session)
        calls.append(cycle(session, [noise_HWC]))
        on_progress("open", (number + 1) / len(request["bundles"]))
    least_ns = take_turns(calls, clock, on_progress)
    for session in sessions:
        session.close()
    return {"ms": [value / 1e6 for value in least_ns]}


def _timed(clock: Clock, call: Callable[[], Any]) -> tuple[Any, int]:
    start = clock()
    result = call()
    return result, clock() - start


def _model_frames(bundle: Bundle, files: list[Path]) -> list[Any]:
    """First window of each of (at most 16) files at model size."""
    contract = bundle.manifest.contract
    frames = [read_frame(file) for file in files[:16]]
    return [
        to_model(frame, place((frame.shape[0], frame.shape[1]), (contract.height, contract.width), contract.resize))[0] for frame in frames
    ]


def _status_bytes(field: str) -> int | None:
    """VmRSS or VmHWM of this process. getrusage would also count what the parent held when it forked."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _versions(runtime: str) -> dict[str, str]:
    return {
        "edgeseg": __version__, "python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__,
        runtime: RUNTIMES[runtime].version() or "not available",
    }


if __name__ == "__main__":
    main()
