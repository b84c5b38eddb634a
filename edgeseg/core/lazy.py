"""SDKs are imported where they are opened, through this one helper that names the extra that is missing."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from edgeseg.core.errors import MissingExtraError

_NO_TELEMETRY = {"openvino": "openvino_telemetry", "nncf": "openvino_telemetry"}
"""SDK -> the package by which it reports each use to its vendor, unasked, from a forked process. With that package out of reach
both fall back to a stub of their own."""


def require(module: str, *, extra: str, install: str = "") -> Any:  # noqa: ANN401 - a module has no narrower type
    """Import `module`, or raise `MissingExtraError` with the exact command that installs it: the extra, or `install` where none can."""
    install = install or f"pip install 'edgeseg[{extra}]'"
    reporter = _NO_TELEMETRY.get(module.split(".")[0])
    if reporter is not None and reporter not in sys.modules:
        # the documented way to make an import fail
        sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise MissingExtraError(f"{module} is installed but needs {error.name}; type: {install}") from error
        raise MissingExtraError(f"{module} is not installed; type: {install}") from error
    except (ImportError, OSError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingExtraError(f"{module} is installed but does not load ({first_line}); type: edgeseg doctor") from error
