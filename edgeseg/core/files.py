"""Atomic writes, hashes and locks: a killed process leaves the old file or the new one, never half of one.

Every program that runs a bundle loads this module; what it does not need for that is imported where it is used.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from edgeseg.core.errors import BusyError, ConfigError

_CHUNK_BYTES = 1 << 16
_FEW_BYTES = 2 << 20
"""Python's own SHA-256 takes 7 ms for these, OpenSSL's 1 ms and 4 ms more to be loaded (x86-64, one processor of 2.5 GHz)."""


def cache_root(environment: Mapping[str, str]) -> Path:
    """Where what serves later commands is kept: costs of layers, emulated boards, compiled models, engines.

    EDGESEG_CACHE, else `edgeseg` in XDG_CACHE_HOME, else ~/.cache/edgeseg (XDG Base Directory Specification).

    Raises:
        ConfigError: none of them is set, and this user has no home folder.
    """
    try:
        if own := environment.get("EDGESEG_CACHE"):
            return Path(own).expanduser()
        return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "edgeseg"
    except RuntimeError as error:
        raise ConfigError("there is no home folder to keep a cache in; set EDGESEG_CACHE to a folder") from error


def _new_sha256(size_bytes: int) -> Any:  # noqa: ANN401 - hashlib's own type is private
    """A SHA-256 object for about so many bytes: OpenSSL's, or Python's own where few are to be hashed and OpenSSL is not loaded yet.

    `hashlib` loads OpenSSL, 3.6 MB that a process which only runs a small network has no other use for.
    """
    if size_bytes <= _FEW_BYTES and "hashlib" not in sys.modules:
        with suppress(ImportError):  # a Python may be built without it
            return import_module("_sha2" if sys.version_info >= (3, 12) else "_sha256").sha256()
    import hashlib

    return hashlib.sha256()


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of `data`, lower-case hex."""
    digest = _new_sha256(len(data))
    digest.update(data)
    return str(digest.hexdigest())


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hex."""
    part = memoryview(bytearray(_CHUNK_BYTES))
    with path.open("rb", buffering=0) as stream:
        digest = _new_sha256(os.fstat(stream.fileno()).st_size)
        while count := stream.readinto(part):
            digest.update(part[:count])
    return str(digest.hexdigest())


def sha256_json(value: object) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no white space, no NaN)."""
    return sha256_bytes(canonical_json(value).encode())


def canonical_json(value: object) -> str:
    """The one text form of a JSON value that hashes are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable (a rename is not, until its folder is synced)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(path: Path, *, sync_name: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is synced and renamed to `path`, else removed.

    Who writes many files into a folder may leave `sync_name` to one `fsync_folder` at the end: until then a power failure can take the
    names away, but never leaves half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - os.replace names the guarantee (POSIX rename)
        if sync_name:
            fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write a JSON value to `path` atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON has no narrower type; callers validate
    """Parse a JSON file; `ValueError` where it is not JSON, has duplicate keys or NaN."""
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:  # noqa: ANN401 - JSON has no narrower type; callers validate
    """Parse strict JSON: duplicate keys, NaN and infinities are a `ValueError`."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) != len(keys):
            raise ValueError(f"duplicate key among {sorted(keys)}")
        return dict(pairs)

    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder; on success its files are synced and it takes the place of `folder`.

    An existing `folder` is replaced as a whole. On any error the temporary folder is removed and `folder` is as it was.
    """
    import shutil

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    retired = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                with path.open("rb+") as stream:
                    os.fsync(stream.fileno())
            elif path.is_dir():
                fsync_folder(path)
        fsync_folder(temporary)
        if folder.exists():
            folder.rename(retired)
        temporary.rename(folder)
        fsync_folder(folder.parent)
    finally:
        if retired.exists() and not folder.exists():  # interrupted between the two renames: the old one comes back
            retired.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed process left in `folder` (`.NAME.PID.tmp`, `.NAME.PID.old`). Call under the run's lock."""
    import shutil

    for path in (*folder.glob(".*.tmp"), *folder.glob(".*.old")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def lock(path: Path, *, holder: str) -> Iterator[None]:
    """Hold an exclusive `flock` on `path`, or raise `BusyError`; the kernel frees it when the process dies."""
    import fcntl  # POSIX only; imported here so that the module loads anywhere

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            raise BusyError(f"{path.parent} is in use by {stream.read().strip() or 'another process'}; wait for it to end") from error
        stream.seek(0)
        stream.truncate()
        stream.write(f"{holder} (pid {os.getpid()})")
        stream.flush()
        yield


@contextmanager
def patient_lock(path: Path, *, holder: str, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold an exclusive `flock` on `path`, waiting for it as long as it takes; `on_wait` is told once who has it.

    The kernel frees it when the process dies. A second call in the same process waits too, so it must not be nested.
    """
    import fcntl  # POSIX only; imported here so that the module loads anywhere

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                stream.seek(0)
                on_wait(stream.read().strip() or "another process")
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
        stream.seek(0)
        stream.truncate()
        stream.write(f"{holder} (pid {os.getpid()})")
        stream.flush()
        yield


def is_locked(path: Path) -> bool:
    """Tell whether a living process (this one included) holds `path` by `lock` or `patient_lock`."""
    try:
        with lock(path, holder="nobody"):
            return False
    except BusyError:
        return True
