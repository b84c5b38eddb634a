"""What a packed data set is told by: the SHA-256 of its decoded labels, which no re-packing and no other PNG encoder changes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from edgeseg.core.errors import DownloadError
from edgeseg.core.files import sha256_file, write_json
from edgeseg.core.images import read_class_map
from edgeseg.data.base import Palette

MAX_FILE_BYTES = 64 << 20


def labels_sha256(root: Path, labels: Iterable[Path] | None = None) -> str:
    """Hash of split, stem, size and class indices of every mask below `root/masks` (or of `labels` only), in order of their path."""
    digest = hashlib.sha256()
    for path in sorted(root.glob("masks/*/*.png") if labels is None else labels):
        label = read_class_map(path)
        digest.update(f"{path.parent.name}/{path.stem} {label.shape[0]}x{label.shape[1]}\n".encode())
        digest.update(label.tobytes())
    return digest.hexdigest()


def files_sha256(root: Path, files: Iterable[Path]) -> str:
    """Hash of names and bytes of files that are kept as they came."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(root).as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def members(archive: ZipFile) -> dict[str, ZipInfo]:
    """Files of an archive by their path below its one top folder.

    Raises:
        DownloadError: a file is larger than any in these data sets: not what was asked for.
    """
    found = {}
    for entry in archive.infolist():
        _, _, path = entry.filename.partition("/")
        if path and not entry.is_dir():
            if entry.file_size > MAX_FILE_BYTES:
                raise DownloadError(f"{archive.filename}: {path} has {entry.file_size} bytes; this is not the archive that was published")
            found[path] = entry
    return found


def write_index(root: Path, *, name: str, classes: tuple[str, ...], palette: Palette, **more: object) -> None:
    """Write `dataset.json`."""
    write_json(root / "dataset.json", {"name": name, "classes": list(classes), "palette": [list(colour) for colour in palette], **more})


def wrong(archive: ZipFile, what: str) -> DownloadError:
    """The error for an archive that does not hold what it should."""
    return DownloadError(f"{archive.filename}: {what}; this is not the archive that was published")
