"""Download one file so that a cut, a stall or a lie of the network costs time and never truth.

What has arrived lies in `NAME.part`, with its address and validator in `NAME.part.json`; the next attempt, or the next process, goes on
from there with `Range` and `If-Range` (RFC 9110, sections 13.1.5 and 14.2). A server that cannot do ranges is begun again from zero.
"""

from __future__ import annotations

import errno
import http.client
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edgeseg import __version__
from edgeseg.core.errors import DownloadError, OutputError
from edgeseg.core.files import fsync_folder, read_json, write_json

ATTEMPTS: Final = 5
STALL_S: Final = 30.0
"""A connection that sends nothing for so long is given up and tried again."""
_CHUNK: Final = 1 << 16
_FOREVER_WRONG: Final = frozenset({400, 401, 403, 404, 410, 451})

Progress = Callable[[int, int | None], None]
"""(bytes there, bytes in all or None where the server does not say)."""


def download(
    url: str, target: Path, *, progress: Progress | None = None, say: Callable[[str], None] | None = None, stall_s: float = STALL_S,
    attempts: int = ATTEMPTS, sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch `url` to `target`, which appears complete or not at all; found there, it is not fetched again.

    An attempt that brought new bytes does not count against `attempts`: a slow line that is cut again and again still ends. `say` takes a
    line for every attempt that failed and is followed by another.

    Raises:
        DownloadError: the server refuses, cannot be reached, sends less than it announced, or does not answer as HTTP says.
        OutputError: the disk is too small for what the server announced.
    """
    if target.is_file():
        return target
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    failed = 0
    while True:
        before = _size(part)
        try:
            _attempt(url, part, stall_s, progress)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code in _FOREVER_WRONG:
                raise DownloadError(f"{url}: the server answers {error.code} {error.reason}; the source may have moved") from error
            if _is_local(error):
                raise
            failed = 1 if _size(part) > before else failed + 1
            words = _words(error, url)
            if failed >= attempts:
                kept = f"{_size(part) / 1e6:.1f} MB are kept, the same command goes on" if _size(part) else "nothing has arrived"
                raise DownloadError(f"{url}: {words}, {attempts} times in a row; {kept}") from error
            wait_s = min(2.0**failed, 30.0)
            if say is not None:
                say(f"{url}: {words}; trying again in {wait_s:.0f} s ({failed} of {attempts} attempts failed)")
            sleep(wait_s)
    part.rename(target)
    _note(part).unlink(missing_ok=True)
    fsync_folder(target.parent)
    return target


def _attempt(url: str, part: Path, stall_s: float, progress: Progress | None) -> None:
    there = _size(part)
    validator = _validator(part, url) if there else None
    if there and validator is None:
        part.unlink()  # of another address, or of a server that gave nothing to compare by
        there = 0
    request = urllib.request.Request(url, headers={"User-Agent": f"edgeseg/{__version__}", "Accept-Encoding": "identity"})
    if validator is not None:
        request.add_header("Range", f"bytes={there}-")
        request.add_header("If-Range", validator)
    try:
        answer = urllib.request.urlopen(request, timeout=stall_s)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what lies there does not fit what the server has now
            part.unlink(missing_ok=True)
        raise
    with answer:
        start = _start(answer, there)
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else None
        _check_space(part, None if total is None else total - start)
        new = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        write_json(_note(part), {"url": url, "validator": None if new is None or new.startswith("W/") else new})
        with part.open("ab" if start else "wb") as stream:
            got = start
            while chunk := answer.read1(_CHUNK):  # what arrived before a stall is kept
                stream.write(chunk)
                got += len(chunk)
                if progress is not None:
                    progress(got, total)
        if total is not None and got != total:
            raise http.client.IncompleteRead(b"", total - got)


def _start(answer: Any, there: int) -> int:  # noqa: ANN401 - http.client.HTTPResponse behind urllib's type
    """Where the bytes of this answer belong.

    Raises:
        http.client.HTTPException: a partial answer to another question than the one asked.
    """
    if answer.status != 206:
        return 0
    said = str(answer.headers.get("Content-Range", ""))
    if not said.startswith(f"bytes {there}-"):
        raise http.client.HTTPException(f"asked for the bytes from {there}, was sent '{said or 'a range without saying which'}'")
    return there


def _check_space(part: Path, wanted: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if wanted is not None and wanted > free:
        raise OutputError(f"{part.parent}: {wanted / 1e6:.0f} MB are to come and {free / 1e6:.0f} MB are free; choose another --out")


def _validator(part: Path, url: str) -> str | None:
    try:
        note = read_json(_note(part))
    except (OSError, ValueError):
        return None
    return note.get("validator") if isinstance(note, dict) and note.get("url") == url else None


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _is_local(error: Exception) -> bool:
    """Whether this machine failed (disk, permission) rather than the network: such an error names a file, or a state of the disk."""
    if not isinstance(error, OSError) or isinstance(error, urllib.error.URLError):
        return False
    return error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def _words(error: Exception, url: str) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection was cut {error.expected or 0} bytes before the end"
    if isinstance(error, TimeoutError):
        return "nothing arrived in time"
    reason = getattr(error, "reason", None) or error
    proxy = _proxy(url)
    return f"the connection{f' through the proxy {proxy}' if proxy else ''} failed ({reason})"


def _proxy(url: str) -> str:
    """HOST:PORT of the proxy that urllib asks for `url`, without the password that its address may hold; "" = none."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    return proxy.rpartition("@")[2].rpartition("//")[2].rstrip("/")
