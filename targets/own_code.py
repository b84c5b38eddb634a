"""Which edgeseg this is, by content: two of one version may differ, and what measures with other code gives other numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import edgeseg


@cache
def code_sha256() -> str:
    """SHA-256 of every Python file of `edgeseg` and `targets` as they lie here: the same in a checkout and in a wheel made of it."""
    return sha256_of_code((Path(edgeseg.__file__).resolve().parent, Path(__file__).resolve().parent))


def sha256_of_code(packages: Iterable[Path]) -> str:
    """SHA-256 of the names and contents of the Python files of some packages; where the packages lie does not count."""
    digest = hashlib.sha256()
    for package in packages:
        for name, path in sorted((path.relative_to(package.parent).as_posix(), path) for path in package.rglob("*.py")):
            data = path.read_bytes()
            digest.update(f"{name}\0{len(data)}\0".encode())
            digest.update(data)
    return digest.hexdigest()
