"""Where the frames of a live source wait, and which of them leave when there are too many.

A camera does not wait. A thread takes its frames as they come; when `capacity` of them wait already, the policy decides.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from edgeseg.core.errors import ConfigError, InputMissingError
from targets.sources.base import Source, SourceFrame

POLICIES: Final = ("never", "oldest", "newest")
"""`oldest`: the frame that waited longest makes room; `newest`: the frame that just came is left out; `never`: the source has to wait."""
LIVE_POLICY: Final = "oldest"
"""What a live source gets unless told: the answers are about what is seen now."""
_LOOK_EVERY_S: Final = 0.1


def policy_for(wanted: str, *, live: bool) -> str:
    """Give the policy of a live source, or of files; an empty `wanted` is its default.

    Raises:
        ConfigError: an unknown policy, or frames of a file were to be left out.
    """
    if wanted not in ("", *POLICIES):
        raise ConfigError(f"drop policy '{wanted}' is unknown; one of {', '.join(POLICIES)}")
    if not live:
        if wanted not in ("", "never"):
            raise ConfigError(f"--drop {wanted} is for cameras and streams; of files every frame is answered, so leave it out")
        return "never"
    return wanted or LIVE_POLICY


class Line:
    """The waiting line of one live source; iterate it from one thread."""

    def __init__(self, source: Source, policy: str, *, capacity: int, timeout_s: float, stopping: Callable[[], bool]) -> None:
        """Begin to take frames. `stopping` is asked several times a second; when it says so, the line ends."""
        self.dropped = 0
        """Frames that left by the policy."""
        self._source, self._policy, self._capacity, self._timeout_s, self._stopping = source, policy, capacity, timeout_s, stopping
        self._waiting: deque[SourceFrame] = deque()
        self._changed = threading.Condition()
        self._closed = self._ended = False
        self._error: BaseException | None = None
        self._came_s = time.monotonic()
        self._thread = threading.Thread(target=self._take, name="edgeseg-line", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[SourceFrame]:
        """Give the frames that wait, then those to come.

        Raises:
            InputMissingError: none came for `timeout_s`, or the source was lost.
        """
        while (item := self._next()) is not None:
            yield item

    def close(self) -> None:
        """Take no more frames. A source that hangs in its driver is left behind; its thread ends with the process."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=1.0)

    def _next(self) -> SourceFrame | None:
        with self._changed:
            while not self._waiting:
                if self._closed or self._stopping():
                    return None
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return None
                if time.monotonic() - self._came_s > self._timeout_s:
                    name = self._source.live
                    raise InputMissingError(f"{name}: no frame for {self._timeout_s:g} s; check it and type the same command again")
                self._changed.wait(_LOOK_EVERY_S)
            item = self._waiting.popleft()
            self._changed.notify_all()
            return item

    def _take(self) -> None:
        frames = iter(self._source)
        try:
            for item in frames:
                if not self._admit(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _admit(self, item: SourceFrame) -> bool:
        """Put a frame into the line, or drop one; `False` when nobody wants any more."""
        with self._changed:
            self._came_s = time.monotonic()
            while self._policy == "never" and len(self._waiting) >= self._capacity and not self._over():
                self._changed.wait(_LOOK_EVERY_S)
                self._came_s = time.monotonic()
            if self._over():
                return False
            if len(self._waiting) >= self._capacity:
                self.dropped += 1
                if self._policy == "newest":
                    return True
                self._waiting.popleft()
            self._waiting.append(item)
            self._changed.notify_all()
            return True

    def _over(self) -> bool:
        return self._closed or self._stopping()
