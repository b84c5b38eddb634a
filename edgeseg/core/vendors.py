"""What every room that drives a vendor's converter needs: silence, and the versions for the manifest."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import IO


@contextmanager
def quiet() -> Iterator[None]:
    """Silence a converter: Python warnings, logging, and what Python or native code writes to the terminal.

    If the block raises, what was held back goes to the log `edgeseg.vendor` at level DEBUG.
    """
    import logging  # not loaded by who runs a bundle

    _flush()
    disabled = logging.root.manager.disable
    saved = [os.dup(1), os.dup(2)]
    with _held_back() as held:
        try:
            os.dup2(held.fileno(), 1)
            os.dup2(held.fileno(), 2)
            logging.disable(logging.CRITICAL)
            with warnings.catch_warnings(), io.TextIOWrapper(io.FileIO(os.dup(held.fileno()), "w"), write_through=True) as text:
                warnings.simplefilter("ignore")
                with redirect_stdout(text), redirect_stderr(text):  # a notebook's or a test's streams do not end in 1 and 2
                    yield
        except BaseException:
            _flush()
            held.seek(0)
            logging.disable(disabled)
            logging.getLogger("edgeseg.vendor").debug("%s", held.read().decode(errors="replace"))
            raise
        finally:
            _flush()
            for descriptor, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)
            logging.disable(disabled)


def _held_back() -> IO[bytes]:
    """A file without a name: in memory where the system has that, since a board's disk may be full or read-only."""
    if sys.platform == "linux" and hasattr(os, "memfd_create"):  # some builds of Python have none: python-build-standalone's, old glibc
        return os.fdopen(os.memfd_create("edgeseg-held-back"), "w+b")
    import tempfile

    return tempfile.TemporaryFile()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def versions(*packages: str) -> dict[str, str]:
    """Installed versions by package name; a package that is absent is left out."""
    from importlib.metadata import PackageNotFoundError, version  # not loaded by who runs a bundle

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
