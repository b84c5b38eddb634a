"""A process that measures: how it begins, and that it ends with the one that started it."""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

START: Final = "start"
"""The stage it tells as soon as it has read its request: what fails from then on is no edgeseg that does not start."""
_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere the pipe's end does)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before we asked
        os._exit(1)
