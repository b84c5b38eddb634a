"""The code behind `[model] factory`, hashed without running it: a training depends on it as on its data."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.core.errors import ConfigError
from edgeseg.core.files import sha256_file, sha256_json

if TYPE_CHECKING:
    from edgeseg.core.config import ModelSection


def factory_sha256(section: ModelSection) -> str | None:
    """Hash of all Python files of the package (or of the one module) that `[model] factory` names; `None` = no factory.

    What that package imports from others is not covered.

    Raises:
        ConfigError: it is not "package.module:function", or there is no such package.
    """
    if not section.factory:
        return None
    found = find_factory(section)
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    files = {str(file.relative_to(folder)): file for folder in folders for file in folder.rglob("*.py")}
    if not folders and found.has_location and found.origin:
        files = {"": Path(found.origin)}
    return sha256_json({name: sha256_file(file) for name, file in sorted(files.items())})


def find_factory(section: ModelSection) -> ModuleSpec:
    """Find the package (or the one module) that `[model] factory` names, without importing it.

    Raises:
        ConfigError: it is not "package.module:function", or there is no such package.
    """
    package = factory_names(section)[0].partition(".")[0]
    found = _find(package)
    if found is None:
        raise no_module(section, package)
    return found


def factory_names(section: ModelSection) -> tuple[str, str]:
    """Module and function that `[model] factory` names.

    Raises:
        ConfigError: it is not of that form.
    """
    module, colon, function = section.factory.partition(":")
    if not colon or not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ConfigError(f"[model] factory = '{section.factory}': expected \"package.module:function\"")
    return module, function


def no_module(section: ModelSection, missing: str) -> ConfigError:
    """What to say where there is no module or package `missing`."""
    return ConfigError(f"[model] factory = '{section.factory}': there is no module '{missing}', installed or in {Path.cwd()}; "
                       "start edgeseg in the folder that holds it")


def _find(package: str) -> ModuleSpec | None:
    """Find a package of the top level as an import would, without importing it: on the path, then by finders (editable installs)."""
    found = PathFinder.find_spec(package, [*sys.path, str(Path.cwd())])
    if found is not None:
        return found
    try:
        return importlib.util.find_spec(package)
    except ValueError:  # it is imported, and by nothing that left a trace
        return None
