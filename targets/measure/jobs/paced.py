"""Job `paced`: frames come at a fixed rate."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgeseg.core.bundle import open_bundle
from targets.measure.jobs.base import limits_of, plan_here
from targets.measure.loop import Clock, Progress, Stream, warm_up
from targets.measure.paced import measure_paced
from targets.runtimes import open_session


def paced(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Give the fields of `Paced`."""
    bundle, limits, fps = open_bundle(Path(request["bundle"])), limits_of(request), float(request["fps"])
    on_progress("open", 0.0)
    session = open_session(bundle, *plan_here(request, bundle))
    stream = Stream(session, bundle.manifest.contract, [Path(file) for file in request["files"]], clock)
    warm = warm_up(stream.step, limits, clock, on_progress)
    num_frames = max(2, math.ceil(fps * limits.min_seconds))
    found = measure_paced(stream.step, fps, num_frames, clock, time.sleep, on_progress)
    settings = dict(session.settings)
    session.close()
    return asdict(replace(found, steady=warm.steady, quick=request["quick"], settings=settings))
