"""`edgeseg devices check`: what a device is, as far as it can be reached, and what keeps it from being used."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgeseg.core.errors import DeviceError, EdgesegError
from targets.boards import Run
from targets.devices import Device, Job, Progress
from targets.devices.address import parse_ssh
from targets.devices.inventory import Entry
from targets.devices.probe import BoardFacts, ask, refuse_what_cannot
from targets.devices.received import received
from targets.machine import Machine
from targets.telemetry.describe import SensorStatus

_DESCRIBE_S: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """A machine that has edgeseg, as it describes itself (`targets.measure.jobs.describe`)."""

    edgeseg: str
    code_sha256: str
    """See `targets.own_code`."""
    machine: Machine
    runtimes: Mapping[str, str]
    """Those that are installed there, with their versions."""
    resizers: Mapping[str, str]
    """What brings frames to model size there (`Contract.resizer`), with its version."""
    ways: frozenset[tuple[str, str, str]]
    """Format, runtime and provider of each way to execute a bundle (`targets.boards.Run`) that can be gone there."""
    targets: tuple[str, ...]
    """Which of edgeseg's targets it is, besides `host`."""
    sensors: tuple[SensorStatus, ...]
    disk_free_bytes: int
    """In the home folder there."""

    def has(self, run: Run) -> bool:
        """Tell whether a way can be gone there."""
        return (run.format, run.runtime, run.provider) in self.ways

    @property
    def key(self) -> dict[str, Any]:
        """What makes a measurement there another one: the machine, the code that measures and the versions of what is installed."""
        machine = {name: getattr(self.machine, name) for name in ("cpu", "board", "cores", "os", "kernel", "python")}
        return {"edgeseg": self.edgeseg, "code": self.code_sha256, "machine": machine, "runtimes": dict(self.runtimes),
                "resizers": dict(self.resizers)}

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        sensors = [status.to_json() for status in self.sensors]
        return {**asdict(self), "machine": self.machine.to_json(), "ways": sorted(self.ways), "sensors": sensors}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found, as far as it went."""

    entry: Entry
    facts: BoardFacts | None = None
    """The board's own Python; `None` = not reached, or no board of its own."""
    site: Site | None = None
    """`None` = edgeseg cannot be used there."""
    problem: EdgesegError | None = None
    """Why not, and what to type."""


def describe(device: Device, on_progress: Progress) -> Site:
    """Let a device describe itself; an emulated one may have to be built first, which `on_progress` is told of.

    Raises:
        DeviceError: it cannot be reached, or edgeseg is not there, or not this one.
        BusyError: a job runs there.
    """
    job = Job({"job": "describe"})
    raw = device.run(job, what=f"looking at {device.name}", timeout_s=_DESCRIBE_S, on_progress=on_progress)
    return received(Site, raw, device.name)


def check(entry: Entry, on_progress: Progress) -> Checked:
    """Look at a device: first its Python over SSH, then edgeseg there. What fails is in the result, not raised.

    Raises:
        ConfigError, MissingExtraError: from `Entry.open`.
    """
    device = entry.open()
    facts: BoardFacts | None = None
    try:
        if entry.is_ssh:
            facts = asyncio.run(_ask(entry))
        try:
            return Checked(entry=entry, facts=facts, site=describe(device, on_progress))
        except DeviceError:
            if facts is not None:  # says more than that edgeseg is not there
                refuse_what_cannot(facts, _python(entry), name=device.name)
            raise
    except EdgesegError as problem:
        return Checked(entry=entry, facts=facts, problem=problem)


async def _ask(entry: Entry) -> BoardFacts:
    from targets.devices.connect import connected

    name = entry.name or entry.address
    async with connected(parse_ssh(entry.address), entry.options, name=name) as connection:
        return await ask(connection, _python(entry), name=name)


def _python(entry: Entry) -> str:
    return entry.python or "python3"
