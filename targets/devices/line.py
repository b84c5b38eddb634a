"""The board's end of the line to the host: messages of one JSON line, some with bytes behind them, over two pipes of sshd.

Both ends say `{"alive": true}` every few seconds. A board sees no end of a connection whose cable was pulled, so silence is the end.

Runs on the board: standard library only.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

BEAT_S: Final = 5.0
SILENCE_S: Final = 30.0
ALIVE: Final = {"alive": True}
CHUNK_BYTES: Final = 1 << 18
_READ_BYTES: Final = 1 << 16


class HostGoneError(Exception):
    """Nobody is left to work for: the connection ended, or the host has been silent for too long."""


class Line:
    """One host's connection."""

    def __init__(self, read_fd: int, write_fd: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the two file descriptors over; neither blocks from now on."""
        self.silence_s, self.beat_s = SILENCE_S, BEAT_S
        self._in, self._out, self._clock = read_fd, write_fd, clock
        self._buffer = bytearray()
        self._heard = self._said = clock()
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)

    def receive(self) -> dict[str, Any]:
        """Wait for the next message.

        Raises:
            HostGoneError: there will be none.
        """
        while (message := self._message()) is None:
            self._fill(self.beat_s)
        return message

    def receive_or(self, other_fd: int | None, wait_s: float) -> tuple[dict[str, Any] | None, bool]:
        """Wait a moment for a message or for something to read in `other_fd`: give what there is of both."""
        message = self._message()
        ready = self._fill(0 if message else wait_s, *(() if other_fd is None else (other_fd,)))
        return message or self._message(), ready

    def payload(self, count: int) -> Iterator[bytes]:
        """Give the `count` bytes behind a message, in pieces."""
        while count:
            while not self._buffer:
                self._fill(self.beat_s)
            piece = bytes(self._buffer[:count])
            del self._buffer[:count]
            count -= len(piece)
            yield piece

    def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        """Send a message and the bytes behind it.

        Raises:
            HostGoneError: nobody takes it.
        """
        data = memoryview(json.dumps(message).encode() + b"\n" + payload)
        while data:
            _, writable, _ = select.select([], [self._out], [], self.silence_s)
            if not writable:
                raise HostGoneError
            try:
                data = data[os.write(self._out, data):]
            except BlockingIOError:
                continue
            except OSError as error:
                raise HostGoneError from error
        self._said = self._clock()

    def beat(self) -> None:
        """Say that this end is alive, if it has said nothing for a while: to be called in everything that takes long."""
        if self._clock() - self._said >= self.beat_s:
            self.send(dict(ALIVE))

    def _message(self) -> dict[str, Any] | None:
        while (end := self._buffer.find(b"\n")) >= 0:
            message: dict[str, Any] = json.loads(bytes(self._buffer[:end]))
            del self._buffer[:end + 1]
            if message != ALIVE:
                return message
        return None

    def _fill(self, wait_s: float, *others: int) -> bool:
        """Read what the host sent within `wait_s`; tell whether one of `others` has something to read."""
        self.beat()
        ready, _, _ = select.select([self._in, *others], [], [], wait_s)
        if self._in in ready:
            try:
                data = os.read(self._in, _READ_BYTES)
            except BlockingIOError:
                return len(ready) > 1
            except OSError as error:
                raise HostGoneError from error
            if not data:
                raise HostGoneError
            self._buffer += data
            self._heard = self._clock()
        elif self._clock() - self._heard > self.silence_s:
            raise HostGoneError
        return any(other in ready for other in others)
