"""How long a host waits for a board."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from targets.devices.line import BEAT_S, SILENCE_S


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long to wait for what, in seconds."""

    connect_s: float = 15.0
    start_s: float = 60.0
    """Until Python runs there: it may have to be read from a slow card."""
    beat_s: float = BEAT_S
    """Both ends say this often that they are alive."""
    silence_s: float = SILENCE_S
    """Without a byte for so long, a connection is lost."""
    stall_s: float = 1800.0
    """Without progress for so long, a worker hangs. An engine that is built on the board tells nothing while it is."""
    again_s: tuple[float, ...] = (1.0, 3.0, 10.0)
    """Pauses before a connection that was lost while files were copied is made again."""


T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Give what `work` gives, or end it after so long.

    `asyncio.wait_for` before Python 3.12 now and then loses a cancellation that comes just as the work is done: a Ctrl-C is then without
    effect, and a task that was cancelled goes on for ever.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else asks how it ended
        raise
    if task.cancelled():
        raise TimeoutError
    return task.result()
