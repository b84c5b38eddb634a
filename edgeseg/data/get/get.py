"""`edgeseg data get`: licence, download, unpack, check, put in place."""

from __future__ import annotations

import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from PIL import UnidentifiedImageError

from edgeseg.core.errors import ConfigError, DataError, DownloadError
from edgeseg.core.files import atomic_folder, lock, sweep_temporaries, write_json
from edgeseg.data.get.sources import SOURCES, Source
from edgeseg.data.get.transfer import STALL_S, Progress, download

DOWNLOADS: Final = ".downloads"
"""Folder beside the data set for what is on its way; removed when the data set is there."""

_DAMAGED: Final = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, KeyError, struct.error, UnidentifiedImageError)
"""What zipfile and Pillow raise for damaged bytes. An OSError with an errno is this machine's and passes."""


def find_source(name: str) -> Source:
    """Look a data set up.

    Raises:
        ConfigError: not one of `SOURCES`.
    """
    if name not in SOURCES:
        raise ConfigError(f"no data set '{name}'; one of {', '.join(SOURCES)}")
    return SOURCES[name]


def get_dataset(
    name: str, out: Path, *, accept_license: bool, source: Source | None = None, say: Callable[[str], None] | None = None,
    progress: Progress | None = None, stall_s: float = STALL_S, sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Put a public data set at `out`, complete and checked, or not at all. Interrupted, the same call goes on.

    Args:
        name: a key of `SOURCES`.
        out: a folder that does not exist yet or is empty.
        accept_license: whether the user has accepted the terms.
        source: replaces the one of that name (a mirror).
        say: takes a finished sentence, also when an attempt failed and another follows.
        progress: takes bytes there and bytes in all.
        stall_s: give a silent connection up after so many seconds.
        sleep: waits between attempts.

    Raises:
        ConfigError: unknown name, terms not accepted, or `out` is in use.
        DownloadError: the source cannot be reached, or what it sent is not what was published.
    """
    source = source or find_source(name)
    if not accept_license:
        raise ConfigError(f"{source.title}; terms: {source.licence}; cite {source.citation}. If you accept them, add --accept-license")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already and not empty; choose another --out, or delete it")
    downloads = out.parent / DOWNLOADS
    archive = downloads / f"{name}.zip"
    with lock(downloads / f"{name}.lock", holder="edgeseg data get"):
        sweep_temporaries(out.parent)
        download(source.url, archive, progress=progress, say=say, stall_s=stall_s, sleep=sleep)
        if say is not None:
            say(f"{name}: {archive.stat().st_size / 1e6:.1f} MB from {source.url}")
        try:
            with atomic_folder(out) as folder:
                _unpack(source, archive, folder)
                write_json(folder / "SOURCE.json", {
                    "name": name, "title": source.title, "url": source.url, "licence": source.licence, "citation": source.citation,
                    "content_sha256": source.content_sha256,
                })
        except (DownloadError, DataError):
            archive.unlink(missing_ok=True)  # it would only fail again
            raise
        archive.unlink()
    if not any(downloads.glob("*.zip*")):  # nothing else is on its way
        shutil.rmtree(downloads, ignore_errors=True)
    return out


def _unpack(source: Source, archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            source.pack(opened, folder)
        got = source.verify(folder)
    except _DAMAGED as error:
        raise DownloadError(
            f"{source.url}: what arrived is no whole ZIP archive of pictures ({error}); it was deleted, type the same command again"
        ) from error
    if got != source.content_sha256:
        raise DownloadError(
            f"{source.url}: the content has SHA-256 {got[:16]}..., expected {source.content_sha256[:16]}...; the source was changed, "
            "and nothing was kept"
        )
