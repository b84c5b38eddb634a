"""What `edgeseg bench` prints. What was not measured is "not available", and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from edgeseg.core.early_stopping import frames_needed
from edgeseg.workflow.bundles import executed_lines
from edgeseg.workflow.places import Place
from targets.measure.cold import Cold, Starts
from targets.measure.offline import Offline
from targets.measure.paced import Paced
from targets.measure.result import BenchResult
from targets.measure.versus import FASTER, NO_DIFFERENCE, RESTLESS, SLOWER, PairedRatio, Side, Versus
from targets.runtimes import RuntimeOptions


def result_lines(result: BenchResult, *, place: Place, target: str, frames: str, tuned: str) -> list[str]:
    """A single stream: latencies by part, the start, what went on around it."""
    parts = (("inference", result.inference), ("decode", result.decode), ("resize", result.resize), ("resize back", result.resize_back),
             ("end to end", result.end_to_end))
    elsewhere = "" if place.is_here else f", {place.label}"
    elsewhere += "" if result.measured_on.is_target else f" NOT THE TARGET ({target})"
    return [
        f"{result.bundle} in {result.runtime} {result.versions.get(result.runtime, '')}, {result.num_threads} threads, "
        f"on {result.measured_on.machine}{elsewhere}{' QUICK' if result.quick else ''}",
        f"frames: {frames}; {result.inference.num_frames} measured after {result.warmup_frames} of warm-up"
        + ("" if result.steady else " (NOT STEADY: medians still moved)"),
        *(f"  {name:<12} p50 {s.p50_ms:8.3f}  p90 {s.p90_ms:8.3f}  p99 {s.p99_ms:8.3f} ms  {s.fps:8.1f} per second" for name, s in parts),
        _early_stopping_line(result),
        f"load {result.load_ms:.0f} ms, first inference {result.first_inference_ms:.1f} ms, size {result.size_bytes / 1e6:.2f} MB, "
        + ("peak memory not available" if result.peak_rss_bytes is None else f"peak memory {result.peak_rss_bytes / 1e6:.0f} MB"),
        *_around_lines(result),
        *executed_lines(result.executed, result.precision),
        *([f"settings: {tuned}"] if tuned else []),
        "settings: " + ", ".join(f"{key}={value}" for key, value in result.settings.items()),
    ]


def offline_line(found: Offline, tuned: str) -> str:
    """Throughput, and how many frames at once."""
    words = f"; {tuned}" if tuned else ""
    return (f"offline: {found.fps:.1f} per second, {found.at_once} at once on {found.num_threads} threads "
            f"({found.frames} frames in {found.seconds:.0f} s){_stamps(found)}{words}")


def paced_line(found: Paced) -> str:
    """Whether a rate is held."""
    period_ms = 1e3 / found.fps
    slowest = "" if found.latency is None else f"; p99 {found.latency.p99_ms:.1f}, slowest {found.latency.max_ms:.1f} of {period_ms:.1f} ms"
    if found.held:
        return f"at {found.fps:g} per second: held, none of {found.frames} frames missed{slowest}{_stamps(found)}"
    return (f"at {found.fps:g} per second: NOT HELD, {found.missed} of {found.frames} frames missed "
            f"({found.late} late, {found.lost} lost), at most {found.longest_run} in a row{slowest}{_stamps(found)}")


def _stamps(found: Offline | Paced) -> str:
    return (" QUICK" if found.quick else "") + ("" if found.steady else " (NOT STEADY when it began)")


def cold_line(found: Cold) -> str:
    """The start, by its steps, with caches and without."""
    plain = f"cold start{' QUICK' if found.quick else ''}: {_starts_words(found.without)}"
    if found.cached is None:
        return f"{plain}; with caches not available: {found.no_cache}"
    return f"{plain}; with caches {_starts_words(found.cached)}: {found.ratio:.2f} of it"


def versus_lines(result: Versus, *, place: Place, target: str, frames: str, tuned: tuple[str, str]) -> list[str]:
    """Both, the null test, both ratios, the verdict."""
    where = result.measured_on.machine + ("" if place.is_here else f", {place.label}")
    where += "" if result.measured_on.is_target else f" NOT THE TARGET ({target})"
    pinned = "not held to processors (only Linux can)" if result.cpus is None else f"held to processors {', '.join(map(str, result.cpus))}"
    holds = "which is 1" if result.null_inference.is_one else "which is NOT 1"
    again = ", without --quick" if result.quick and result.verdict == RESTLESS else ""
    return [
        f"A: {_side_words(result.a, tuned[0])}",
        f"B: {_side_words(result.b, tuned[1])}",
        f"on {where}{' QUICK' if result.quick else ''}, {pinned}; {result.pairs} pairs of blocks of {result.frames_per_block} frames, "
        f"ABBA; frames: {frames}",
        _load_line(result.load),
        f"A against itself: {_ratio_words(result.null_inference)}, {holds}; file to class map {_ratio_words(result.null_end_to_end)}",
        f"A over B, network alone: {_ratio_words(result.inference)}; "
        f"p50 {result.a.inference_p50_ms:.3f} -> {result.b.inference_p50_ms:.3f} ms",
        f"A over B, file to class map: {_ratio_words(result.end_to_end)}; "
        f"p50 {result.a.end_to_end_p50_ms:.3f} -> {result.b.end_to_end_p50_ms:.3f} ms",
        f"verdict: {_VERDICTS[result.verdict]}{again}" + ("" if result.steady else " (NOT STEADY when it began)"),
    ]


_VERDICTS: Mapping[str, str] = {
    RESTLESS: "NONE: this machine is too restless to tell; stop other programs and type the same again",
    FASTER: "B is faster",
    SLOWER: "B is slower",
    NO_DIFFERENCE: "no difference beyond that of A from itself",
}


def _early_stopping_line(result: BenchResult) -> str:
    def said(percent: int, value: float | None) -> str:
        return f"p{percent} " + (f"not available (needs {frames_needed(percent)} frames)" if value is None else f"{value:.3f} ms")

    stats = result.end_to_end
    return (f"end to end by MLPerf's early stopping, 99 % confidence: {said(90, stats.p90_early_stopping_ms)}, "
            f"{said(99, stats.p99_early_stopping_ms)}")


def _around_lines(result: BenchResult) -> list[str]:
    lines = [] if result.throttling is None else [f"speed {result.throttling['words']}"]
    if result.drift is not None:
        lines.append(f"drift: {result.drift['change']:+.1%} over the measurement; greatest step {result.drift['step']:.3f} times "
                     f"at {result.drift['step_at_s']:.0f} s")
    if result.energy is not None:
        one = result.energy
        lines.append(f"energy: {one['per_frame_j']:.4g} J a frame above rest, {one['per_frame_with_idle_j']:.4g} J in all "
                     f"({one['mean_w']:.2f} W, at rest {one['idle_w']:.2f} W; {one['source']}: {one['covers']})")
    else:
        lines.append(f"energy: not available{f': {result.energy_absent}' if result.energy_absent else ''}")
    return lines if result.load is None else [*lines, _load_line(result.load)]


def _load_line(load: Mapping[str, float | None]) -> str:
    def share(name: str) -> str:
        value = load[name]
        return "not available" if value is None else f"{value:.0%}"

    average = load["load_average_before"]
    return (f"other programs: {share('others_before')} of all processors before, {share('others_during')} meanwhile; "
            f"load average {'not available' if average is None else f'{average:.2f}'} before")


def _starts_words(starts: Starts) -> str:
    return (f"{starts.total_ms:.0f} ms (python {starts.python_ms:.0f}, import {starts.import_ms:.0f}, open {starts.open_ms:.0f}, "
            f"first answer {starts.first_answer_ms:.0f})")


def _side_words(one: Side, tuned: str) -> str:
    options, plain = one.options, asdict(RuntimeOptions())
    more = {name: options[name] for name in ("device", "streams", "delegate") if options[name] != plain[name]} | dict(options["extra"])
    return (f"{one.bundle} ({one.format}, {one.precision}) in {one.runtime} {one.versions.get(one.runtime, '')}, "
            f"{options['num_threads']} threads, {options['provider']}, {options['precision_hint']}"
            + "".join(f", {name}={value}" for name, value in more.items()) + (f"; {tuned}" if tuned else ""))


def _ratio_words(ratio: PairedRatio) -> str:
    return f"{ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
