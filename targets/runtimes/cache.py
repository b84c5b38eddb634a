"""Where runtimes keep what they make of a model (compiled models, engines), and why nothing stale or foreign is used.

Each set of facts (model, machine, SDK, settings) has a folder of its own, named by a hash of all of them; when any of them changes, another
folder is used and the old one never looked at. What lies there is machine code or as good as that, so the folder belongs to this user, and
one that others may write to is refused.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgeseg.core.errors import NoPermissionError, explain_os_error
from edgeseg.core.files import sha256_json, write_json

_FACTS: Final = "facts.json"
_PROCESSOR: Final = frozenset({"model name", "flags", "Features", "CPU implementer", "CPU part"})
"""Lines of /proc/cpuinfo that say which machine code runs."""


def default_root(environ: Mapping[str, str]) -> str:
    """Where caches lie when nobody says: `edgeseg` in the user's cache folder (XDG Base Directory Specification)."""
    return str(Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")) / ".cache") / "edgeseg")


def cache_folder(root: str, runtime: str, facts: Mapping[str, str]) -> Path:
    """Give the folder for exactly these facts, made where it is missing; the facts lie in it to be read by people.

    Raises:
        NoPermissionError: others may write to it, or it cannot be made.
        OutputError: the disk is full.
    """
    folder = Path(root).expanduser().resolve() / runtime / sha256_json(dict(facts))[:32]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        check_own(folder)
        if not (folder / _FACTS).is_file():
            write_json(folder / _FACTS, dict(facts))
    except OSError as error:
        raise explain_os_error(error, doing="writing the cache") from error
    return folder


def check_own(path: Path) -> None:
    """Refuse a file or folder that is not this user's alone to write.

    Raises:
        NoPermissionError: another user owns it, group or others may write to it, or it is a link.
    """
    facts = path.lstat()
    if facts.st_uid != os.geteuid() or facts.st_mode & 0o022 or stat.S_ISLNK(facts.st_mode):
        raise NoPermissionError(
            f"{path} is not this user's alone to write, and what lies there is executed; remove it, or choose another cache folder"
        )


def processor_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """What code compiled for this processor depends on: its kind and its instruction sets."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    kept = sorted({line for line in lines if line.partition(":")[0].strip() in _PROCESSOR})
    return {"arch": platform.machine(), "processor_sha256": hashlib.sha256("\n".join(kept).encode()).hexdigest()}
