"""A first look at a device: what it is, and what decides which settings are worth trying there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from targets.boards.base import MeasuredOn, Plan
from targets.devices import Device, Job
from targets.machine import Machine
from targets.measure.loop import Progress
from targets.tuning.knobs import Board

LOOK_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen."""

    machine: Machine
    measured_on: MeasuredOn
    version: str
    """Of the runtime; empty = not available."""
    board: Board


def look_at(device: Device, *, target: str, how: Plan, on_progress: Progress) -> Look:
    """Ask a device what it is and has.

    Raises:
        DeviceError: the device cannot be used.
    """
    request = {"job": "tune-look", "target": target, "runtime": how.runtime, "options": asdict(how.options)}
    raw = device.run(Job(request), what=f"looking at {device.name}", timeout_s=LOOK_TIMEOUT_S, on_progress=on_progress)
    machine = Machine(**raw["machine"])
    return Look(
        machine=machine, measured_on=MeasuredOn(**raw["measured_on"]), version=raw["version"] or "",
        board=Board(cores=machine.cores, smt=raw["smt"], arithmetic=raw["arithmetic"]),
    )
