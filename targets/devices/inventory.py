"""The boards a person has: a small TOML file of names and addresses, `~/.config/edgeseg/devices.toml`.

    [pi5]
    address = "ssh://pi@192.168.1.20"
    target = "raspberry-pi-5"

EDGESEG_DEVICES in the environment names another file. Writing is atomic, and two writers take turns.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from edgeseg.core.errors import ConfigError, require_path
from edgeseg.core.files import patient_lock, write_text
from edgeseg.core.toml import parse_toml, toml_key, toml_text
from targets.boards import find_target
from targets.devices import Device, DeviceOptions, open_device
from targets.devices.emulated import emulated_target

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One board of the inventory. Empty = as the address and edgeseg's own defaults have it."""

    name: str
    """What a person calls it; empty for an address that is not in the inventory."""
    address: str
    target: str = ""
    """The target it is (`edgeseg targets`)."""
    python: str = ""
    """Python on the board that has edgeseg; may begin with `~/`. Empty = the environment that `edgeseg devices setup` makes."""
    identity: str = ""
    """File of the private key on this machine."""

    @property
    def label(self) -> str:
        """Name and address, for a person."""
        return f"{self.name} ({self.address})" if self.name else self.address

    @property
    def is_ssh(self) -> bool:
        """A board behind an sshd, which may not have edgeseg yet."""
        return self.address.startswith("ssh:")

    def open(self) -> Device:
        """Give the device; nothing is contacted. See `targets.devices.open_device` for what is raised."""
        return open_device(self.address, self.name, self.options)

    @property
    def options(self) -> DeviceOptions:
        """What the address cannot say."""
        return DeviceOptions(python=self.python, identity=str(Path(self.identity).expanduser()) if self.identity else "")


@dataclass(frozen=True)
class Inventory:
    """All boards of one file, by name."""

    path: Path
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def find(self, name_or_address: str) -> Entry:
        """Give the entry of a name, or one for an address.

        Raises:
            ConfigError: neither; the nearest name is said.
        """
        if name_or_address in self.entries:
            return self.entries[name_or_address]
        if _is_address(name_or_address):
            return next((e for e in self.entries.values() if e.address == name_or_address), Entry(name="", address=name_or_address))
        near = difflib.get_close_matches(name_or_address, self.entries, n=1)
        known = f"known: {', '.join(self.entries)}" if self.entries else f"{self.path} names none"
        hint = f"did you mean '{near[0]}'?" if near else f"{known}; type: edgeseg devices add {name_or_address} ssh://USER@HOST"
        raise ConfigError(f"device '{name_or_address}' is unknown; {hint}")


def inventory_path(environment: Mapping[str, str]) -> Path:
    """Where the inventory is: what EDGESEG_DEVICES says, else `~/.config/edgeseg/devices.toml`."""
    named = environment.get("EDGESEG_DEVICES", "")
    return Path(named).expanduser() if named else Path.home() / ".config" / "edgeseg" / "devices.toml"


def load_inventory(path: Path | None = None) -> Inventory:
    """Read the inventory; a file that is not there is an empty one.

    Raises:
        ConfigError: not TOML, an unknown key (the nearest is named), a value that means nothing.
    """
    path = inventory_path(os.environ) if path is None else path
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Inventory(path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    raw = parse_toml(text, where=str(path))
    return Inventory(path, {name: _entry(name, value, path) for name, value in raw.items()})


def find_device(name_or_address: str, path: Path | None = None) -> Device:
    """Give the device of this name in the inventory, or at this address; nothing is contacted.

    Raises:
        ConfigError: there is none, or the address is not one.
        MissingExtraError: a package is needed for this way to reach a board.
    """
    return load_inventory(path).find(name_or_address).open()


def add_entry(entry: Entry, path: Path | None = None) -> Inventory:
    """Write one more board into the inventory.

    Raises:
        ConfigError: the name is there already, or a value means nothing.
        InputMissingError: the identity file does not exist.
        MissingExtraError: a package is needed for this way to reach a board.
    """
    _check(entry, where="devices add")
    if entry.identity:
        require_path(Path(entry.identity), what="identity")
    entry.open()

    def change(entries: dict[str, Entry]) -> None:
        if entry.name in entries:
            raise ConfigError(f"device '{entry.name}' is there already ({entries[entry.name].address}); to change it, type first: "
                              f"edgeseg devices remove {entry.name}")
        entries[entry.name] = entry

    return _change(path, change)


def remove_entry(name: str, path: Path | None = None) -> Inventory:
    """Take a board out of the inventory; what is on the board stays there.

    Raises:
        ConfigError: no such board.
    """

    def change(entries: dict[str, Entry]) -> None:
        if name not in entries:
            near = difflib.get_close_matches(name, entries, n=1)
            raise ConfigError(f"device '{name}' is unknown; " + (f"did you mean '{near[0]}'?" if near else "type: edgeseg devices list"))
        del entries[name]

    return _change(path, change)


def _change(path: Path | None, change: Callable[[dict[str, Entry]], None]) -> Inventory:
    path = inventory_path(os.environ) if path is None else path
    with patient_lock(path.with_name(f".{path.name}.lock"), holder="edgeseg devices"):
        entries = dict(load_inventory(path).entries)
        change(entries)
        write_text(path, "\n".join(_text(entry) for entry in entries.values()))
    return Inventory(path, entries)


def _text(entry: Entry) -> str:
    keys = (f.name for f in fields(Entry) if f.name != "name")
    lines = [f"{key} = {toml_text(getattr(entry, key))}" for key in keys if getattr(entry, key)]
    return "\n".join([f"[{toml_key(entry.name)}]", *lines]) + "\n"


def _entry(name: str, raw: Any, path: Path) -> Entry:  # noqa: ANN401 - TOML has no narrower type
    where = f"{path} [{name}]"
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: '{name}' is a value; write a table a device: [NAME], then address = \"ssh://USER@HOST\"")
    known = [f.name for f in fields(Entry) if f.name != "name"]
    for key, value in raw.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            raise ConfigError(f"{where} unknown key '{key}'; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"))
        if not isinstance(value, str):
            raise ConfigError(f"{where} {key} = {value!r}: expected a string")
    if "address" not in raw:
        raise ConfigError(f'{where} has no address; add address = "ssh://USER@HOST"')
    entry = Entry(name=name, **raw)
    _check(entry, where=where)
    return entry


def _check(entry: Entry, *, where: str) -> None:
    if not _NAME.fullmatch(entry.name) or _is_address(entry.name):
        raise ConfigError(f"{where}: device name {entry.name!r}: use up to 64 of A-Z a-z 0-9 . _ - and start with a letter or digit; "
                          "'local' is this machine")
    for key in ("address", "python", "identity"):
        if _CONTROL.search(getattr(entry, key)):
            raise ConfigError(f"{where}: {key} {getattr(entry, key)!r} holds characters that cannot be printed")
    if entry.python and not entry.python.startswith(("/", "~/")):
        raise ConfigError(f"{where}: python '{entry.python}' is no path; give one from the root (/home/pi/edgeseg/bin/python) or from ~/")
    if entry.identity and not entry.identity.startswith(("/", "~/")):
        raise ConfigError(f"{where}: identity '{entry.identity}' depends on the current folder; give a path from the root or from ~/")
    if entry.target:
        find_target(entry.target)
    emulated = emulated_target(entry.address)
    if entry.target and emulated and entry.target != emulated:
        raise ConfigError(f"{where}: {entry.address} is no {entry.target}; leave the target out, or type emulated:{entry.target}")


def _is_address(text: str) -> bool:
    return ":" in text or text == "local"
