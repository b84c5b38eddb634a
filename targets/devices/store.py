"""What a board was sent, by content: a file is copied once, whichever job, bundle or host it came with.

    store/SHA256           a whole file, read-only
    store/SHA256.part      as much of it as arrived before a connection was lost

A name is given only to bytes that were read back and have that hash. Runs on the board: standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from edgeseg.core.errors import DeviceError
from edgeseg.core.files import fsync_folder

KEEP_DAYS: Final = 30
"""What no job has used for so long is forgotten."""
_MARGIN_BYTES: Final = 1 << 20
"""Left free for the job's own files."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES: Final = 1 << 20


class Store:
    """The folder `store`. Used by one process at a time, under the board's lock."""

    def __init__(self, folder: Path, tick: Callable[[], None]) -> None:
        """Open it, made where it is missing; `tick` is called again and again in what takes long."""
        self._folder, self._tick = folder, tick
        folder.mkdir(parents=True, exist_ok=True)

    def missing(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """Of files by hash and size, those that are not here whole, with how many bytes of each are; what is here is read and checked."""
        return {sha256: self._arrived(sha256) for sha256, size in wanted.items() if not self._keep(sha256, size)}

    def make_room(self, missing: Mapping[str, int], wanted: Mapping[str, int]) -> None:
        """See that the missing files fit, by forgetting what this job does not need, the longest unused first.

        Raises:
            DeviceError: they do not fit even so.
        """
        needed = sum(wanted[sha256] - have for sha256, have in missing.items()) + _MARGIN_BYTES if missing else 0
        others = [path for path in self._folder.iterdir() if path.name.removesuffix(".part") not in wanted]
        now = time.time()
        for path in sorted(others, key=lambda path: path.stat().st_mtime):
            if now - path.stat().st_mtime > KEEP_DAYS * 86400 or self._free_bytes() < needed:
                path.unlink()
        free = self._free_bytes()
        if free < needed:
            raise DeviceError(
                f"disk full: {needed / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free in {self._folder}; free some space there"
            )

    def add(self, sha256: str, at: int, pieces: Iterable[bytes]) -> None:
        """Write bytes of a file behind the `at` that are here."""
        with self._part(sha256).open("r+b" if at else "wb") as stream:
            stream.truncate(at)
            stream.seek(at)
            for piece in pieces:
                stream.write(piece)

    def seal(self, sha256: str, size: int) -> bool:
        """Give a file its name if it is whole and reads back as what it should be; else throw it away."""
        part = self._part(sha256)
        if not part.exists() or part.stat().st_size != size or self._hash(part) != sha256:
            part.unlink(missing_ok=True)
            return False
        part.chmod(0o444)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.rename(self._folder / sha256)
        fsync_folder(self._folder)
        return True

    def lay(self, sha256: str, place: Path) -> None:
        """Put a whole file at `place`: linked, where the file system can."""
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.hardlink_to(self._folder / sha256)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV, errno.ENOSYS):
                raise
            shutil.copyfile(self._folder / sha256, place)

    def _keep(self, sha256: str, size: int) -> bool:
        """Tell whether a file is here whole, and note that it is used."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is no SHA-256")
        path = self._folder / sha256
        if not path.exists():
            return self._part(sha256).exists() and self._part(sha256).stat().st_size >= size and self.seal(sha256, size)
        if path.stat().st_size != size or self._hash(path) != sha256:
            path.unlink()
            return False
        os.utime(path)
        return True

    def _arrived(self, sha256: str) -> int:
        """How many bytes of a file that is not whole are here."""
        part = self._part(sha256)
        return part.stat().st_size if part.exists() else 0

    def _hash(self, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                self._tick()
        return digest.hexdigest()

    def _part(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.part"

    def _free_bytes(self) -> int:
        state = os.statvfs(self._folder)
        return state.f_bavail * state.f_frsize
