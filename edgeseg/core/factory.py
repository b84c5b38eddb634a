"""The code behind `[model] factory`, hashed without running it: a training depends on it as on its data."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.core.files import sha256_file, sha256_json

if TYPE_CHECKING:
    from edgeseg.core.config import ModelSection


def factory_sha256(section: ModelSection) -> str | None:
    """Hash of all Python files of the package (or of the one module) that `[model] factory` names; `None` = no factory, or no such module.

    What that package imports from others is not covered.
    """
    if not section.factory:
        return None
    package = section.factory.partition(":")[0].partition(".")[0]
    found = PathFinder.find_spec(package, [*sys.path, str(Path.cwd())])  # finds it without importing it
    if found is None:
        return None
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    files = {str(file.relative_to(folder)): file for folder in folders for file in folder.rglob("*.py")}
    if not folders and found.origin:
        files = {"": Path(found.origin)}
    return sha256_json({name: sha256_file(file) for name, file in sorted(files.items())})
