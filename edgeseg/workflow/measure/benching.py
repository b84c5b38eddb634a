"""`edgeseg bench`: one bundle measured in the ways that were asked for, or two against each other. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.errors import ConfigError, EdgesegError, InputMissingError, require_path
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.measure.bench_words import cold_line, offline_line, paced_line, result_lines, versus_lines
from edgeseg.workflow.places import Place, find_place
from edgeseg.workflow.ui import Ui
from targets.boards import Plan, find_target
from targets.measure.bench import bench as measure
from targets.measure.scenarios import Setup, measure_cold, measure_offline, measure_paced, measure_versus, try_open
from targets.measure.versus import RESTLESS
from targets.tuned import settings_for


@dataclass(frozen=True, kw_only=True)
class Scenarios:
    """What else to measure, each in a process of its own."""

    offline: bool = False
    streams: int = 0
    """Frames at once in the offline scenario; 0 = those of tuned settings, else 1."""
    fps: float | None = None
    """A rate to be held."""
    cold: bool = False


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """What to measure, where, and for how long."""

    folder: Path
    target: str = ""
    """Whose settings; empty = the device's own."""
    device: str = ""
    """Name or address of the machine; empty = this one."""
    quick: bool = False
    minutes: float | None = None
    threads: int = 0
    """0 = what the target has."""
    arithmetic: str = ""
    """Empty = the target's own."""
    untuned: bool = False
    data: Path | None = None
    """Images; `None` = the bundle's golden frames."""
    meter: str = ""
    """A command that prints watts."""
    scenarios: Scenarios = field(default_factory=Scenarios)


@dataclass(frozen=True, kw_only=True)
class Against:
    """The second of two; what is not given is as for the first."""

    folder: Path | None = None
    arithmetic: str = ""
    threads: int = 0

    @property
    def asked(self) -> bool:
        """Anything was given."""
        return self != Against()


@dataclass(frozen=True)
class _Way:
    """A bundle and how it is going to be executed."""

    bundle: Bundle
    how: Plan
    tuned: str
    """What tuned settings have to do with it, in words."""


def bench(request: BenchRequest, ui: Ui) -> Outcome:
    """Measure a bundle on a machine with a target's settings.

    Settings that `edgeseg tune` found for that machine go before the target's own, unless `untuned`. A scenario that fails is
    `Outcome.lost`; what was measured before it is there.

    Raises:
        TargetError: the target does not run this format or precision, or the machine lacks what it needs.
        DeviceError: the device cannot be used.
    """
    _check(request)
    place = find_place(request.device, timed=True, ui=ui)
    target = request.target or place.target
    way = _way(request, place, target)
    frames, setup = _frames(request, way.bundle), _setup(request, place, target, ui)
    offline = _offline_way(request, place, target)
    if offline is not None and offline.how.options.streams > 1:
        try_open(offline.bundle, frames, offline.how, setup)  # not every runtime has streams, and a measurement may take an hour
    result = measure(
        way.bundle, frames, target=target, how=way.how, quick=request.quick, minutes=request.minutes, meter=request.meter,
        on_progress=_shown(ui, "measuring"), device=place.device,
    )
    facts = {**result.to_json(), "frames": _frames_words(request), "tuned": way.tuned or None}
    lines = result_lines(result, place=place, target=target, frames=facts["frames"], tuned=way.tuned)
    held, lost = True, None
    try:
        for name, found, line in _scenarios(request.scenarios, way, offline, frames, setup):
            facts[name], held = found, held and found.get("held", True)
            lines.append(line)
    except EdgesegError as error:
        lost = error
    return Outcome(tuple(lines), {**facts, "lost": None if lost is None else str(lost)}, passed=held, lost=lost)


def versus(request: BenchRequest, against: Against, ui: Ui) -> Outcome:
    """Compare a bundle with another one, or with itself executed otherwise, after an A/A test; undecided where the machine is too restless.

    Raises:
        ConfigError: the two are the same, or a scenario was asked for as well.
        TargetError: the target does not run one of them, or the machine lacks what it needs.
        DeviceError: the device cannot be used.
    """
    if request.scenarios != Scenarios() or request.minutes is not None or request.meter:
        raise ConfigError("--vs compares two and nothing else; leave out --minutes, --power-command, --offline, --fps and --cold")
    place = find_place(request.device, timed=True, ui=ui)
    target = request.target or place.target
    a = _way(request, place, target)
    b = _second(request, against, a, place, target)
    if (a.bundle.manifest.sha256, a.how) == (b.bundle.manifest.sha256, b.how):
        raise ConfigError("both are the same bundle with the same settings; that test is part of every comparison: give another bundle, "
                          "--vs-arithmetic or --vs-threads")
    frames = _frames(request, a.bundle)
    result = measure_versus(a.bundle, b.bundle, frames, a.how, b.how, _setup(request, place, target, ui))
    facts = {**result.to_json(), "frames": _frames_words(request), "tuned": {"a": a.tuned or None, "b": b.tuned or None}}
    restless = result.verdict == RESTLESS
    lines = versus_lines(result, place=place, target=target, frames=facts["frames"], tuned=(a.tuned, b.tuned))
    return Outcome(tuple(lines), facts, passed=not restless, undecided=restless)


