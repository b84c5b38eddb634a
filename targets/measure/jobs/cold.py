"""Job `cold`: cold starts of one bundle, each in a process of its own."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgeseg.core.bundle import open_bundle
from targets.measure.cold import STARTS, measure_cold
from targets.measure.jobs.base import plan_here
from targets.measure.loop import Clock, Progress


def cold(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Give the fields of `Cold`. The processes it starts take their times themselves."""
    folder, file = Path(request["bundle"]).resolve(), Path(request["files"][0]).resolve()
    on_progress("cold start", 0.0)
    found = measure_cold(str(folder), str(file), plan_here(request, open_bundle(folder)), STARTS[request["quick"]], on_progress)
    return asdict(replace(found, quick=request["quick"]))
