"""Three steps of a frame side by side: `prepare` and `finish` on a few workers, `answer` on one thread; results in order.

The SDKs, Pillow (libjpeg, zlib, its resize) and FFmpeg leave Python's lock while they work, so threads are enough. What is between two
steps is bounded: a slow step makes those before it wait, and memory stays as it is however long the source.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Queue
from typing import Any, Final, Generic, TypeVar

Raw = TypeVar("Raw")
Ready = TypeVar("Ready")
Answered = TypeVar("Answered")
Result = TypeVar("Result")

_WORKERS_NICE: Final = 5
"""Workers give way to the thread that runs the network, which decides the rate (Linux: priorities are a thread's own)."""


class Pipeline(Generic[Raw, Ready, Answered, Result]):
    """Runs the three steps; one use."""

    def __init__(
        self, prepare: Callable[[Raw], Ready], answer: Callable[[Ready], Answered], finish: Callable[[Answered], Result], *,
        workers: int, depth: int, asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Hold the steps; `depth` is how many frames may wait between two of them. `asked_to_stop` is asked before each frame."""
        self._asked_to_stop = asked_to_stop
        self._prepare, self._answer, self._finish = prepare, answer, finish
        self._prepared: Queue[Future[Ready] | None] = Queue(depth)
        self._finished: Queue[Future[Result] | None] = Queue(depth)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="edgeseg-worker", initializer=_give_way)
        self._stop = threading.Event()

    def stopping(self) -> bool:
        """Tell whether no new frame is taken any more; those inside come out."""
        return self._stop.is_set() or self._asked_to_stop()

    def results(self, frames: Iterator[Raw]) -> Generator[Result, None, None]:
        """Give the results in the order of `frames`.

        Raises:
            Exception: whatever a step or `frames` raised, after the results of the frames before.
        """
        threads = [
            threading.Thread(target=self._feed, args=(frames,), name="edgeseg-feed", daemon=True),
            threading.Thread(target=self._infer, name="edgeseg-infer", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            while (future := self._finished.get()) is not None:
                yield future.result()
        finally:
            self._stop.set()
            while any(thread.is_alive() for thread in threads):
                with contextlib.suppress(Empty):  # a thread may wait for room
                    self._finished.get(timeout=0.05)
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _feed(self, frames: Iterator[Raw]) -> None:
        try:
            for frame in frames:
                if self.stopping():
                    break
                self._prepared.put(self._pool.submit(self._prepare, frame))
        except BaseException as error:
            self._prepared.put(_failed(error))
        finally:
            close: Any = getattr(frames, "close", None)
            if close is not None:
                close()
            self._prepared.put(None)

    def _infer(self) -> None:
        try:
            while (future := self._prepared.get()) is not None:
                answered = self._answer(future.result())
                self._finished.put(self._pool.submit(self._finish, answered))
        except BaseException as error:
            self._stop.set()
            self._finished.put(_failed(error))
            while self._prepared.get() is not None:  # so that the feeder finds room and sees that it is over
                pass
        finally:
            self._finished.put(None)


def _failed(error: BaseException) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def _give_way() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _WORKERS_NICE)
