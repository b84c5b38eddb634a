"""How long a host waits for a board."""

from __future__ import annotations

from dataclasses import dataclass

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
