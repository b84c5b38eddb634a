"""Where runtimes keep what they make of a model (compiled models, engines), and why nothing stale or foreign is used.

Each set of facts (model, machine, SDK, settings) has a folder of its own, named by a hash of all of them; when any of them changes, another
folder is used and the old one never looked at. What lies there is machine code or as good as that, so the folder belongs to this user, and
one that others may write to is refused. Bytes that changed (a bad block of a card) are answers that changed, which SDKs do not notice, so
hashes are kept.
"""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgeseg.core.errors import ConfigError, NoPermissionError, explain_os_error
from edgeseg.core.files import cache_root, patient_lock, read_json, sha256_bytes, sha256_file, sha256_json, write_json
from targets.runtimes.base import RuntimeOptions, installed_version

_PROBE_BYTES: Final = 1 << 20
_FACTS, _HASHES, _LOCK = "facts.json", "sha256.json", "lock"
KEPT: Final[Mapping[tuple[str, str], str]] = {
    ("openvino", "cpu"): "compiled model", ("openvino", "gpu"): "compiled model", ("openvino", "npu"): "compiled model",
    ("onnxruntime", "tensorrt"): "engine", ("tensorrt", "tensorrt"): "engine",
}
"""What a runtime with a provider can keep; the others keep nothing."""
_PROCESSOR: Final = frozenset({"model name", "flags", "Features", "CPU implementer", "CPU part"})
"""Lines of /proc/cpuinfo that say which machine code runs."""


def keeping(runtime: str, options: RuntimeOptions, environment: Mapping[str, str]) -> tuple[RuntimeOptions, str]:
    """Options with which what a runtime makes of a model is kept for later starts, and what is to be said about it.

    Unchanged and empty where the runtime keeps nothing. A folder that cannot be written or locked is no error, since nothing hangs on it
    but time. Runtime `tensorrt` keeps its engines always, and says itself what is wrong with the folder.
    """
    what = KEPT.get((runtime, options.provider), "")
    if not what:
        return options, ""
    if runtime == "onnxruntime" and tensorrt_version() is None:
        return options, f"{what} not kept: TensorRT's version is not known without its Python package"
    try:
        root = _usable_root(environment)
    except ConfigError as error:
        return options, "" if runtime == "tensorrt" else f"{what} not kept: {error}"
    return replace(options, cache_dir=str(root)), f"{what} kept in {root}"


def _usable_root(environment: Mapping[str, str]) -> Path:
    """Give the cache's folder once something was written and locked there; `ConfigError` where that does not go."""
    import fcntl  # POSIX only; imported here so that the module loads anywhere
    from tempfile import TemporaryFile  # not loaded by who keeps nothing

    root = cache_root(environment)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=root) as probe:
            fcntl.flock(probe, fcntl.LOCK_EX)
            probe.write(bytes(_PROBE_BYTES))
    except OSError as error:
        raise ConfigError(f"{root} cannot be used ({error.strerror}); set EDGESEG_CACHE to a folder that can") from error
    return root


def cache_folder(root: str, runtime: str, facts: Mapping[str, str]) -> Path:
    """Give the folder for exactly these facts, made where it is missing; the facts lie in it to be read by people.

    Raises:
        NoPermissionError: others may write to it, or it cannot be made.
        OutputError: the disk is full.
    """
    folder = Path(root).expanduser().resolve() / runtime / sha256_json(dict(facts))[:32]
    with told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        check_own(folder)
        if not (folder / _FACTS).is_file():
            write_json(folder / _FACTS, dict(facts))
    return folder


@contextmanager
def intact(folder: Path) -> Iterator[None]:
    """Let an SDK keep files in a folder of `cache_folder` and take from there only what it wrote, one process at a time.

    Files whose SHA-256 is not the one noted when they were written are removed before, so that they are made anew.

    Raises:
        NoPermissionError, OutputError: it cannot be locked or written.
    """
    with ExitStack() as held:
        with told(folder):
            held.enter_context(patient_lock(folder / _LOCK, holder="edgeseg"))
            noted = _noted(folder / _HASHES)
            whole = {}
            for file in _kept_files(folder):
                known = noted.get(file.name)
                if known is not None and known == _hash(file):
                    whole[file.name] = known
                else:
                    file.unlink()
        yield
        with told(folder):
            found = {file.name: whole.get(file.name) or sha256_file(file) for file in _kept_files(folder)}
            if found != noted:
                write_json(folder / _HASHES, found)


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Let an `OSError` (disk full, no permission) leave as ours and with the folder's name: that of a lock or a write names no file."""
    try:
        yield
    except OSError as error:
        raise explain_os_error(OSError(error.errno, error.strerror, str(folder)), doing="writing the cache") from error


def _kept_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name not in (_FACTS, _HASHES, _LOCK))


def _noted(file: Path) -> dict[str, str]:
    try:
        noted = read_json(file)
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _hash(file: Path) -> str | None:
    try:
        return sha256_file(file)
    except OSError:  # a block that cannot be read
        return None


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


def tensorrt_version() -> str | None:
    """Version of TensorRT as its Python package says it; its libraries alone do not say it without being loaded."""
    return installed_version("tensorrt", "tensorrt-cu12", "tensorrt-cu13")


def processor_facts(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """What code compiled for this processor depends on: its kind and its instruction sets."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    kept = sorted({line for line in lines if line.partition(":")[0].strip() in _PROCESSOR})
    return {"arch": platform.machine(), "processor_sha256": sha256_bytes("\n".join(kept).encode())}
