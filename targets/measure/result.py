"""What a measurement says. Times carry their step and unit; a quick measurement is stamped so wherever it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, TypedDict

from edgeseg.core.stats import ABOVE_0, LatencyStats
from targets.boards.base import MeasuredOn
from targets.executed.base import ExecutedFacts
from targets.machine import Machine
from targets.measure.drift import Drift
from targets.telemetry.energy import FrameEnergy
from targets.telemetry.trace import Trace
from targets.telemetry.verdict import ThrottlingVerdict

MEASURING: Final = 2
"""Part of the key of every step that keeps what is shown: benches, ratios, tuned settings. Raise it when the code that measures changes
what its numbers or verdicts mean, or a field comes or goes: what was kept before is then measured again. What cuts were decided by (the
latency that pruning starts from, the cost table) has versions of its own, for days of training may stand on it.
"""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long to warm up and to measure; a measurement ends when both minima are reached."""

    min_frames: int
    min_seconds: float
    warmup_window: int
    """Frames of one window; warm-up ends when the medians of two windows in a row differ by at most 3 %."""
    warmup_max_frames: int
    warmup_max_seconds: float
    min_pairs: int
    """Pairs of blocks of an interleaved comparison."""
    block_seconds: float
    """Least length of one block of an interleaved comparison."""


FULL: Final = Limits(
    min_frames=1024, min_seconds=60, warmup_window=16, warmup_max_frames=1024, warmup_max_seconds=30, min_pairs=60, block_seconds=0.1,
)
QUICK: Final = Limits(
    min_frames=50, min_seconds=1, warmup_window=8, warmup_max_frames=96, warmup_max_seconds=4, min_pairs=24, block_seconds=0.04,
)


class LoadFacts(TypedDict):
    """See `targets.measure.surroundings.load_facts`."""

    load_average_before: float | None
    load_average_after: float | None
    others_before: float | None
    others_during: float | None
    stolen_during: float | None


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How the session came to its steady speed."""

    frames: int
    seconds: float
    steady: bool
    """False: the time or frame bound ended it; medians still moved by more than 3 %."""


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """One bundle measured on one machine, in a process of its own."""

    bundle: str
    bundle_sha256: str
    format: str
    precision: str
    target: str
    runtime: str
    provider: str
    num_threads: int
    quick: bool
    inference: LatencyStats
    """Frame at model size in, class map (or objects) at model size out: one runtime call."""
    decode: LatencyStats
    """File to frame."""
    resize: LatencyStats
    """Frame to model size."""
    resize_back: LatencyStats
    """Class map to frame size (objects: boxes to frame size, masks pasted)."""
    end_to_end: LatencyStats
    """File to class map at frame size; holds one inference, or one a tile."""
    calls_per_frame: float
    """Runtime calls a frame: 1, or the number of tiles."""
    measured_s: float
    warmup_frames: int
    warmup_s: float
    steady: bool
    """False: the warm-up ended at its bound with medians still moving by more than 3 %."""
    cold_open_ms: float
    """First `open` of the process: import of the SDK (and of OpenCV, for a bundle that resizes by it) and load of the model."""
    load_ms: float
    """A second `open`, the SDK being there: load of the model alone."""
    first_inference_ms: float
    import_rss_bytes: int | None
    """Resident memory before the SDK was imported: Python, numpy, Pillow and edgeseg."""
    peak_rss_bytes: int | None
    """Highest resident memory of the process up to the end of the measured loop."""
    size_bytes: int
    """Model files on disk, golden frames not counted."""
    settings: Mapping[str, str]
    versions: Mapping[str, str]
    clock_resolution_ns: float
    machine: Machine
    measured_on: MeasuredOn
    device: str = "local"
    """How the machine was reached: `local`, `ssh://user@host`."""
    executed: Annotated[Mapping[str, Any], ExecutedFacts] | None = None
    """What the runtime executes in which precision (`targets.executed.ExecutedPrecision.to_json`); `None` where it shows nothing."""
    as_others: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None
    """`inference` and `end_to_end` -> tool -> its p50, p90, p99 of the same samples (`edgeseg.core.percentiles`). This and what follows is
    not in results of before it was recorded; all of it is JSON values."""
    trace: Annotated[Mapping[str, Any], Trace] | None = None
    """What the sensors saw during the measured loop (`targets.telemetry.trace.Trace.to_json`)."""
    pss_bytes: int | None = None
    """Resident memory of the process after the loop, pages shared with other processes counted by their share."""
    windows: Sequence[tuple[float, float]] = ()
    """[second of the trace, median milliseconds of `end_to_end`] of each piece of the measured loop."""
    throttling: Annotated[Mapping[str, Any], ThrottlingVerdict] | None = None
    """Burst against sustained speed (`targets.telemetry.verdict.ThrottlingVerdict.to_json`)."""
    drift: Annotated[Mapping[str, Any], Drift] | None = None
    """How the windows moved (`targets.measure.drift.Drift.to_json`); `None` = too few of them."""
    energy: Annotated[Mapping[str, Any], FrameEnergy] | None = None
    """`per_frame_j` with the power at rest taken off, and the rest of `targets.telemetry.energy.FrameEnergy`."""
    energy_absent: str = ""
    """Why there is no energy."""
    load: Annotated[Mapping[str, float | None], LoadFacts] | None = None
    """Load average before and after; shares of all processors that other programs took before and during, and the host of a virtual one."""

    def __post_init__(self) -> None:
        """What went on around the loop is known in all its parts or in none (`ValueError`)."""
        if self.trace is not None and (self.throttling is None or self.load is None):
            raise ValueError("what its sensors saw, and not what that means")

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {**asdict(self), "machine": self.machine.to_json(), "measured_on": self.measured_on.words,
                "is_target": self.measured_on.is_target, "settings": dict(self.settings), "versions": dict(self.versions)}


@dataclass(frozen=True, kw_only=True)
class SpeedRatio:
    """How much faster B is than A, from blocks of both in turn, so that what slows the machine slows both."""

    ratio: Annotated[float, ABOVE_0]
    """Median over the pairs of (A's block median / B's block median): above 1, B is faster."""
    low: Annotated[float, ABOVE_0]
    high: Annotated[float, ABOVE_0]
    """95 % percentile bootstrap over the pairs of blocks (Efron 1979)."""
    blocks: int
    """Pairs of blocks."""
    frames_per_block: int
    a_p50_ms: float
    """Median of the blocks' medians, of a frame: of all its tiles, where it has some."""
    b_p50_ms: float
    quick: bool
    measured_on: MeasuredOn

    @property
    def b_is_faster(self) -> bool:
        """The whole interval lies above 1."""
        return self.low > 1

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {**asdict(self), "b_is_faster": self.b_is_faster,
                "measured_on": self.measured_on.words, "is_target": self.measured_on.is_target}
