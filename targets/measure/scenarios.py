"""The other questions one asks of a board: what gets done offline, is a rate held, how long is a start, and which of two is faster.

Each is answered by a worker of its own (`targets.measure.jobs`), here or on a device. See `targets.measure.bench.bench` for the arguments
and errors that are not named here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.core.bundle import Bundle
from targets.boards import Plan, Target, Wishes
from targets.devices import Device, Job
from targets.devices.received import received
from targets.measure import cold
from targets.measure.bench import as_files, longest_s, side
from targets.measure.loop import Progress
from targets.measure.offline import Offline
from targets.measure.paced import Paced
from targets.measure.versus import Versus


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where and how long to measure, the same for every scenario."""

    target: Target
    device: Device
    quick: bool
    minutes: float | None
    on_progress: Progress


def measure_offline(bundle: Bundle, frames: Sequence[bytes | Path], how: Plan | Wishes, setup: Setup) -> Offline:
    """Take frames as fast as it goes, as many at once as the options have `streams`."""
    return received(Offline, _run("offline", {"": (bundle, how)}, frames, setup, {}), setup.device.name)


def try_open(bundle: Bundle, frames: Sequence[bytes | Path], how: Plan | Wishes, setup: Setup) -> None:
    """Open it once and measure nothing."""
    _run("open", {"": (bundle, how)}, frames[:1], setup, {})


def measure_paced(bundle: Bundle, frames: Sequence[bytes | Path], how: Plan | Wishes, setup: Setup, *, fps: float) -> Paced:
    """Let frames come at a fixed rate."""
    return received(Paced, _run("paced", {"": (bundle, how)}, frames, setup, {"fps": fps}), setup.device.name)


def measure_cold(bundle: Bundle, frames: Sequence[bytes | Path], how: Plan | Wishes, setup: Setup) -> cold.Cold:
    """Start from nothing, again and again, with the runtime's caches and without."""
    raw = _run("cold", {"": (bundle, how)}, frames[:1], setup, {}, cold.longest_s(setup.quick))
    return received(cold.Cold, raw, setup.device.name)


def measure_versus(
    a: Bundle, b: Bundle, frames: Sequence[bytes | Path], how_a: Plan | Wishes, how_b: Plan | Wishes, setup: Setup,
) -> Versus:
    """Compare A with itself, then with B, in interleaved blocks on the same processors."""
    raw = _run("versus", {"a": (a, how_a), "b": (b, how_b)}, frames, setup, {})
    return received(Versus, {**raw, "device": setup.device.address}, setup.device.name)


def _run(
    job: str, sides: Mapping[str, tuple[Bundle, Plan | Wishes]], frames: Sequence[bytes | Path], setup: Setup, more: Mapping[str, Any],
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """Give what the job gave; a side of no name lies in the request itself. `timeout_s`: as for `bench`, if left out."""
    uploads, said = dict[str, Path](), dict[str, Any]()
    for name, (bundle, how) in sides.items():
        place = f"{name or 'bundles'}/{bundle.folder.resolve().name}"
        uploads[place] = bundle.folder
        said.update({name: side(place, setup.target, how)} if name else side(place, setup.target, how))
    with as_files(frames) as files:
        request = {"job": job, "target": setup.target.name, "quick": setup.quick, "minutes": setup.minutes, "files": list(files),
                   **said, **more}
        names = " with ".join(bundle.manifest.name for bundle, _ in sides.values())
        return setup.device.run(Job(request, {**uploads, **files}), what=f"measuring {names} ({job})",
                                timeout_s=timeout_s or longest_s(setup.quick, setup.minutes), on_progress=setup.on_progress)
