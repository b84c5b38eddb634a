"""The pipeline: order, back-pressure, errors at their place, and an end from either side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from waiting_tools import comes_true

from targets.stream.pipeline import Pipeline


def same(value: int) -> int:
    return value


def run(frames: Iterator[int], **steps: object) -> list[int]:
    chosen = {"prepare": same, "answer": same, "finish": same, **steps}
    pipeline: Pipeline[int, int, int, int] = Pipeline(**chosen, workers=3, depth=2)
    return list(pipeline.results(frames))


OWN_THREADS = ("edgeseg-worker", "edgeseg-feed", "edgeseg-infer")
"""How the pipeline names its threads. Other tests of this process may have left others, of a training that was broken off."""


def no_thread_is_left() -> bool:
    return comes_true(lambda: not any(thread.name.startswith(OWN_THREADS) for thread in threading.enumerate()))


def test_results_come_in_order_though_workers_overtake_each_other() -> None:
    def slow_when_even(value: int) -> int:
        time.sleep(0.01 if value % 2 == 0 else 0)
        return value * 10

    assert run(iter(range(20)), prepare=slow_when_even, finish=slow_when_even) == [value * 100 for value in range(20)]
    assert no_thread_is_left()


def test_the_network_runs_on_one_thread() -> None:
    seen: set[int] = set()

    def note(value: int) -> int:
        seen.add(threading.get_ident())
        return value

    run(iter(range(20)), answer=note)
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_a_slow_taker_makes_the_source_wait() -> None:
    taken = []

    def frames() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    pipeline: Pipeline[int, int, int, int] = Pipeline(same, same, same, workers=2, depth=2)
    results = pipeline.results(frames())
    assert next(results) == 0
    time.sleep(0.2)
    assert len(taken) <= 9  # one with the taker, two in each of two queues, one at each of the two threads, and a little air
    results.close()
    assert no_thread_is_left()


@pytest.mark.parametrize("step", ["prepare", "answer", "finish"])
def test_an_error_comes_after_the_results_before_it(step: str) -> None:
    def fails_at_five(value: int) -> int:
        if value == 5:
            raise ValueError("five")
        return value

    steps = {"prepare": same, "answer": same, "finish": same, step: fails_at_five}
    pipeline: Pipeline[int, int, int, int] = Pipeline(**steps, workers=2, depth=2)
    got = []
    with pytest.raises(ValueError, match="five"):
        for value in pipeline.results(iter(range(100))):
            got.append(value)
    assert got == [0, 1, 2, 3, 4]
    assert no_thread_is_left()


def test_an_error_of_the_source_comes_last() -> None:
    def frames() -> Iterator[int]:
        yield from range(3)
        raise OSError("cable pulled")

    got = []
    with pytest.raises(OSError, match="cable pulled"):
        for value in Pipeline(same, same, same, workers=2, depth=2).results(frames()):
            got.append(value)
    assert got == [0, 1, 2]
    assert no_thread_is_left()


def test_asked_to_stop_it_finishes_what_it_began() -> None:
    began: list[int] = []
    asked = threading.Event()

    def begin(value: int) -> int:
        began.append(value)
        return value

    pipeline: Pipeline[int, int, int, int] = Pipeline(begin, same, same, workers=2, depth=2, asked_to_stop=asked.is_set)
    got = []
    for value in pipeline.results(iter(range(10_000))):
        got.append(value)
        if value == 20:
            asked.set()
    assert got == list(range(len(got)))
    assert sorted(began) == got
    assert 20 < len(got) < 40
    assert no_thread_is_left()
