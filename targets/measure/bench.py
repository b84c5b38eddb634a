"""Measure a bundle, or two against each other, each time in a fresh process."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import InputMissingError, require_path
from targets.boards import Plan, Target, find_target, plan
from targets.measure.loop import Progress
from targets.measure.process import run_worker
from targets.measure.result import BenchResult, SpeedRatio

QUICK_TIMEOUT_S: Final = 600.0
FULL_TIMEOUT_S: Final = 3600.0


def _silent(stage: str, done: float) -> None:
    pass


def bench(
    bundle: Bundle, frames: Sequence[bytes | Path], *, target: Target | str = "host", how: Plan | None = None, quick: bool = False,
    timeout_s: float | None = None, on_progress: Progress = _silent,
) -> BenchResult:
    """Measure a bundle: load, warm-up until steady, then every step of every frame.

    Args:
        bundle: what to measure.
        frames: image files, or their bytes; taken in order, again and again.
        target: the board whose settings are used; what this machine is goes into `measured_on`.
        how: runtime and options, where they are not the target's own (`targets.boards.plan`).
        quick: at least 50 frames and 1 s instead of 1024 frames and 60 s; stamped in the result.
        timeout_s: the worker is stopped after this.
        on_progress: called with the stage and the share done.

    Raises:
        TargetError: the target or this machine cannot run it; nothing was measured.
        InputMissingError: no frames.
        RuntimeFailure: the runtime crashed (the signal is named) or took too long.
    """
    target = find_target(target) if isinstance(target, str) else target
    how = how or plan(target, bundle.manifest.format, bundle.manifest.precision)
    with _as_files(frames) as files:
        request = {"job": "bench", "target": target.name, "quick": quick, "files": files, **_side(bundle, how)}
        raw = run_worker(request, what=f"measuring {bundle.manifest.name} with {how.runtime}",
                         timeout_s=timeout_s or (QUICK_TIMEOUT_S if quick else FULL_TIMEOUT_S), on_progress=on_progress)
    return BenchResult.from_worker(raw)


def compare(
    a: Bundle, b: Bundle, frames: Sequence[bytes | Path], *, target: Target | str = "host", how_a: Plan | None = None,
    how_b: Plan | None = None, quick: bool = False, timeout_s: float | None = None, on_progress: Progress = _silent,
) -> SpeedRatio:
    """Compare the inference of two bundles in interleaved blocks (ABBA) of one process.

    On a machine that others use too, two measurements taken one after the other differ by more than what is looked for;
    the ratio of interleaved blocks does not. See `bench` for arguments and errors.
    """
    target = find_target(target) if isinstance(target, str) else target
    sides = {
        name: _side(bundle, how or plan(target, bundle.manifest.format, bundle.manifest.precision))
        for name, bundle, how in (("a", a, how_a), ("b", b, how_b))
    }
    with _as_files(frames) as files:
        request = {"job": "compare", "target": target.name, "quick": quick, "files": files, **sides}
        raw = run_worker(request, what=f"comparing {a.manifest.name} with {b.manifest.name}",
                         timeout_s=timeout_s or (QUICK_TIMEOUT_S if quick else FULL_TIMEOUT_S), on_progress=on_progress)
    return SpeedRatio.from_worker(raw)


def sweep(
    bundles: Sequence[Bundle], how: Plan, *, timeout_s: float = FULL_TIMEOUT_S, on_progress: Progress = _silent,
) -> tuple[float, ...]:
    """Milliseconds of one inference of each of many small bundles, which take turns in one process, on noise.

    For cost tables: what slows the machine slows all of them, and with one thread it is the thread's own time that is taken. The least of
    all calls counts (`targets.measure.loop.take_turns`).

    Raises:
        TargetError: this machine cannot run them.
        RuntimeFailure: the runtime crashed (the signal is named) or took too long.
    """
    if not bundles:
        return ()
    request = {"job": "sweep", "bundles": [str(bundle.folder.resolve()) for bundle in bundles], "runtime": how.runtime,
               "options": asdict(how.options)}
    raw = run_worker(request, what=f"measuring {len(bundles)} bundles with {how.runtime}", timeout_s=timeout_s, on_progress=on_progress)
    return tuple(float(value) for value in raw["ms"])


def _side(bundle: Bundle, how: Plan) -> dict[str, Any]:
    return {"bundle": str(bundle.folder.resolve()), "runtime": how.runtime, "options": asdict(how.options)}


@contextlib.contextmanager
def _as_files(frames: Sequence[bytes | Path]) -> Iterator[list[str]]:
    """Paths of all frames; bytes lie in a temporary folder meanwhile."""
    if not frames:
        raise InputMissingError("no frames to measure with; give some image files")
    with tempfile.TemporaryDirectory(prefix="edgeseg-frames-") as folder:
        files = []
        for i, frame in enumerate(frames):
            path = Path(folder) / f"{i:06}" if isinstance(frame, bytes) else require_path(frame, what="frame")
            if isinstance(frame, bytes):
                path.write_bytes(frame)
            files.append(str(path.resolve()))
        yield files
