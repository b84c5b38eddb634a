"""The emulator: what is installed, else Debian's package, unpacked into the cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeseg.core.errors import DownloadError
from edgeseg.core.files import atomic_path
from targets.devices.emulation.debian import fetch_packages, host_architecture, require_apt, suite, take_file

_NAMES: Final = ("qemu-aarch64-static", "qemu-aarch64")
_PACKAGE: Final = "qemu-user-static"


def find_qemu(cache: Path) -> Path | None:
    """Give the emulator that is here; `None` where there is none yet."""
    installed = next((found for found in map(shutil.which, _NAMES) if found), None)
    if installed is not None:
        return Path(installed)
    return _kept(cache) if _kept(cache).is_file() else None


def fetch_qemu(cache: Path, say: Callable[[str], None]) -> Path:
    """Take the emulator out of its Debian package (60 MB, most of it other processors) and keep it.

    Raises:
        DeviceError: there is no apt here.
        DownloadError: the package cannot be had.
    """
    require_apt(f"there is no {_NAMES[0]} on this machine")
    say("fetching qemu")
    with tempfile.TemporaryDirectory(prefix="edgeseg-apt-") as work, atomic_path(_kept(cache)) as target:
        packages = fetch_packages([_PACKAGE], arch=host_architecture(), work=Path(work))
        if not take_file([package for package in packages if package.name.startswith("qemu-user")], _NAMES, target):
            raise DownloadError(f"{_PACKAGE} of this machine's distribution holds no {_NAMES[0]}; install an emulator of that name")
    return _kept(cache)


def _kept(cache: Path) -> Path:
    return cache / f"qemu-{suite().replace(' ', '-').replace('/', '-')}" / _NAMES[0]
