"""What a sensor is: something to look for on a machine, which either answers or says why it does not.

Every path is taken below a root folder, so that recorded trees of real boards can be read in tests. Units follow the kernel's hwmon,
thermal and powercap interfaces (docs.kernel.org) and are turned into the one in the column's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, Union

Kind = Literal["gauge", "counter", "flags"]
Role = Literal["", "temperature", "clock", "throttle", "power"]
Reading = Union[float, str]  # noqa: UP007 - evaluated at run time
"""A number, or the words why there is none this time."""


class Held(float):
    """A number that was read earlier and still counts: energy is never taken from it."""


UNITS: Final = ("c", "mhz", "w", "j", "bytes", "cpu_s", "events", "state", "bits")
"""The last part of a column's name is one of these."""
_MOST_BYTES: Final = 65536


@dataclass(frozen=True, kw_only=True)
class Column:
    """One series of numbers of a trace."""

    name: str
    """Ends in its unit (`UNITS`): `cpu_thermal_c`, `VDD_IN_w`."""
    kind: Kind = "gauge"
    """`counter`: only differences mean something. `flags`: bits; see the sensor."""
    role: Role = ""
    covers: str = ""
    """Which part of the machine's power this is, in words. The columns of one sensor that cover something add up to its energy."""
    averages: bool = False
    """Each number is the mean since the one before; else it is of the moment."""


@dataclass(frozen=True)
class Absent:
    """There is nothing to read."""

    why: str
    fix: str = ""
    """What to type so that it can be read; empty where nothing would help."""


class Probe(Protocol):
    """A sensor that answers."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What it reads."""

    def read(self) -> Mapping[str, Reading]:
        """Read all columns now. OSError and ValueError may be raised: all its columns then have a gap."""

    def close(self) -> None:
        """Give back what it holds."""


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """A kind of sensor; `open` looks for it below a root folder."""

    name: str
    about: str
    open: Callable[[Path], Probe | Absent]
    gives_power: bool = False
    """Energy can be told from it; its reason is given where none can."""
    every_s: float = 0.0
    """It is asked at most so often, and at the first and last sample of a trace; its answer holds in between."""


@dataclass(frozen=True)
class Files:
    """A probe of files that hold one number each: column -> (file, factor to the column's unit)."""

    columns: tuple[Column, ...]
    sources: Mapping[str, tuple[Path, float]]

    def read(self) -> Mapping[str, Reading]:
        """Read each file; one that does not answer does not take the others along."""
        readings: dict[str, Reading] = {}
        for name, (path, factor) in self.sources.items():
            try:
                readings[name] = read_number(path) * factor
            except (OSError, ValueError) as error:
                readings[name] = explain(error)
        return readings

    def close(self) -> None:
        """Hold nothing: the files are opened for each reading, so that one that goes away is noticed."""


def files_probe(found: Mapping[Column, tuple[Path, float]], absent: Absent) -> Probe | Absent:
    """Give a probe of the files that can be read now, or `absent`; where only permission is missing, that is the reason."""
    answering: dict[Column, tuple[Path, float]] = {}
    refused: list[str] = []
    for column, (path, factor) in found.items():
        try:
            read_number(path)
        except PermissionError:
            refused.append(str(path))
            continue
        except (OSError, ValueError):
            continue  # for example the thermal zone of a part that has no power now: EAGAIN
        answering[column] = (path, factor)
    if answering:
        return Files(tuple(answering), {column.name: source for column, source in answering.items()})
    if refused:
        return Absent(f"{refused[0]} may be read by root only", f"sudo chmod a+r {' '.join(refused)}")
    return absent


def read_text(path: Path) -> str:
    """Text of a small file of sysfs or procfs.

    Raises:
        OSError: it is not there, may not be read, or the device behind it does not answer.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, _MOST_BYTES).decode(errors="replace").strip("\0 \n")
    finally:
        os.close(handle)


def read_number(path: Path) -> float:
    """Give the number a file holds. Raises OSError as `read_text` does, ValueError where it is none."""
    text = read_text(path)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{path.name} says {text[:40]!r}, not a number") from None


def text_or(path: Path, default: str = "") -> str:
    """Text of a file, or `default` where there is none to be had."""
    try:
        return read_text(path)
    except OSError:
        return default


def numbered(folder: Path, pattern: str) -> list[Path]:
    """Entries that match `pattern`, in the order of the numbers in their names; none where there is no folder."""
    return sorted(folder.glob(pattern), key=lambda path: ([int(n) for n in re.findall(r"\d+", path.name)], path.name))


def column_name(*parts: str) -> str:
    """Join parts to a name of letters, digits and single underscores."""
    return re.sub(r"[^A-Za-z0-9]+", "_", "_".join(parts)).strip("_")


def unique(name: str, unit: str, taken: Mapping[Column, object]) -> str:
    """Give `name_unit`, or `name_2_unit` and so on where that is taken."""
    names = {column.name for column in taken}
    full, number = f"{name}_{unit}", 1
    while full in names:
        number += 1
        full = f"{name}_{number}_{unit}"
    return full


def explain(error: Exception) -> str:
    """Say in few words why a reading failed."""
    if isinstance(error, OSError):
        name = Path(str(error.filename)).name if error.filename else ""
        return f"{name}: {error.strerror}".strip(": ").lower() if error.strerror else str(error)
    return str(error)
