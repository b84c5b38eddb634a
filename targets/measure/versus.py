"""Two bundles, or two ways to run one, against each other; and before that the first against itself, to see what the machine is worth.

Blocks of frames in the order ABBA ABBA ..., so that what slows the machine slows both. The null test A/A goes through the same machinery:
two sessions of A. Where that does not come out as 1, the machine is too restless for a verdict. Nothing measured is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, NamedTuple

import numpy as np

from edgeseg.core.stats import ABOVE_0, nearest_rank
from targets.boards.base import MeasuredOn
from targets.machine import Machine
from targets.measure.loop import Clock, Progress, StepTimes, bootstrap_ratio
from targets.measure.result import Limits, LoadFacts
from targets.runtimes.options import RuntimeOptions

SETTLE_FRAMES: Final = 2
SETTLE_NS: Final = 5_000_000
"""A block begins with frames that are not counted, at least as many and as long: threads of the session before it spin for a while
(github.com/microsoft/onnxruntime issue 17011)."""
LEAST_FRAMES: Final = 4

ONE: Final = 1.01
MOST_REACH: Final = 1.05
"""Nothing is called no difference where an interval, of A/A or of A/B, reaches farther from 1: the machine is too restless to see one."""

RESTLESS: Final = "restless"
FASTER: Final = "faster"
SLOWER: Final = "slower"
NO_DIFFERENCE: Final = "no difference"


@dataclass(frozen=True, kw_only=True)
class PairedRatio:
    """Time of the first over time of the second, block by block: above 1, the second is faster."""

    ratio: Annotated[float, ABOVE_0]
    """Median over the pairs."""
    low: Annotated[float, ABOVE_0]
    high: Annotated[float, ABOVE_0]
    """95 % percentile bootstrap over the pairs of blocks (Efron 1979)."""

    @property
    def is_one(self) -> bool:
        """It holds 1, or lies within 1 % of it: two sessions of one bundle lie in memory twice, and have been seen 0.5 % apart."""
        return self.low <= 1 <= self.high or (self.low >= 1 / ONE and self.high <= ONE)

    @property
    def reach(self) -> float:
        """How far from 1 it reaches, as a factor of at least 1."""
        return max(self.high, 1 / self.low, 1.0)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two."""

    bundle: str
    bundle_sha256: str
    format: str
    precision: str
    runtime: str
    options: Annotated[Mapping[str, Any], RuntimeOptions]
    settings: Mapping[str, str]
    """What the session pinned."""
    versions: Mapping[str, str]
    inference_p50_ms: float
    """Median of the blocks' medians, while compared with the other."""
    end_to_end_p50_ms: float


@dataclass(frozen=True, kw_only=True)
class Versus:
    """B against A on one machine."""

    a: Side
    b: Side
    null_inference: PairedRatio
    """A over A."""
    null_end_to_end: PairedRatio
    inference: PairedRatio
    """A over B, network alone; the verdict is about this."""
    end_to_end: PairedRatio
    """A over B, file to class map at frame size."""
    pairs: int
    frames_per_block: int
    cpus: tuple[int, ...] | None
    """Processors that both were held to; `None` = this system cannot."""
    steady: bool
    """False: a warm-up ended at its bound with medians still moving by more than 3 %."""
    load: Annotated[Mapping[str, float | None], LoadFacts]
    quick: bool
    machine: Machine
    measured_on: MeasuredOn
    device: str = "local"

    @property
    def verdict(self) -> str:
        """Give `faster`, `slower` (B than A), `no difference` beyond that of A from itself, or `restless`.

        `restless`: A differs from itself, or no difference was seen and the intervals are too wide to say that there is none.
        """
        if not self.null_inference.is_one:
            return RESTLESS
        reach = self.null_inference.reach
        if self.inference.low > reach:
            return FASTER
        if self.inference.high < 1 / reach:
            return SLOWER
        return NO_DIFFERENCE if max(reach, self.inference.reach) <= MOST_REACH else RESTLESS

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {**asdict(self), "machine": self.machine.to_json(), "measured_on": self.measured_on.words,
                "is_target": self.measured_on.is_target, "verdict": self.verdict}


class BlockTimes(NamedTuple):
    """Median nanoseconds of a frame in one block."""

    inference: float
    end_to_end: float


@dataclass(frozen=True)
class Pairs:
    """Blocks of two contenders, pair by pair."""

    first: list[BlockTimes]
    second: list[BlockTimes]
    frames_per_block: int

    def ratio(self, part: str) -> PairedRatio:
        """First over second of one part of `BlockTimes`."""
        ratio, low, high = bootstrap_ratio([getattr(block, part) for block in self.first], [getattr(block, part) for block in self.second])
        return PairedRatio(ratio=ratio, low=low, high=high)


Step = Callable[[StepTimes], None]


def run_pairs(first: Step, second: Step, limits: Limits, clock: Clock, on_progress: Progress, stage: str) -> Pairs:
    """Take blocks of both in the order ABBA ABBA ...; both are expected to be warm."""
    slower = max(_block(step, 3, clock).end_to_end for step in (first, second))
    length = max(LEAST_FRAMES, math.ceil(limits.block_seconds * 1e9 / max(slower, 1.0)))
    blocks: tuple[list[BlockTimes], list[BlockTimes]] = ([], [])
    for pair in range(limits.min_pairs):
        for which in ((0, 1) if pair % 2 == 0 else (1, 0)):
            blocks[which].append(_block((first, second)[which], length, clock))
        on_progress(stage, (pair + 1) / limits.min_pairs)
    return Pairs(*blocks, length)


def _block(step: Step, length: int, clock: Clock) -> BlockTimes:
    start, settling, settled = clock(), StepTimes(), 0
    while settled < SETTLE_FRAMES or clock() - start < SETTLE_NS:
        step(settling)
        settled += 1
    times = StepTimes()
    for _ in range(length):
        step(times)
    inference_N = np.subtract(times.end_to_end, np.sum([times.decode, times.resize, times.resize_back], axis=0))
    return BlockTimes(nearest_rank(inference_N.tolist(), 50), nearest_rank(times.end_to_end, 50))
