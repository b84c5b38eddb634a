"""What a worker can do, one job a file. To add one: a file with a `Work`, and a line here."""

from __future__ import annotations

from typing import Final

from targets.measure.jobs.answer import answer
from targets.measure.jobs.base import Work
from targets.measure.jobs.bench import bench
from targets.measure.jobs.cold import cold
from targets.measure.jobs.compare import compare
from targets.measure.jobs.describe import describe
from targets.measure.jobs.offline import offline
from targets.measure.jobs.opening import opening
from targets.measure.jobs.paced import paced
from targets.measure.jobs.sweep import sweep
from targets.measure.jobs.tune import look_around, race_settings, try_settings
from targets.measure.jobs.versus import versus

__all__ = ["JOBS", "Work"]

JOBS: Final[dict[str, Work]] = {
    "answer": answer,
    "bench": bench,
    "cold": cold,
    "compare": compare,
    "describe": describe,
    "offline": offline,
    "open": opening,
    "paced": paced,
    "sweep": sweep,
    "tune-look": look_around,
    "tune-try": try_settings,
    "tune-race": race_settings,
    "versus": versus,
}
