"""One job at a time on a board: a `flock` that its keeper and its worker hold, so it is free when both are dead, whatever killed them.

Runs on the board: standard library only.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from edgeseg.core.errors import BusyError

PATIENCE_S: Final = 5.0
"""How long a keeper may take to notice that its host is gone and to end its worker."""
_TRY_EVERY_S: Final = 0.1


@contextmanager
def board_lock(
    path: Path, *, holder: str, session: str, patience_s: float = PATIENCE_S, on_wait: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Hold the lock; yield its file descriptor, which a child that is given it holds too.

    Args:
        path: the lock's file; says who holds it.
        holder: in words: whose job it is, what it does, since when.
        session: one for all connections of one job: a job that was cut off ends what is left of it here and goes on.
        patience_s: how long to wait for somebody who is about to go.
        on_wait: called again and again meanwhile.

    Raises:
        BusyError: somebody else has it; says who.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline, told = time.monotonic() + patience_s, False
        while not _locked(descriptor):
            held = _holder(descriptor)
            if held.get("session") == session and isinstance(held.get("pid"), int) and not told:
                told = True
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(held["pid"], signal.SIGTERM)
            if time.monotonic() > deadline:
                raise BusyError(f"in use by {held.get('holder', 'another process')}; wait for it to end")
            on_wait()
            time.sleep(_TRY_EVERY_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"holder": holder, "session": session, "pid": os.getpid()}).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        held = json.loads(os.pread(descriptor, 1 << 16, 0))
    except ValueError:  # just being written
        return {}
    return held if isinstance(held, dict) else {}
