"""Waiting for what another thread or process does: on a busy machine that may take many seconds, on an idle one it costs none."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 300.0


def comes_true(condition: Callable[[], bool], *, every_s: float = 0.01, patience_s: float = PATIENCE_S) -> bool:
    """Ask until it is so; False where it is not so in `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def runs(pid: int) -> bool:
    """Whether the process is there; one that only waits for its parent to ask how it ended is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def has_ended(pid: int) -> bool:
    """Wait until a process has: one that was killed is not gone at once."""
    return comes_true(lambda: not runs(pid))
