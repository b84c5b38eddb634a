"""SDKs are imported where they are opened, through this one helper that names the extra that is missing."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from edgeseg.core.errors import MissingExtraError

_NO_TELEMETRY = {"openvino": "openvino_telemetry", "nncf": "openvino_telemetry"}
"""SDK -> the package by which it reports each use to its vendor, unasked, from a forked process. With that package out of reach
both fall back to a stub of their own."""
_CONVERTERS: Final = {"openvino": ("openvino.tools.ovc", "convert_model")}
"""SDK -> its converter and the function it gives to the SDK's own name space. The SDK imports it where it is there, which takes 60 of 90 ms
and 10 of 23 MB (OpenVINO 2026.4), and goes without where it is not; executing a model does not need it."""
_ONE_AT_A_TIME: Final = threading.RLock()
"""What is out of reach for one import is so for all threads."""


def require(module: str, *, extra: str, install: str = "", converter: bool = False) -> Any:  # noqa: ANN401 - a module has no narrower type
    """Import `module`, or raise `MissingExtraError` with the exact command that installs it: the extra, or `install` where none can.

    `converter` = OpenVINO comes with its own, `convert_model`.
    """
    install = install or f"pip install 'edgeseg[{extra}]'"
    sdk = module.split(".")[0]
    reporter = _NO_TELEMETRY.get(sdk)
    if reporter is not None and reporter not in sys.modules:
        # the documented way to make an import fail
        sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        with _ONE_AT_A_TIME, _converter(sdk, wanted=converter):
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != sdk:
            raise MissingExtraError(f"{module} is installed but needs {error.name}; type: {install}") from error
        raise MissingExtraError(f"{module} is not installed; type: {install}") from error
    except (ImportError, OSError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingExtraError(f"{module} is installed but does not load ({first_line}); type: edgeseg doctor") from error


@contextmanager
def _converter(sdk: str, *, wanted: bool) -> Iterator[None]:
    """Import an SDK without its converter, or see to it that it has it afterwards, even where it was imported without before."""
    converter, function = _CONVERTERS.get(sdk, ("", ""))
    if not converter:
        yield
    elif wanted:
        yield
        setattr(sys.modules[sdk], function, getattr(importlib.import_module(converter), function))
    elif sdk in sys.modules:
        yield
    else:
        sys.modules[converter] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            sys.modules.pop(converter, None)
