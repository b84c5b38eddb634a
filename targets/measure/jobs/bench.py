"""Job `bench`: one bundle; load, warm-up until steady, then every step of every frame."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeseg.core.bundle import open_bundle
from edgeseg.core.percentiles import as_others
from edgeseg.core.stats import latency_stats
from targets.boards import find_target, measured_on
from targets.executed import executed_facts
from targets.machine import describe_machine
from targets.measure.jobs.base import limits_of, model_frames, plan_here, status_bytes, timed, versions
from targets.measure.loop import Clock, Progress, Stream, measure_stream, warm_up
from targets.measure.result import BenchResult
from targets.measure.surroundings import Watch
from targets.runtimes import open_session


def bench(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Give the fields of `BenchResult`."""
    bundle, target = open_bundle(Path(request["bundle"])), find_target(request["target"])
    runtime, options = plan_here(request, bundle)
    files = [Path(file) for file in request["files"]]
    limits = limits_of(request)
    import_rss_bytes = status_bytes("VmRSS")
    with closing(Watch(target, clock, request["quick"], request.get("meter", ""))) as watch:
        on_progress("rest", 0.0)
        surroundings = watch.rest()

        on_progress("open", 0.0)
        session, cold_open_ns = timed(clock, lambda: open_session(bundle, runtime, options))
        first_frame = model_frames(bundle, files[:1])[0]
        _, first_ns = timed(clock, lambda: session.run(first_frame))
        stream = Stream(session, bundle.manifest.contract, files, clock)
        warm = warm_up(stream.step, limits, clock, on_progress)
        on_progress("measure", 0.0)
        with watch.around(surroundings):
            times, seconds = measure_stream(stream, limits, clock, on_progress)
    peak_rss_bytes = status_bytes("VmHWM")
    settings = dict(session.settings)
    session.close()
    again, load_ns = timed(clock, lambda: open_session(bundle, runtime, options))
    again.close()

    machine = describe_machine()
    result = BenchResult(
        bundle=bundle.manifest.name, bundle_sha256=bundle.manifest.sha256, format=bundle.manifest.format,
        precision=bundle.manifest.precision, target=target.name, runtime=runtime, provider=options.provider,
        num_threads=options.num_threads, quick=request["quick"],
        inference=latency_stats(times.inference), decode=latency_stats(times.decode), resize=latency_stats(times.resize),
        resize_back=latency_stats(times.resize_back), end_to_end=latency_stats(times.end_to_end),
        calls_per_frame=len(times.inference) / len(times.end_to_end), measured_s=seconds,
        warmup_frames=warm.frames, warmup_s=warm.seconds, steady=warm.steady,
        cold_open_ms=cold_open_ns / 1e6, load_ms=load_ns / 1e6, first_inference_ms=first_ns / 1e6,
        import_rss_bytes=import_rss_bytes, peak_rss_bytes=peak_rss_bytes, size_bytes=bundle.size_bytes,
        settings=settings, versions=versions(runtime, bundle.manifest.contract),
        clock_resolution_ns=time.get_clock_info("perf_counter").resolution * 1e9,
        machine=machine, measured_on=measured_on(target, machine), executed=executed_facts(bundle, runtime, options),
        as_others={"inference": as_others(times.inference), "end_to_end": as_others(times.end_to_end)},
        **surroundings.facts(times.end_to_end, gpu=options.provider in ("gpu", "cuda", "tensorrt")),
    )
    return asdict(result)