def _check(request: BenchRequest) -> None:
    asked = request.scenarios
    if asked.streams and not asked.offline:
        raise ConfigError("--streams goes with --offline: a single stream has one frame at a time")
    if asked.fps is not None and asked.fps <= 0:
        raise ConfigError(f"--fps {asked.fps:g}: expected a rate above 0")
    if request.minutes is not None and request.minutes <= 0:
        raise ConfigError(f"--minutes {request.minutes:g}: expected a time above 0")
    if request.minutes is not None and request.minutes < 1 and not request.quick:
        raise ConfigError(f"--minutes {request.minutes:g}: expected at least 1; for a shorter look, which is stamped so, type --quick")


def _way(request: BenchRequest, place: Place, target: str, *, purpose: str = "latency", asked: str = "") -> _Way:
    """Plan a bundle; where settings were `asked` for, by that option or by --threads or --arithmetic, tuned ones do not count."""
    bundle = open_bundle(require_path(request.folder, what="bundle"))
    how = place.plan(target, bundle.manifest, num_threads=request.threads, precision_hint=request.arithmetic)
    asked = asked or ("--threads" if request.threads else "--arithmetic" if request.arithmetic else "")
    how, tuned = settings_for(
        bundle, how, untuned=request.untuned, asked=asked, purpose=purpose, machine=place.machine, version=place.version(how.runtime),
    )
    return _Way(bundle, how, tuned)


def _second(request: BenchRequest, against: Against, first: _Way, place: Place, target: str) -> _Way:
    """The other one: another bundle, or the first with all its settings, tuned ones too, but for those that were given."""
    given = [words for words in (f"--vs-threads {against.threads}" if against.threads else "",
                                 f"--vs-arithmetic {against.arithmetic}" if against.arithmetic else "") if words]
    if against.folder is not None:
        other = replace(request, folder=against.folder, arithmetic=against.arithmetic or request.arithmetic,
                        threads=against.threads or request.threads)
        return _way(other, place, target, asked=" and ".join(given))
    own = first.how.options
    options = replace(own, num_threads=against.threads or own.num_threads, precision_hint=against.arithmetic or own.precision_hint)
    return _Way(first.bundle, Plan(first.how.runtime, options), f"{first.tuned}; then {' and '.join(given)}" if first.tuned else "")


def _offline_way(request: BenchRequest, place: Place, target: str) -> _Way | None:
    """With the streams that were asked for, else as tuned for throughput; `None` where the scenario was not asked for."""
    asked = request.scenarios
    if not asked.offline:
        return None
    way = _way(request, place, target, purpose="throughput", asked="--streams" if asked.streams else "")
    return replace(way, how=Plan(way.how.runtime, replace(way.how.options, streams=asked.streams))) if asked.streams else way


def _scenarios(
    asked: Scenarios, way: _Way, offline: _Way | None, frames: list[bytes | Path], setup: Setup,
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Measure those that were asked for: name, facts and line of each as it is done."""
    if offline is not None:
        done = measure_offline(offline.bundle, frames, offline.how, setup)
        yield "offline", {**done.to_json(), "tuned": offline.tuned or None}, offline_line(done, offline.tuned)
    if asked.fps is not None:
        paced = measure_paced(way.bundle, frames, way.how, setup, fps=asked.fps)
        yield "paced", paced.to_json(), paced_line(paced)
    if asked.cold:
        cold = measure_cold(way.bundle, frames, way.how, setup)
        yield "cold", cold.to_json(), cold_line(cold)


def _setup(request: BenchRequest, place: Place, target: str, ui: Ui) -> Setup:
    return Setup(target=find_target(target), device=place.device, quick=request.quick, minutes=request.minutes,
                 on_progress=_shown(ui, "measuring"))


def _shown(ui: Ui, label: str) -> Callable[[str, float], None]:
    return lambda stage, done: ui.progress(f"{label}: {stage}", round(100 * min(done, 1.0)), 100)


def _frames(request: BenchRequest, bundle: Bundle) -> list[bytes | Path]:
    found: Sequence[Path] = [bundle.folder / pair.frame for pair in bundle.manifest.golden]
    if request.data is not None:
        from edgeseg.data.dataset import photographs

        found = photographs(require_path(request.data, what="folder"))
    if not found:
        raise InputMissingError(
            f"{request.data or request.folder} holds no images to measure with; type: edgeseg bench {request.folder} --data DIR"
        )
    return list(found)


def _frames_words(request: BenchRequest) -> str:
    return "golden frames of the bundle" if request.data is None else str(request.data)
