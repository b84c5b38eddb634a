"""`edgeseg devices`: the boards a person has, and what is put on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

from edgeseg.core.errors import ConfigError, TargetError
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.places import looking
from edgeseg.workflow.ui import Ui
from targets.devices.check import Checked, Site, check
from targets.devices.emulated import EmulatedDevice, emulated_target
from targets.devices.inventory import Entry, Inventory, add_entry, load_inventory, remove_entry
from targets.devices.setup import set_up
from targets.machine import NOT_AVAILABLE


def add(name: str, address: str, *, target: str = "", python: str = "", identity: Path | None = None) -> Outcome:
    """Write a board into the inventory; nothing is contacted.

    Raises:
        ConfigError: the name is there already, or a value means nothing.
        InputMissingError: no such identity file.
    """
    key = "" if identity is None else str(identity.expanduser().absolute())
    entry = Entry(name=name, address=address, target=target, python=python, identity=key)
    inventory = add_entry(entry)
    then = f"type: edgeseg devices setup {name}" if entry.is_ssh and not python else f"type: edgeseg devices check {name}"
    return Outcome((f"{entry.label} is in {inventory.path}; {then}",), _facts(entry))


def listed() -> Outcome:
    """Give every board of the inventory; nothing is contacted."""
    inventory = load_inventory()
    devices = [_facts(entry) for entry in inventory.entries.values()]
    return Outcome(tuple(_rows(inventory)), {"file": str(inventory.path), "devices": devices})


def remove(name: str) -> Outcome:
    """Take a board out of the inventory; what is on the board stays there.

    Raises:
        ConfigError: no such board.
    """
    inventory = remove_entry(name)
    return Outcome((f"{name} is out of {inventory.path}; what is on the board stays there",), {"name": name, "file": str(inventory.path)})


def look_at(name_or_address: str, ui: Ui) -> Outcome:
    """Say what a device is, and what keeps it from being used or is not as the inventory says: `Outcome.lost`.

    Raises:
        ConfigError: there is no such device.
    """
    entry = load_inventory().find(name_or_address)
    with looking(ui, entry.label) as on_progress:
        checked = check(entry, on_progress)
    wrong = _another_target(checked)
    facts = {
        **_facts(checked.entry),
        "reached": checked.facts is not None or checked.site is not None,
        "python": None if checked.facts is None else checked.facts.python.version,
        "site": None if checked.site is None else checked.site.to_json(),
        "is_target": None if checked.site is None or not _is_claimed(entry) else wrong is None,
        "problem": None if checked.problem is None else str(checked.problem),
    }
    lost = checked.problem or wrong
    return Outcome(tuple(_check_lines(checked)), facts, passed=lost is None, lost=lost)


def prepare(name_or_address: str, *, extras: Sequence[str], offline: bool, python: str, ui: Ui) -> Outcome:
    """Put this edgeseg on a board; an emulated one is built, or found to be there.

    Raises:
        ConfigError, DeviceError, BusyError, DownloadError, MissingExtraError: see `targets.devices.setup.set_up`.
    """
    entry = load_inventory().find(name_or_address)
    device = entry.open()
    if isinstance(device, EmulatedDevice):
        if extras or offline or python != "python3":
            raise ConfigError(f"{entry.label} is built on this machine from packages of its own; leave out --extra, --offline and --python")
        return _build(entry, device, ui)
    done = set_up(
        entry, extras=extras, offline=offline, python=python,
        on_progress=lambda stage, share: ui.progress(f"{entry.label}: {stage}", round(100 * share), 100),
    )
    from_where = "from its own index" if done.num_wheels is None else f"from {done.num_wheels} wheels collected here"
    lines = (
        f"{entry.label}: edgeseg {done.site.edgeseg} with [{','.join(done.extras)}] ({done.why_extras}) in {done.python}, {from_where}",
        f"edgeseg's wheel: {done.wheel}",
        *_site_lines(done.site, entry),
    )
    facts = {**_facts(entry), "extras": list(done.extras), "python": done.python, "wheel": done.wheel, "num_wheels": done.num_wheels,
             "site": done.site.to_json()}
    return Outcome(lines, facts)


def _build(entry: Entry, device: EmulatedDevice, ui: Ui) -> Outcome:
    environment = device.prepare(ui.say)
    facts = {**_facts(entry), "folder": str(environment.folder), "qemu": str(environment.qemu), **environment.facts}
    return Outcome((f"{entry.label}: {environment.words}", f"emulator: {environment.qemu}"), facts)


def _facts(entry: Entry) -> dict[str, Any]:
    return {key: value or None for key, value in asdict(entry).items()}


def _rows(inventory: Inventory) -> list[str]:
    if not inventory.entries:
        return [f"{inventory.path} names no device; type: edgeseg devices add NAME ssh://USER@HOST"]
    width = max(len(name) for name in inventory.entries)
    return [f"{name:<{width}}  {entry.address}  {entry.target}".rstrip() for name, entry in inventory.entries.items()]


def _another_target(checked: Checked) -> TargetError | None:
    """The error for a board that is another one than the inventory says."""
    entry, site = checked.entry, checked.site
    if site is None or not _is_claimed(entry) or entry.target in site.targets:
        return None
    return TargetError(f"NOT THE TARGET: the inventory says that {entry.label} is a {entry.target}, and it is {_targets(site)}; type: "
                       f"{_added_anew(entry, site)}")


def _is_claimed(entry: Entry) -> bool:
    """Tell whether the inventory says that this is a real board of some target."""
    return entry.target not in ("", "host") and not emulated_target(entry.address)


def _targets(site: Site) -> str:
    return ", ".join(site.targets) or "none of the boards edgeseg knows"


def _settings(site: Site, entry: Entry) -> str:
    """Whose settings are used there, where that is not what the board is."""
    if emulated_target(entry.address):
        return f"; emulates a {emulated_target(entry.address)}: its answers, with its settings, and no times"
    if entry.target not in ("", "host"):
        return ""
    if not entry.is_ssh or not site.targets:
        return "; settings of host are used"
    return f"; settings of host are used; for its own, type: {_added_anew(entry, site)}"


def _added_anew(entry: Entry, site: Site) -> str:
    """The command that puts a board into the inventory as what it is."""
    first = f"edgeseg devices remove {entry.name} && " if entry.name else ""
    given = (("target", site.targets[0] if site.targets else ""), ("python", entry.python), ("identity", entry.identity))
    return (f"{first}edgeseg devices add {entry.name or 'NAME'} {quote(entry.address)}"
            + "".join(f" --{name} {quote(value)}" for name, value in given if value))


def _check_lines(checked: Checked) -> list[str]:
    lines = [checked.entry.label]
    facts = checked.facts
    if facts is not None:
        lines.append(f"  reached: {facts.python.words}{f', {facts.model}' if facts.model else ''}, "
                     f"{facts.disk_free_bytes / 1e9:.1f} GB free in the home folder")
    if checked.site is not None:
        lines += _site_lines(checked.site, checked.entry)
    return lines


def _site_lines(site: Site, entry: Entry) -> list[str]:
    machine = site.machine
    memory = f"{machine.memory_bytes / 2**30:.1f} GiB" if machine.memory_bytes else f"memory {NOT_AVAILABLE}"
    runtimes = ", ".join(f"{name} {version}" for name, version in site.runtimes.items() if name != "null")
    resizers = ", ".join(f"{name} {version}" for name, version in site.resizers.items())
    lines = [
        f"  machine: {machine.cpu}, {machine.cores} of {machine.cores_total} cores, {memory}, board {machine.board}, {machine.os}",
        f"  edgeseg {site.edgeseg}, Python {machine.python}, runtimes: {runtimes or 'none'}; frames resized by {resizers}",
        f"  targets: {_targets(site)}{_settings(site, entry)}",
    ]
    answering = [status for status in site.sensors if status.readings]
    lines += [f"  sensor {status.sensor}: {status.words}" for status in answering]
    silent = [status for status in site.sensors if not status.readings]
    if silent:
        lines.append(f"  sensors {NOT_AVAILABLE}: {', '.join(status.sensor for status in silent)}")
    lines += [f"  {status.sensor} needs: {status.fix}" for status in silent if status.fix]
    lines.append(f"  disk: {site.disk_free_bytes / 1e9:.1f} GB free in the home folder")
    return lines
