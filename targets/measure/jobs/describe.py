"""Job `describe`: what the machine is, what it can run, and what it can tell about itself."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeseg import __version__
from targets.boards import TARGETS, is_here
from targets.machine import describe_machine
from targets.measure.jobs.base import resizers
from targets.measure.loop import Clock, Progress
from targets.own_code import code_sha256
from targets.runtimes import RUNTIMES
from targets.telemetry.describe import describe_sensors
from targets.telemetry.sensors import SENSORS


def describe(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Give the fields of `targets.devices.check.Site`."""
    on_progress("describe", 0.0)
    machine = describe_machine()
    ways = {(run.format, run.runtime, run.provider): run for target in TARGETS.values() for run in target.runs}
    return {
        "edgeseg": __version__,
        "code_sha256": code_sha256(),
        "machine": asdict(machine),
        "runtimes": {name: version for name, runtime in RUNTIMES.items() if (version := runtime.version()) is not None},
        "resizers": resizers(),
        "ways": [list(key) for key, run in ways.items() if is_here(run)],
        "targets": [name for name, target in TARGETS.items() if name != "host" and target.matches(machine)],
        "sensors": [status.to_json() for status in describe_sensors(list(SENSORS))],
        "disk_free_bytes": shutil.disk_usage(Path.home()).free,
    }
