"""What the jobs share: the kind of function they are, and facts about the process that measures."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL

from edgeseg import __version__
from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import MissingExtraError
from edgeseg.core.images import Frame, read_frame, to_model
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract
from edgeseg.core.resizers import RESIZERS, need_resizer
from targets.boards import Plan, plan
from targets.measure.loop import Clock, Progress
from targets.measure.result import FULL, QUICK, Limits
from targets.runtimes import RUNTIMES, RuntimeOptions

Work = Callable[[dict[str, Any], Progress, Clock], dict[str, Any]]
"""A job: the request in, its result out, both JSON; it tells its stages, and takes its times from the clock."""

T = TypeVar("T")


def plan_here(side: dict[str, Any], bundle: Bundle) -> Plan:
    """Runtime and options that a request names; where it has `wishes` instead, those its target takes on this machine.

    Raises:
        TargetError: the target does not run the format or the precision.
    """
    if "wishes" in side:
        return plan(side["target"], bundle.manifest.format, bundle.manifest.precision, **side["wishes"])
    return Plan(side["runtime"], RuntimeOptions(**side["options"]))


def limits_of(request: dict[str, Any]) -> Limits:
    """How long a request wants it: quick or full, and `minutes` at least, after a short warm-up, so that the burst is among it."""
    limits = QUICK if request["quick"] else FULL
    minutes = request.get("minutes")
    if minutes is None:
        return limits
    return replace(limits, min_seconds=max(limits.min_seconds, 60 * minutes), warmup_max_seconds=2)


def timed(clock: Clock, call: Callable[[], T]) -> tuple[T, int]:
    """Give what `call` gave, and the nanoseconds it took."""
    start = clock()
    result = call()
    return result, clock() - start


def model_frames(bundle: Bundle, files: list[Path]) -> list[Frame]:
    """First window of each of (at most 16) files at model size."""
    contract = bundle.manifest.contract
    frames = [read_frame(file) for file in files[:16]]
    return [
        to_model(frame, contract.place((frame.shape[0], frame.shape[1])))[0] for frame in frames
    ]


def status_bytes(field: str) -> int | None:
    """VmRSS or VmHWM of this process. getrusage would also count what the parent held when it forked."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def versions(runtime: str, contract: Contract) -> dict[str, str]:
    """Versions of everything that takes part in a measurement."""
    return {
        "edgeseg": __version__, "python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__,
        contract.resizer: _resizer_version(contract.resizer), runtime: RUNTIMES[runtime].version() or "not available",
    }


def resizers() -> dict[str, str]:
    """What can bring frames to model size here (`Contract.resizer`), with its version; imports it, for one that does not load is none."""
    found = {}
    for name in RESIZERS:
        with contextlib.suppress(MissingExtraError):
            found[name] = _resizer_version(name)
    return found


def _resizer_version(resizer: str) -> str:
    need_resizer(resizer)
    version: str = PIL.__version__ if resizer == "pillow" else require("cv2", extra="opencv").__version__
    return version
