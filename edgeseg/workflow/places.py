"""Where a bundle is verified and measured: on this machine, or on a device. A device that cannot be used is an error, not this machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError, DeviceError
from edgeseg.core.manifest import Manifest
from edgeseg.workflow.ui import Ui
from targets.boards import Plan, find_target, plan
from targets.devices import Device, LocalDevice, Progress
from targets.devices.check import Site, describe
from targets.devices.emulated import emulated_target, refuse_times
from targets.devices.inventory import Entry, load_inventory
from targets.devices.remote import answers_on
from targets.devices.setup import MORE_EXTRAS, extra_for
from targets.machine import Machine, describe_machine
from targets.runtimes import RUNTIMES, Session, open_session


@dataclass(frozen=True)
class Place:
    """One machine that runs bundles."""

    device: Device
    site: Site | None = None
    """What another machine said it is; `None` = this one."""
    target: str = "host"
    """The target whose settings are used there unless another is asked for."""
    python: str = ""
    """Python there, where the inventory names one: two entries of one address may have two."""

    @property
    def is_here(self) -> bool:
        """This machine."""
        return self.site is None

    @property
    def address(self) -> str:
        """`local`, `ssh://user@host`."""
        return self.device.address

    @property
    def label(self) -> str:
        """For a person: name and address of a device, `this machine` for this one."""
        if self.is_here:
            return "this machine"
        return self.address if self.device.name == self.address else f"{self.device.name} ({self.address})"

    @property
    def machine(self) -> Machine:
        """What it is."""
        return describe_machine() if self.site is None else self.site.machine

    @property
    def key(self) -> dict[str, Any]:
        """What makes a result from another machine another one; empty = this machine, whose steps have keys of their own."""
        return {} if self.site is None else {"device": self.address, "python": self.python, "site": self.site.key}

    def version(self, runtime: str) -> str | None:
        """Version of a runtime there; `None` where it is not."""
        return RUNTIMES[runtime].version() if self.site is None else self.site.runtimes.get(runtime)

    def plan(self, target: str, manifest: Manifest, *, num_threads: int = 0, precision_hint: str = "") -> Plan:
        """Decide how a bundle is executed there; see `targets.boards.plan`."""
        here = None if self.site is None else self.site.has
        return plan(target, manifest.format, manifest.precision, num_threads=num_threads, precision_hint=precision_hint,
                    machine=self.machine, here=here)


    @contextmanager
    def session(self, bundle: Bundle, frames: Sequence[Path], *, target: str, how: Plan, ui: Ui) -> Iterator[Session]:
        """Yield what answers image files and then the bundle's golden frames, in this order: a runtime here, or what a device answered.

        Raises:
            EdgesegError: whatever opening the bundle raises, here or there; `DeviceError` where the device cannot be used.
        """
        if self.is_here:
            session = open_session(bundle, how.runtime, how.options)
            try:
                yield session
            finally:
                session.close()
            return

        def show(stage: str, done: float) -> None:
            ui.progress(f"{self.device.name}: verifying {bundle.manifest.name}: {stage}", round(100 * min(done, 1.0)), 100)

        with answers_on(self.device, bundle, frames, target=target, how=how, on_progress=show) as answers:
            yield answers


HERE: Final = Place(LocalDevice())


def find_place(name_or_address: str, *, timed: bool = False, ui: Ui) -> Place:
    """Give the device of this name or address, asked what it is; `local` or nothing = this machine. `timed` = times will be taken there.

    Raises:
        ConfigError: there is no such device.
        TargetError: times are wanted of an emulated board.
        DeviceError, BusyError: it cannot be used.
    """
    if name_or_address in ("", "local"):
        return HERE
    entry = load_inventory().find(name_or_address)
    if timed:
        refuse_times(entry.address, "measuring")
    return _reach(entry, ui)


def open_places(devices: Mapping[str, str], formats: Collection[str], ui: Ui, *, resizer: str = "pillow") -> dict[str, Place]:
    """Give the place of each target that `[devices]` names one for; each device is asked once what it is.

    Args:
        devices: target -> name or address of a device.
        formats: those that are made; a device that runs none of them is refused.
        ui: told where each target is.
        resizer: what brings their frames to model size (`Contract.resizer`); a device that does not have it is refused.

    Raises:
        ConfigError: there is no such device, or it is known to be another target.
        DeviceError, BusyError: it cannot be used, or has no runtime for any of `formats`, or not the resizer.
    """
    inventory = load_inventory() if devices else None
    reached: dict[Entry, Place] = {}
    places: dict[str, Place] = {}
    for target, device in devices.items():
        assert inventory is not None
        entry = inventory.find(device)
        known = _target_of(entry)
        if known and known != target:
            raise ConfigError(f"[devices] {target} = '{device}': {entry.label} is a {known}; give a device that is a {target}")
        if entry not in reached:
            reached[entry] = _reach(entry, ui)
        place = places[target] = reached[entry]
        _refuse_what_cannot(entry, place, target, formats, resizer)
        ui.say(f"{target}: verified and measured on {place.label}, {place.machine.cpu}")
    return places


def _reach(entry: Entry, ui: Ui) -> Place:
    device = entry.open()
    with looking(ui, device.name) as on_progress:
        return Place(device, describe(device, on_progress), _target_of(entry) or "host", entry.python)


@contextmanager
def looking(ui: Ui, name: str) -> Iterator[Progress]:
    """Show that a device is asked what it is; what comes before, building an emulated one, is said line by line."""
    label, said = f"looking at {name}", {"describe"}

    def show(stage: str, done: float) -> None:
        if stage not in said:
            said.add(stage)
            ui.say(f"{name}: {stage}")

    ui.progress(label, 0, 100)
    yield show
    ui.progress(label, 100, 100)


def _refuse_what_cannot(entry: Entry, place: Place, target: str, formats: Collection[str], resizer: str) -> None:
    """Refuse a device that could verify no bundle of its target."""
    site, runs = place.site, [run for run in find_target(target).runs if run.format in formats]
    if site is None or not runs:
        return
    of_resizer = [resizer] if resizer in MORE_EXTRAS else []
    if not any(site.has(run) for run in runs):
        has = ", ".join(name for name in site.runtimes if name != "null") or "no runtime"
        needs = " or ".join(f"{run.format} in {run.runtime}" for run in runs)
        why, extras, more = f"has {has} and cannot run what is made for {target} ({needs})", [extra_for(runs[0]), *of_resizer], ""
    elif resizer not in site.resizers:
        why, extras = f"cannot bring frames to model size by {resizer} (data.resizer), which is not installed there", of_resizer
        more = " (and --extra for each other runtime it is to keep)"
    else:
        return
    if entry.is_ssh and not entry.python:
        then = f"type: edgeseg devices setup {place.device.name} {' '.join(f'--extra {extra}' for extra in extras)}{more}"
    else:
        then = f"install edgeseg[{','.join(extras)}] with {entry.python} there" if entry.python else "give a device that has one"
    raise DeviceError(f"{place.label} {why}; {then}")


def _target_of(entry: Entry) -> str:
    """What the inventory says it is, or its address; empty where neither does."""
    return entry.target or emulated_target(entry.address)
