"""The one error tree. Every message says what was got, what would do and what to type next.

Only `edgeseg.cli.main` prints these and exits; everybody else raises. The exit codes follow `sysexits.h` where it
has a word for the case. Exit 0 = done, 1 = a goal was missed, 2 = usage or configuration, 3 = a goal is not decided and none was missed.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

_TEMPORARY: Final = re.compile(r"\.(.+)\.\d+\.(?:tmp|old)")
"""`.NAME.PID.tmp` of `edgeseg.core.files`."""
_WORK: Final = re.compile(r"\.downloads|\.[a-z]+-\w+\.tmp")
"""Folders of ours inside one that a person named."""
_SCRATCH: Final = re.compile(r"edgeseg-[a-z]+-\w{8}")
"""Folders of ours in the system's place for temporary files; elsewhere a person's folder may be called so."""


class EdgesegError(Exception):
    """Base of every error a user is meant to read; `exit_code` is what the process ends with."""

    exit_code = 70


class GoalMissed(EdgesegError):
    """Everything ran, and a number in `[goals]` was not reached."""

    exit_code = 1


class GoalUndecided(EdgesegError):
    """Everything ran, no goal was missed, and the frames measured on are too few to say that one was reached."""

    exit_code = 3


def goals_exit_code(*, passed: bool, undecided: bool) -> int:
    """Exit code of a verb that judges goals; `undecided` = none was missed, and at least one is not decided."""
    return 0 if passed else GoalUndecided.exit_code if undecided else GoalMissed.exit_code


class ConfigError(EdgesegError):
    """The command line or edgeseg.toml asks for something that does not exist or does not fit."""

    exit_code = 2


class BundleError(EdgesegError):
    """A bundle is not what its manifest says, or its manifest cannot be read."""

    exit_code = 11


class TargetError(EdgesegError):
    """This machine or this board cannot run what was asked for (format, precision, provider)."""

    exit_code = 13


class DataError(EdgesegError):
    """Images or labels are unreadable, missing their partner, or outside the classes."""

    exit_code = 65


class InputMissingError(EdgesegError):
    """A file or folder that was named does not exist or holds nothing usable."""

    exit_code = 66


class DownloadError(EdgesegError):
    """A public source cannot be reached, or what it sends is not what was published."""

    exit_code = 68


class MissingExtraError(EdgesegError):
    """A package is needed that this installation does not have; the message names the extra."""

    exit_code = 69


class RuntimeFailure(EdgesegError):
    """An SDK failed; its own error is kept as the cause."""

    exit_code = 70


class TrainingError(EdgesegError):
    """Training cannot go on (a loss that is not finite, a checkpoint of another configuration)."""

    exit_code = 71


class DeviceError(EdgesegError):
    """A board cannot be used: not reached, key refused or not known, connection lost, no Python that will do, disk full there."""

    exit_code = 72


class OutputError(EdgesegError):
    """A result could not be written (disk full, I/O error); earlier results are untouched."""

    exit_code = 74


class BusyError(EdgesegError):
    """Somebody else holds the lock on this run."""

    exit_code = 75


class NoPermissionError(EdgesegError):
    """The operating system refused access to a path."""

    exit_code = 77


@contextmanager
def vendor_errors(vendor: str) -> Iterator[None]:
    """Turn anything foreign raised inside into `RuntimeFailure`, its cause kept; our own errors pass unchanged."""
    try:
        yield
    except Exception as error:  # SDKs raise what they like; ours and the system's are passed on
        raise_vendor_error(vendor, error)


def raise_vendor_error(vendor: str, error: Exception) -> NoReturn:
    """Raise a foreign error as `RuntimeFailure`, its cause kept, and one of ours as it is.

    For calls of microseconds, where `vendor_errors` would cost one of them: call it in an `except` clause.
    """
    if isinstance(error, (EdgesegError, OSError, MemoryError)):
        raise error
    raise RuntimeFailure(f"{vendor} failed: {telling_line(error)}") from error


def telling_line(error: BaseException) -> str:
    """Give the first line of an SDK's message that says something; OpenVINO puts its own source lines before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from ", "Check '"))]
    return (telling or lines or [type(error).__name__])[0]


def users_path(path: str) -> str:
    """Give the path a person named for one of ours: what is being written lies beside it, under a name of our own, until it is whole."""
    parts = path.split("/")
    for place, part in enumerate(parts):
        written = _TEMPORARY.fullmatch(part)
        if written:
            return "/".join([*parts[:place], written[1]])
        if _WORK.fullmatch(part):
            return "/".join(parts[:place]) or "."
        if _SCRATCH.fullmatch(part) and "/".join(parts[:place]) == _temporary_folder():
            return f"the temporary folder {_temporary_folder()} (TMPDIR names another)"
    return path


def _temporary_folder() -> str:
    """The system's place for temporary files; empty where nothing can be written in any."""
    import tempfile  # not loaded by who sees no error

    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return ""


def explain_os_error(error: OSError, *, doing: str) -> EdgesegError:
    """Give the member of our tree that says what an `OSError` means to the user."""
    error = _first_of(error)
    path = "?" if error.filename is None else users_path(str(error.filename))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"disk full while {doing} {path}" if error.filename else "disk full (df -h tells which one)"
        return OutputError(f"{where}; free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NoPermissionError(f"no permission while {doing} {path}; check its owner and mode, or choose another place")
    if error.errno == errno.ENOENT:
        return InputMissingError(f"{path} does not exist; check the spelling")
    return OutputError(f"{error.strerror or error} while {doing} {path}")


def _first_of(error: OSError) -> OSError:
    """The first of the errors that `shutil.copytree` collects: (from, to, its words) each.

    A full disk is the target's; else what was copied is to blame, unless the words name the target alone.
    """
    if not error.args or not isinstance(error.args[0], list) or not error.args[0]:
        return error
    source, to, words = (str(part) for part in error.args[0][0])
    found = re.match(r"\[Errno (\d+)\]", words)
    number = int(found[1]) if found else None
    of_target = number in (errno.ENOSPC, errno.EDQUOT) or (repr(to) in words and repr(source) not in words)
    return OSError(number, words if number is None else os.strerror(number), to if of_target else source)


def require_path(path: Path, *, what: str) -> Path:
    """Give `path` back if it exists; else raise `InputMissingError` naming `what` it should have been."""
    if not path.exists():
        raise InputMissingError(f"{what} {path} does not exist; check the spelling")
    return path
