"""A fixed rate, as a camera gives it: is it held, how many frames miss their deadline, and how many in a row?

Frame i comes at i / fps and must be answered before frame i + 1 comes. A frame whose successor has come before it could be begun is
lost: a camera would have written over it. Lost and late frames are both missed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

from edgeseg.core.stats import ABOVE_0, LatencyStats, latency_stats
from targets.measure.loop import Clock, Progress, StepTimes

Sleep = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Paced:
    """What a fixed rate came to."""

    fps: Annotated[float, ABOVE_0]
    frames: int
    seconds: float
    late: int
    """Answered after the next frame came."""
    lost: int
    """Never begun: the next frame came first."""
    longest_run: int
    """Missed frames in a row, at most."""
    latency: LatencyStats | None
    """From the moment a frame comes to its class map at frame size, of the frames that were answered; `None` = none was. Its `fps` is
    answered frames over the time all of them took to come."""
    steady: bool = True
    """False: the warm-up ended at its bound with medians still moving by more than 3 %."""
    quick: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    """As the session gave them back."""

    @property
    def missed(self) -> int:
        """Late and lost."""
        return self.late + self.lost

    @property
    def held(self) -> bool:
        """No frame was missed."""
        return self.missed == 0

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {**asdict(self), "missed": self.missed, "held": self.held}


def measure_paced(
    step: Callable[[StepTimes], None], fps: float, num_frames: int, clock: Clock, sleep: Sleep, on_progress: Progress,
) -> Paced:
    """Let `num_frames` frames come at `fps`; `step` answers one. Nothing is begun before its time."""
    period_ns = 1e9 / fps
    times, answered = StepTimes(), array("q")
    late = lost = run = longest = 0
    start = clock() + round(period_ns)
    for number in range(num_frames):
        comes, deadline = start + round(number * period_ns), start + round((number + 1) * period_ns)
        now = clock()
        if now >= deadline:
            lost += 1
            run += 1
        else:
            if now < comes:
                sleep((comes - now) / 1e9)
            step(times)
            end = clock()
            answered.append(end - comes)
            late += end > deadline
            run = run + 1 if end > deadline else 0
        longest = max(longest, run)
        if number % max(1, round(fps / 4)) == 0:
            on_progress("measure", (number + 1) / num_frames)
    seconds = num_frames / fps
    return Paced(fps=fps, frames=num_frames, seconds=seconds, late=late, lost=lost, longest_run=longest,
                 latency=replace(latency_stats(answered), fps=len(answered) / seconds) if answered else None)
