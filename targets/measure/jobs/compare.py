"""Job `compare`: the inference of two bundles in interleaved blocks of one process, as in `versus` but without its test of A against A."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeseg.core.bundle import open_bundle
from edgeseg.core.stats import nearest_rank
from targets.boards import find_target, measured_on
from targets.machine import describe_machine
from targets.measure.jobs.base import limits_of, plan_here
from targets.measure.loop import Clock, Progress, Stream, warm_up
from targets.measure.pinning import pin
from targets.measure.result import SpeedRatio
from targets.measure.versus import run_pairs
from targets.runtimes import open_session


def compare(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Give the fields of `SpeedRatio`."""
    target, limits, files = find_target(request["target"]), limits_of(request), [Path(file) for file in request["files"]]
    bundles = [open_bundle(Path(request[side]["bundle"])) for side in ("a", "b")]
    plans = [plan_here(request[side], bundle) for side, bundle in zip(("a", "b"), bundles, strict=True)]
    pin(max(how.options.num_threads for how in plans))
    sessions, streams = [], []
    for bundle, how in zip(bundles, plans, strict=True):
        on_progress("open", 0.0)
        sessions.append(open_session(bundle, *how))
        streams.append(Stream(sessions[-1], bundle.manifest.contract, files, clock))
        warm_up(streams[-1].step, limits, clock, on_progress)
    pairs = run_pairs(streams[0].step, streams[1].step, limits, clock, on_progress, "compare")
    for session in sessions:
        session.close()
    found = pairs.ratio("inference")
    return asdict(SpeedRatio(
        ratio=found.ratio, low=found.low, high=found.high, blocks=len(pairs.first), frames_per_block=pairs.frames_per_block,
        a_p50_ms=nearest_rank([block.inference for block in pairs.first], 50) / 1e6,
        b_p50_ms=nearest_rank([block.inference for block in pairs.second], 50) / 1e6, quick=request["quick"],
        measured_on=measured_on(target, describe_machine()),
    ))
