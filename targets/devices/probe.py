"""What a board is before edgeseg is there: asked of its own Python over SSH, in words that any Python from 2.6 understands."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.errors import DeviceError
from targets.devices.ssh import quoted_path
from targets.devices.times import within
from targets.devices.wheels import BoardPython
from targets.devices.words import GREETING, LEAST_PYTHON, nonsense, parsed, plain

if TYPE_CHECKING:
    import asyncssh

_ANSWER_S: Final = 60.0
_USUAL: Final = "python3"
_ASK: Final = '''
# Any Python, perhaps a broken one: what cannot be told is left empty, whatever it raises, and the rest is told.
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import json, os, platform
def there(name):
    try:
        __import__(name)
        return True
    except Exception:
        return False
def read(path):
    try:
        return open(path).read().strip("\\0\\n ")
    except Exception:
        return ""
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except Exception:
    libc = ""
home = os.statvfs(os.path.expanduser("~"))
full = ".".join(str(part) for part in sys.version_info[:3])
name = platform.python_implementation()
facts = {
    "version": list(sys.version_info[:3]), "executable": sys.executable, "venv": there("venv") and there("ensurepip"), "libc": libc or "",
    "bits": 64 if sys.maxsize > 2 ** 32 else 32, "model": read("/proc/device-tree/model"), "disk_free_bytes": home.f_bavail * home.f_frsize,
    "markers": {
        "implementation_name": name.lower(), "implementation_version": full, "os_name": os.name, "platform_machine": platform.machine(),
        "platform_python_implementation": name, "platform_release": platform.release(), "platform_system": platform.system(),
        "platform_version": platform.version(), "python_full_version": full,
        "python_version": ".".join(str(part) for part in sys.version_info[:2]), "sys_platform": sys.platform,
    },
}
print("edgeseg-board " + json.dumps(facts))
'''
"""Its first two statements keep what lies in the home folder there from being imported; Python 2.6 has no -I."""


@dataclass(frozen=True, kw_only=True)
class BoardFacts:
    """A board and its Python."""

    python: BoardPython
    version: tuple[int, ...]
    executable: str
    has_venv: bool
    """It can make environments (Debian keeps that in a package of its own, python3-venv)."""
    bits: int
    model: str
    """Of the device tree; empty on a PC."""
    disk_free_bytes: int
    """In the home folder."""


async def ask(connection: asyncssh.SSHClientConnection, python: str, *, name: str) -> BoardFacts:
    """Ask a board's Python what it is.

    Args:
        connection: see `targets.devices.connect.connected`.
        python: command or path there.
        name: what the user calls the board.

    Raises:
        DeviceError: there is no such Python, or it does not answer.
    """
    import asyncssh

    try:
        command = f"exec {quoted_path(python)} -c {shlex.quote(_ASK)}"
        done = await within(_ANSWER_S, connection.run(command, stdin=asyncssh.DEVNULL))
    except TimeoutError as error:
        raise DeviceError(f"{name}: {python} does not answer within {_ANSWER_S:.0f} s; type: edgeseg devices check {name}") from error
    except (asyncssh.Error, OSError) as error:
        raise DeviceError(f"{name}: the connection was lost ({error}); run the same command again") from error
    lines = str(done.stdout or "").splitlines()
    found = next((line for line in lines if line.startswith(GREETING)), None)
    if found is None:
        words = plain((str(done.stderr or "").strip().splitlines() or [f"exit {done.exit_status}"])[-1])
        then = "type there: sudo apt install python3 python3-venv" if python == _USUAL else "check its path, or leave it to edgeseg"
        raise DeviceError(f"{name}: there is no {python} there ({words}); {then}")
    try:
        return _facts(parsed(found.removeprefix(GREETING), name))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise nonsense(name, f"what {python} there is") from error


def refuse_what_cannot(facts: BoardFacts, python: str, *, name: str) -> None:
    """Refuse what edgeseg does not run on.

    Raises:
        DeviceError: Python below 3.10, or a 32-bit system; says what to do.
    """
    least = ".".join(map(str, LEAST_PYTHON))
    if facts.version < LEAST_PYTHON:
        raise DeviceError(f"{name}: {python} there is Python {facts.python.version}, edgeseg needs {least} or newer; install one there, "
                          f"then type: edgeseg devices setup {name} --python PATH")
    if facts.bits != 64:
        raise DeviceError(f"{name}: {python} there is a 32-bit one, and no runtime has wheels for it; put the 64-bit image on the board")


def _facts(raw: dict[str, Any]) -> BoardFacts:
    name, _, version = str(raw["libc"]).partition(" ")
    numbers = version.split(".")
    glibc = (int(numbers[0]), int(numbers[1])) if name == "glibc" and len(numbers) >= 2 and "".join(numbers[:2]).isdigit() else None
    return BoardFacts(
        python=BoardPython(markers={key: str(value) for key, value in raw["markers"].items()}, glibc=glibc),
        version=tuple(int(part) for part in raw["version"]), executable=str(raw["executable"]), has_venv=bool(raw["venv"]),
        bits=int(raw["bits"]), model=str(raw["model"]), disk_free_bytes=int(raw["disk_free_bytes"]),
    )
