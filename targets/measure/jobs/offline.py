"""Job `offline`: as many frames at once as the settings have streams, as fast as it goes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import open_bundle
from targets.measure.jobs.base import limits_of, plan_here
from targets.measure.loop import Clock, Progress, Stream, warm_up
from targets.measure.offline import measure_offline
from targets.runtimes import open_session

RAMP_S: Final = {False: 3.0, True: 0.3}
"""All streams run this long before it counts, by `quick`."""


def offline(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Give the fields of `Offline`."""
    bundle, limits = open_bundle(Path(request["bundle"])), limits_of(request)
    runtime, options = plan_here(request, bundle)
    files = [Path(file) for file in request["files"]]
    on_progress("open", 0.0)
    session = open_session(bundle, runtime, options)
    starts = [number * len(files) // options.streams for number in range(options.streams)]
    streams = [Stream(session, bundle.manifest.contract, files[start:] + files[:start], clock) for start in starts]
    warm = warm_up(streams[0].step, limits, clock, on_progress)
    ramp = replace(limits, min_frames=1, min_seconds=RAMP_S[request["quick"]])
    measure_offline(streams, ramp, clock, lambda _stage, _done: None, num_threads=options.num_threads)
    found = measure_offline(streams, limits, clock, on_progress, num_threads=options.num_threads)
    settings = dict(session.settings)
    session.close()
    return asdict(replace(found, steady=warm.steady, quick=request["quick"], settings=settings))
