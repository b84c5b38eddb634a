"""A first look at a device: how it runs a bundle by itself, and what it is. For this machine too: nothing is assumed to be alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from edgeseg.core.bundle import Bundle
from targets.boards.base import MeasuredOn, Plan, Wishes
from targets.devices import Device, Job
from targets.machine import Machine
from targets.measure.loop import Progress
from targets.runtimes import RuntimeOptions
from targets.tuning.knobs import Board

LOOK_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen."""

    how: Plan
    """The target's own settings there: the default that has to be beaten."""
    machine: Machine
    measured_on: MeasuredOn
    version: str
    """Of the runtime; empty = not available."""
    board: Board


def look_at(device: Device, bundle: Bundle, *, target: str, how: Plan | Wishes, on_progress: Progress) -> Look:
    """Ask a device how it runs a bundle for a target.

    Raises:
        TargetError: the target does not run it.
        DeviceError: the device cannot be used.
    """
    side = {"wishes": how._asdict()} if isinstance(how, Wishes) else {"runtime": how.runtime, "options": asdict(how.options)}
    place = bundle_place(bundle)
    raw = device.run(Job({"job": "tune-look", "bundle": place, "target": target, **side}, {place: bundle.folder}),
                     what=f"looking at {device.name}", timeout_s=LOOK_TIMEOUT_S, on_progress=on_progress)
    machine = Machine(**raw["machine"])
    return Look(
        how=Plan(raw["runtime"], RuntimeOptions(**raw["options"])), machine=machine, measured_on=MeasuredOn(**raw["measured_on"]),
        version=raw["version"] or "", board=Board(cores=machine.cores, smt=raw["smt"], arithmetic=raw["arithmetic"]),
    )


def bundle_place(bundle: Bundle) -> str:
    """Where a bundle lies in a job's folder."""
    return f"bundles/{bundle.folder.resolve().name}"
