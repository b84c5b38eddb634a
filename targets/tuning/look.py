"""A first look at a device: what it is, and what decides which settings are worth trying there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from targets.boards.base import MeasuredOn, Plan
from targets.devices import Device, Job
from targets.devices.received import received
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


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """The result of job `tune-look`."""

    machine: Machine
    smt: bool
    version: str | None
    arithmetic: str
    measured_on: MeasuredOn


def look_at(device: Device, *, target: str, how: Plan, on_progress: Progress) -> Look:
    """Ask a device what it is and has.

    Raises:
        DeviceError: the device cannot be used.
    """
    request = {"job": "tune-look", "target": target, "runtime": how.runtime, "options": asdict(how.options)}
    raw = device.run(Job(request), what=f"looking at {device.name}", timeout_s=LOOK_TIMEOUT_S, on_progress=on_progress)
    seen = received(_Seen, raw, device.name)
    return Look(
        machine=seen.machine, measured_on=seen.measured_on, version=seen.version or "",
        board=Board(cores=seen.machine.cores, smt=seen.smt, arithmetic=seen.arithmetic),
    )
