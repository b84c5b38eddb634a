"""Measure a bundle, or two against each other, each time in a fresh process, on this machine or on a device."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import InputMissingError, require_path
from targets.boards import Plan, Target, Wishes, find_target, plan
from targets.devices import Device, Job, LocalDevice
from targets.devices.received import received
from targets.measure.loop import Progress
from targets.measure.process import run_worker
from targets.measure.result import BenchResult, SpeedRatio

QUICK_TIMEOUT_S: Final = 600.0
FULL_TIMEOUT_S: Final = 3600.0


def silent(stage: str, done: float) -> None:
    """Show no progress."""


def bench(
    bundle: Bundle, frames: Sequence[bytes | Path], *, target: Target | str = "host", how: Plan | Wishes | None = None, quick: bool = False,
    minutes: float | None = None, meter: str = "", timeout_s: float | None = None, on_progress: Progress = silent,
    device: Device | None = None,
) -> BenchResult:
    """Measure a bundle: load, warm-up until steady, then every step of every frame.

    Args:
        bundle: what to measure.
        frames: image files, or their bytes; taken in order, again and again.
        target: the board whose settings are used; what the machine is that measures goes into `measured_on`.
        how: runtime and options, where they are not the target's own (`targets.boards.plan`); for another machine what is
            wished, since it knows itself what it has.
        quick: at least 50 frames and 1 s instead of 1024 frames and 60 s; stamped in the result.
        minutes: measure at least this long, after a short warm-up, to see whether the machine holds its speed.
        meter: a command that prints watts (`targets.telemetry.command.power_command`); empty = the board's own sensors.
        timeout_s: the worker is stopped after this.
        on_progress: called with the stage and the share done.
        device: where to measure; `None` = this machine.

    Raises:
        TargetError: the target or the machine cannot run it; nothing was measured.
        InputMissingError: no frames.
        DeviceError: the device cannot be reached or used.
        RuntimeFailure: the runtime crashed (the signal is named) or took too long.
    """
    target = find_target(target) if isinstance(target, str) else target
    device = device or LocalDevice()
    how = how or own_way(target, bundle, device)
    place = f"bundles/{bundle.folder.resolve().name}"
    with as_files(frames) as files:
        request = {"job": "bench", "target": target.name, "quick": quick, "minutes": minutes, "meter": meter, "files": list(files),
                   **side(place, target, how)}
        raw = device.run(Job(request, {place: bundle.folder, **files}), what=f"measuring {bundle.manifest.name}{_with(how)}",
                         timeout_s=timeout_s or longest_s(quick, minutes), on_progress=on_progress)
    return received(BenchResult, {**raw, "device": device.address}, device.name)


def compare(
    a: Bundle, b: Bundle, frames: Sequence[bytes | Path], *, target: Target | str = "host", how_a: Plan | Wishes | None = None,
    how_b: Plan | Wishes | None = None, quick: bool = False, timeout_s: float | None = None, on_progress: Progress = silent,
    device: Device | None = None,
) -> SpeedRatio:
    """Compare the inference of two bundles in interleaved blocks (ABBA) of one process.

    On a machine that others use too, two measurements taken one after the other differ by more than what is looked for;
    the ratio of interleaved blocks does not. See `bench` for arguments and errors.
    """
    target = find_target(target) if isinstance(target, str) else target
    device = device or LocalDevice()
    places = {"a": f"a/{a.folder.resolve().name}", "b": f"b/{b.folder.resolve().name}"}
    sides = {
        name: side(places[name], target, how or own_way(target, bundle, device))
        for name, bundle, how in (("a", a, how_a), ("b", b, how_b))
    }
    with as_files(frames) as files:
        job = Job({"job": "compare", "target": target.name, "quick": quick, "files": list(files), **sides},
                  {places["a"]: a.folder, places["b"]: b.folder, **files})
        raw = device.run(
            job, what=f"comparing {a.manifest.name} with {b.manifest.name}",
            timeout_s=timeout_s or longest_s(quick), on_progress=on_progress,
        )
    return received(SpeedRatio, raw, device.name)


def sweep(
    bundles: Sequence[Bundle], how: Plan, *, timeout_s: float = FULL_TIMEOUT_S, on_progress: Progress = silent,
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


def longest_s(quick: bool, minutes: float | None = None) -> float:
    """Seconds after which a measurement is stopped where nobody says."""
    return (QUICK_TIMEOUT_S if quick else FULL_TIMEOUT_S) + 60 * (minutes or 0)


def own_way(target: Target, bundle: Bundle, device: Device) -> Plan | Wishes:
    """The target's own way: planned here for this machine, there for another one."""
    return plan(target, bundle.manifest.format, bundle.manifest.precision) if isinstance(device, LocalDevice) else Wishes()


def _with(how: Plan | Wishes) -> str:
    return "" if isinstance(how, Wishes) else f" with {how.runtime}"


def side(place: str, target: Target, how: Plan | Wishes) -> dict[str, Any]:
    """What a request says of a bundle at `place` in the job's folder, and of how to run it (`targets.measure.jobs.base.plan_here`)."""
    if isinstance(how, Wishes):
        return {"bundle": place, "target": target.name, "wishes": how._asdict()}
    return {"bundle": place, "runtime": how.runtime, "options": asdict(how.options)}


@contextlib.contextmanager
def as_files(frames: Sequence[bytes | Path]) -> Iterator[dict[str, Path]]:
    """All frames as uploads of a job, in order; bytes lie in a temporary folder meanwhile."""
    if not frames:
        raise InputMissingError("no frames to measure with; give some image files")
    with tempfile.TemporaryDirectory(prefix="edgeseg-frames-") as folder:
        files: dict[str, Path] = {}
        for i, frame in enumerate(frames):
            path = Path(folder) / f"{i:06}" if isinstance(frame, bytes) else require_path(frame, what="frame")
            if isinstance(frame, bytes):
                path.write_bytes(frame)
            files[f"frames/{i:06}/{path.name}"] = path
        yield files
