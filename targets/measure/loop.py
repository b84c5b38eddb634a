"""The measured loops: warm-up, single stream with every step timed, and many calls that take turns.

The clock is an argument (nanoseconds, monotonic). Nothing measured is ever left out. Times go into flat arrays that hold no objects.
"""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from edgeseg.core.images import Frame, Placement, picture_to_model, read_picture
from edgeseg.core.manifest import Contract
from targets.instances import put_back
from targets.measure.result import Limits, WarmUp
from targets.runtimes.base import Session
from targets.stream.ring import Arrays, answer_array

Clock = Callable[[], int]
Progress = Callable[[str, float], None]
"""Called with the stage (`warm-up`, `measure`) and the share done, 0..1."""

STEADY_SHARE: Final = 0.03
_PROGRESS_EVERY_NS: Final = 250_000_000
NUM_TURNS: Final = 9
TURN_NS: Final = 5_000_000
"""Least length of a turn, but for calls that take longer than a third of it."""


def _times() -> array[int]:
    return array("q")


@dataclass(frozen=True)
class StepTimes:
    """Nanoseconds of every step of every frame, in order."""

    decode: array[int] = field(default_factory=_times)
    resize: array[int] = field(default_factory=_times)
    inference: array[int] = field(default_factory=_times)
    """One entry a runtime call: more than one a frame where frames are tiled."""
    resize_back: array[int] = field(default_factory=_times)
    end_to_end: array[int] = field(default_factory=_times)


class Stream:
    """Files go round and round through decode, resize, inference and resize-back."""

    def __init__(self, session: Session, contract: Contract, files: Sequence[Path], clock: Clock) -> None:
        """Take the files in order, from the first again when they are used up."""
        self._session = session
        self._arrays = Arrays(contract)
        self._contract = contract
        self._files = files
        self._clock = clock
        self._next = 0
        self._placement: Placement | None = None

    def step(self, times: StepTimes) -> None:
        """Take one frame through and append its times."""
        clock, session, arrays = self._clock, self._session, self._arrays
        file = self._files[self._next]
        self._next = (self._next + 1) % len(self._files)
        start = clock()
        picture = read_picture(file)  # as `edgeseg predict` does, into arrays that come again like its own
        decoded = clock()
        placement = self._place(picture.frame_hw)
        inputs = picture_to_model(picture, placement, arrays.room(placement))
        resized = clock()
        answers, before = [], resized
        for window, model_frame in enumerate(inputs):
            answers.append(arrays.run(session, window, model_frame))
            after = clock()
            times.inference.append(after - before)
            before = after
        put_back(answers, placement)
        end = clock()
        times.decode.append(decoded - start)
        times.resize.append(resized - decoded)
        times.resize_back.append(end - before)
        times.end_to_end.append(end - start)

    def _place(self, frame_hw: tuple[int, int]) -> Placement:
        if self._placement is None or self._placement.frame_hw != frame_hw:
            self._placement = self._contract.place(frame_hw)
        return self._placement


def warm_up(step: Callable[[StepTimes], None], limits: Limits, clock: Clock, on_progress: Progress) -> WarmUp:
    """Take frames until the inference medians of two windows in a row differ by at most 3 %, or a bound is reached."""
    times, start, previous, frames = StepTimes(), clock(), 0.0, 0
    while True:
        done = len(times.inference)
        for _ in range(limits.warmup_window):
            step(times)
        frames += limits.warmup_window
        median = statistics.median(times.inference[done:])
        seconds = (clock() - start) / 1e9
        on_progress("warm-up", min(1.0, max(frames / limits.warmup_max_frames, seconds / limits.warmup_max_seconds)))
        if previous and abs(median - previous) <= STEADY_SHARE * previous:
            return WarmUp(frames=frames, seconds=seconds, steady=True)
        if frames + limits.warmup_window > limits.warmup_max_frames or seconds >= limits.warmup_max_seconds:
            return WarmUp(frames=frames, seconds=seconds, steady=False)
        previous = median


def measure_stream(stream: Stream, limits: Limits, clock: Clock, on_progress: Progress) -> tuple[StepTimes, float]:
    """Take frames until both minima are reached; give all times and the seconds it took."""
    times = StepTimes()
    start = told = clock()
    while True:
        stream.step(times)
        now = clock()
        seconds, frames = (now - start) / 1e9, len(times.end_to_end)
        done = min(1.0, frames / limits.min_frames, seconds / limits.min_seconds if limits.min_seconds else 1.0)
        if done >= 1:
            return times, seconds
        if now - told >= _PROGRESS_EVERY_NS:
            told = now
            on_progress("measure", done)


def take_turns(calls: Sequence[Callable[[], object]], clock: Clock, on_progress: Progress) -> list[float]:
    """Least nanoseconds of each of many calls, which take turns in short blocks.

    For calls of microseconds to milliseconds: a busy machine makes any of them longer and none shorter, and the turns lie far enough apart
    that no call meets the busy spells alone.
    """
    lengths = []
    for call in calls:
        _least(call, 2, clock)
        slowest = max(_least(call, 2, clock), 1.0)
        lengths.append(max(3, min(200, int(TURN_NS / slowest))))
    rounds: list[list[float]] = []
    for number in range(NUM_TURNS):
        rounds.append([_least(call, length, clock) for call, length in zip(calls, lengths, strict=True)])
        on_progress("measure", (number + 1) / NUM_TURNS)
    return [min(values) for values in zip(*rounds, strict=True)]


def _least(call: Callable[[], object], length: int, clock: Clock) -> float:
    least, before = float("inf"), clock()
    for _ in range(length):
        call()
        after = clock()
        least = min(least, after - before)
        before = after
    return least


def cycle(session: Session, contract: Contract, frames: Sequence[Frame]) -> Callable[[], object]:
    """Give a call that answers the next of `frames` (at model size) each time; they and the array for a class map come again."""
    position, out = -1, answer_array(contract)

    def call() -> object:
        nonlocal position
        position = (position + 1) % len(frames)
        return session.run(frames[position], out)

    return call


def bootstrap_ratio(a: Sequence[float], b: Sequence[float], *, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Median of the ratios a_i / b_i of paired values and its 95 % percentile-bootstrap interval over the pairs (Efron 1979).

    Pair by pair, so that a machine which becomes slower half-way slows both sides of each ratio.
    """
    ratio_P = np.asarray(a, dtype=np.float64) / np.asarray(b, dtype=np.float64)  # P = pairs
    rng = np.random.Generator(np.random.Philox(seed))
    chosen_RP = rng.integers(0, len(ratio_P), (resamples, len(ratio_P)))  # R = resamples
    low, high = np.percentile(np.median(ratio_P[chosen_RP], axis=1), [2.5, 97.5])
    return float(np.median(ratio_P)), float(low), float(high)
