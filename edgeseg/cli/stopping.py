"""Ctrl-C, or SIGTERM from a service manager, as a wish: the first asks to stop, the second acts at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_ASKING: Final = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Whether somebody asked to stop; call it to know."""

    number = 0
    """The signal that asked, 0 = none."""

    def __call__(self) -> bool:
        """Tell."""
        return self.number != 0


@contextmanager
def asked_to_stop() -> Iterator[Stopping]:
    """Take the signals meanwhile; what handled them before handles the second one."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.getsignal(number) for number in _ASKING}

    def note(number: int, frame: FrameType | None) -> None:
        stopping.number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in _ASKING:
        signal.signal(number, note)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
