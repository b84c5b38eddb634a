"""Job `open`: one session opened and closed, so that what cannot be had is said before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeseg.core.bundle import open_bundle
from targets.measure.jobs.base import plan_here
from targets.measure.loop import Clock, Progress
from targets.runtimes import open_session


def opening(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Give nothing, or raise what opening raises."""
    on_progress("open", 0.0)
    bundle = open_bundle(Path(request["bundle"]))
    open_session(bundle, *plan_here(request, bundle)).close()
    return {}
