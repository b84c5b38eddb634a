"""Job `compare`: the inference of two bundles in interleaved blocks of one process."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.core.bundle import open_bundle
from targets.boards import find_target, measured_on
from targets.machine import describe_machine
from targets.measure.jobs.base import model_frames, plan_here
from targets.measure.loop import BlockMedians, Clock, Progress, Stream, bootstrap_ratio, cycle, interleave, warm_up
from targets.measure.result import FULL, QUICK, SpeedRatio
from targets.runtimes import Session, open_session


def compare(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Give the fields of `SpeedRatio`."""
    target, limits = find_target(request["target"]), QUICK if request["quick"] else FULL
    files = [Path(file) for file in request["files"]]
    calls, sessions = [], []
    for side in ("a", "b"):
        on_progress("open", 0.0)
        bundle = open_bundle(Path(request[side]["bundle"]))
        session: Session = open_session(bundle, *plan_here(request[side], bundle))
        stream = Stream(session, bundle.manifest.contract, files, clock)
        warm_up(stream.step, limits, clock, on_progress)
        calls.append(cycle(session, model_frames(bundle, files)))
        sessions.append(session)
    medians: BlockMedians = interleave(calls[0], calls[1], limits, clock, on_progress)
    for session in sessions:
        session.close()
    ratio, low, high = bootstrap_ratio(medians.a, medians.b)
    return asdict(SpeedRatio(
        ratio=ratio, low=low, high=high, blocks=len(medians.a), frames_per_block=medians.frames_per_block,
        a_p50_ms=float(np.median(medians.a)) / 1e6, b_p50_ms=float(np.median(medians.b)) / 1e6, quick=request["quick"],
        measured_on=measured_on(target, describe_machine()),
    ))
