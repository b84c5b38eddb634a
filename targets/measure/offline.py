"""Offline throughput: files to class maps as fast as it goes, as many at once as the settings have streams."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from edgeseg.core.stats import LatencyStats, latency_stats
from targets.measure.loop import Clock, Progress, StepTimes, Stream
from targets.measure.result import Limits

_LOOK_S: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Offline:
    """What a machine gets done when nothing waits for a single answer."""

    fps: float
    """Frames begun and ended in the measured time, over that time."""
    frames: int
    seconds: float
    at_once: int
    """Frames that were worked on at a time: the settings' streams."""
    num_threads: int
    """Threads of the runtime, which the streams share."""
    latency: LatencyStats
    """File to class map at frame size, with that many at a time; its `fps` is that above."""
    steady: bool = True
    """False: the warm-up ended at its bound with medians still moving by more than 3 %."""
    quick: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    """As the session gave them back."""

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return asdict(self)


def measure_offline(
    streams: Sequence[Stream], limits: Limits, clock: Clock, on_progress: Progress, *, num_threads: int,
) -> Offline:
    """Let every stream take frames in a thread of its own until both minima of `limits` are reached.

    Raises:
        EdgesegError: whatever a stream raised first.
    """
    stop = threading.Event()
    times = [StepTimes() for _ in streams]
    start = clock()

    def work(stream: Stream, own: StepTimes) -> int:
        while not stop.is_set():
            stream.step(own)
        return clock()

    with ThreadPoolExecutor(len(streams), thread_name_prefix="offline") as pool:
        futures = [pool.submit(work, stream, own) for stream, own in zip(streams, times, strict=True)]
        try:
            while True:
                failed, _ = wait(futures, timeout=_LOOK_S, return_when=FIRST_EXCEPTION)
                frames, seconds = sum(len(own.end_to_end) for own in times), (clock() - start) / 1e9
                done = min(1.0, frames / limits.min_frames, seconds / limits.min_seconds if limits.min_seconds else 1.0)
                on_progress("offline", done)
                if failed or done >= 1:
                    break
        finally:
            stop.set()
        last = max(future.result() for future in futures)
    whole = [time for own in times for time in own.end_to_end]
    seconds = (last - start) / 1e9
    fps = len(whole) / seconds
    return Offline(fps=fps, frames=len(whole), seconds=seconds, at_once=len(streams), num_threads=num_threads,
                   latency=replace(latency_stats(whole), fps=fps))
