"""How a board is reached: one job in, its result out, whatever lies between."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from edgeseg.core.errors import EdgesegError
from targets.devices.words import plain

_PIP_INSTALL: Final = re.compile(r"type: pip install 'edgeseg\[([\w-]+)\]'.*")
"""What `edgeseg.core.lazy.require` says to do on the machine where it is said."""

Progress = Callable[[str, float], None]
"""Called with the stage (`upload`, `warm-up`, `measure` ...) and the share done, 0..1."""


@dataclass(frozen=True)
class Job:
    """One request to `targets.measure.worker`, with the files it needs and those it makes.

    Every path in it is relative to a folder that is made for the job on the device and removed afterwards. Where an error names an upload
    by a path of at least two parts (`frames/7/field.png`), it is told back as the host's own; where it says the last part alone, that is
    what the user reads: so keep a file's own name as the last part.
    """

    request: Mapping[str, Any]
    """What the worker reads, `{"job": ..., ...}`."""
    uploads: Mapping[str, Path] = field(default_factory=dict)
    """Path in the job's folder -> file or folder of this machine. Copied once: a board keeps what it was sent, by content."""
    downloads: tuple[str, ...] = ()
    """Folders in the job's folder that are pulled back when it ends well."""

    def __post_init__(self) -> None:
        """A path that leaves the folder is our own bug."""
        assert all(is_inside(path) for path in (*self.uploads, *self.downloads)), "paths of a job stay inside its folder"


class Device(Protocol):
    """A machine that runs jobs, one at a time."""

    @property
    def name(self) -> str:
        """What a person calls it; its address where it has no name."""
        ...

    @property
    def address(self) -> str:
        """`local`, `ssh://user@host[:port]`, `emulated:BOARD`."""
        ...

    def run(self, job: Job, *, what: str, timeout_s: float, on_progress: Progress, into: Path | None = None) -> dict[str, Any]:
        """Run a job to its end and give the worker's result; its `downloads` are then whole below `into`, each in place of an older one.

        Args:
            job: what to do.
            what: the job in words, for messages: `measuring demo-int8`.
            timeout_s: the worker is stopped after this; copying files does not count.
            on_progress: called with the stage and the share done.
            into: folder of this machine that `downloads` go to; needed where there are any.

        Raises:
            EdgesegError: the very kind the worker raised.
            DeviceError: the board cannot be reached or used.
            BusyError: another job runs there; says whose it is and since when.
            RuntimeFailure: the worker crashed (the signal is named), hung, or took too long.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """What an address cannot say. Empty = the way to reach it decides."""

    python: str = ""
    """Python of the environment edgeseg is installed in, on the board; may begin with `~/`."""
    folder: str = ""
    """Folder of the board that holds what it was sent, and the lock; may begin with `~/`."""
    identity: str = ""
    """File of the private key; else the agent's and the usual ones are tried."""
    known_hosts: str = ""
    """File of host keys; else `~/.ssh/known_hosts`."""


def is_inside(path: str) -> bool:
    """Tell whether a relative path with `/` stays below the folder it is taken from, and is spelt in the one plain way."""
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\0" not in path and "/".join(parts) == path


def retold(error: EdgesegError, uploads: Mapping[str, Path], *, device: str = "") -> EdgesegError:
    """Give an error of the worker in words of this machine: its files by their own names, and which device it was, if not this one."""
    names = sorted((name for name in uploads if "/" in name), key=len, reverse=True)
    message = str(error)
    if names:
        message = re.sub("|".join(map(re.escape, names)), lambda found: str(uploads[found[0]]), message)
    return type(error)(plain(f"{device}: {message}" if device else message))


def install_otherwise(message: str, instead: str) -> str:
    r"""Say `instead` in place of how an extra is installed on the machine that lacks it; `\1` in it is the extra."""
    return _PIP_INSTALL.sub(instead, message)
