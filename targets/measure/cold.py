"""Cold start: from asking for a process to the first class map, with the runtime's caches and without, each start in a fresh process.

The operating system keeps files it has read in memory, and so they are for all starts but the first after boot: what is measured is a
program that starts again, not a machine that was just switched on.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

from edgeseg.core.errors import RuntimeFailure, TargetError
from edgeseg.core.stats import ABOVE_0
from targets.boards import Plan
from targets.measure.loop import Progress
from targets.measure.process import same_error
from targets.runtimes.cache import KEPT

STEPS: Final = ("python", "import", "open", "first_answer", "total")
STARTS: Final = {False: 9, True: 3}
"""Starts of each kind, by `quick`."""
LONGEST_S: Final = 1200.0
"""A start that builds an engine takes minutes."""
SLOW_S: Final = 30.0
"""Where a start without caches takes longer, a third of the rounds have to do."""


@dataclass(frozen=True, kw_only=True)
class Starts:
    """Starts of one kind: medians in milliseconds, and every total."""

    python_ms: float
    """Python itself and what it loads before the first line of ours."""
    import_ms: float
    """numpy, Pillow and edgeseg."""
    open_ms: float
    """Import of the SDK, checking the bundle, loading the model."""
    first_answer_ms: float
    """A file read, resized, answered and brought to frame size."""
    total_ms: Annotated[float, ABOVE_0]
    totals_ms: tuple[float, ...]
    """In order."""


@dataclass(frozen=True, kw_only=True)
class Cold:
    """Cold starts of one bundle."""

    without: Starts
    """With nothing kept from an earlier start."""
    cached: Starts | None
    """With what the runtime kept of an earlier start; `None` where it keeps nothing."""
    no_cache: str
    """Why there are none with caches; empty where there are."""
    quick: bool = False

    @property
    def ratio(self) -> float | None:
        """Total with caches over total without."""
        return None if self.cached is None else self.cached.total_ms / self.without.total_ms

    def to_json(self) -> dict[str, Any]:
        """Give all of it as JSON values."""
        return {**asdict(self), "ratio": self.ratio}


def longest_s(quick: bool) -> float:
    """Seconds that all starts take at most where each builds an engine: a third of the rounds, and the start that fills the caches."""
    return (2 * max(1, STARTS[quick] // 3) + 1) * LONGEST_S


def measure_cold(bundle: str, file: str, how: Plan, rounds: int, on_progress: Progress) -> Cold:
    """Start `rounds` times without and with caches, in turns.

    The start that fills the caches does not count, nor the very first one, unless it is slow: what it takes to read files is then nothing.

    Raises:
        EdgesegError: the very error of a start, or `RuntimeFailure` where it crashed or hung.
    """
    starts: dict[str, list[dict[str, float]]] = {"without": [], "cached": []}
    provider = how.options.provider
    no_cache = "" if (how.runtime, provider) in KEPT else f"{how.runtime} on {provider} keeps nothing between starts"
    done, expected = 0, (1 + rounds) * (1 if no_cache else 2)
    with tempfile.TemporaryDirectory(prefix="cache-", dir=Path.cwd()) as folder:  # the job's own folder, which goes with it

        def start(kind: str) -> dict[str, float]:
            nonlocal done
            cache_dir = folder if kind == "cached" else ""
            found = _start(bundle, file, Plan(how.runtime, replace(how.options, cache_dir=cache_dir)))
            done += 1
            on_progress("cold start", done / expected)
            return found

        first = start("without")  # files are in memory from here on, for both kinds
        if first["total"] > 1e3 * SLOW_S:
            rounds = max(1, rounds // 3)
            expected = (1 + rounds) * (1 if no_cache else 2) - 1
            starts["without"].append(first)
        if not no_cache:
            try:
                start("cached")
            except TargetError as error:  # it ran without, so this is about the cache
                no_cache = str(error).replace(folder, "a folder")
        kinds = ("without",) if no_cache else ("without", "cached")
        for number in range(rounds):
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                if len(starts[kind]) == number:
                    starts[kind].append(start(kind))
    return Cold(without=_summary(starts["without"]), cached=_summary(starts["cached"]) if starts["cached"] else None, no_cache=no_cache)


def _summary(starts: Sequence[Mapping[str, float]]) -> Starts:
    medians = {f"{step}_ms": statistics.median(start[step] for start in starts) for step in STEPS}
    return Starts(**medians, totals_ms=tuple(start["total"] for start in starts))


def _start(bundle: str, file: str, how: Plan) -> dict[str, float]:
    """Start once. Without a cache folder the user's is an empty one: engines of TensorRT are always kept."""
    if not how.options.cache_dir:
        with tempfile.TemporaryDirectory(prefix="no-cache-", dir=Path.cwd()) as empty:
            return _started(bundle, file, how, {**os.environ, "EDGESEG_CACHE": empty})
    return _started(bundle, file, how, dict(os.environ))


def _started(bundle: str, file: str, how: Plan, environ: Mapping[str, str]) -> dict[str, float]:
    request = {"bundle": bundle, "file": file, "runtime": how.runtime, "options": asdict(how.options), "parent_pid": os.getpid()}
    spawned_ns = time.monotonic_ns()
    command = [sys.executable, "-m", "targets.measure.first_answer", json.dumps({**request, "spawned_ns": spawned_ns})]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False, timeout=LONGEST_S, env=environ,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeFailure(f"a cold start with {how.runtime} took more than {LONGEST_S:.0f} s; type: edgeseg doctor") from error
    if done.returncode:
        words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeFailure(f"a cold start with {how.runtime} ended with exit {done.returncode}"
                             + (f" ({words[-1][-200:]})" if words else "") + "; type: edgeseg doctor")
    line = json.loads(done.stdout.splitlines()[-1])
    if "error" in line:
        raise same_error(line["error"])
    return {step: float(line["steps_ms"][step]) for step in STEPS}
