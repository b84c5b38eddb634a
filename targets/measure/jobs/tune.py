"""Jobs `tune-look`, `tune-try`, `tune-race`: what there is to set; many settings in one process, one after the other; the same in turns.

A setting that the SDK refuses is a row with its reason. One that crashes or hangs takes the process along: the stage, `setting NUMBER`,
says which it was. A call that does not come back is ended by the kernel (SIGALRM), for no Python may run while an SDK computes.
"""

from __future__ import annotations

import signal
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import open_bundle
from edgeseg.core.errors import EdgesegError
from edgeseg.core.images import Frame
from edgeseg.core.instance_metrics import match
from edgeseg.core.instances import Answer, Instances, as_instances
from edgeseg.core.manifest import Contract
from edgeseg.core.stats import nearest_rank
from targets.boards import find_target, measured_on
from targets.machine import describe_machine
from targets.measure.jobs.base import model_frames
from targets.measure.loop import Clock, Progress, cycle
from targets.runtimes import RUNTIMES, RuntimeOptions, open_session, own_arithmetic
from targets.runtimes.base import Session
from targets.verify import check_golden

SETTLE_CALLS: Final = 2
SETTLE_NS: Final = 5_000_000
"""A turn begins with calls that do not count, at least as many and as long: threads of the session before it spin for a while, which has
been seen to double another session's times (github.com/microsoft/onnxruntime issue 17011)."""
TURN_CALLS: Final = 10
"""Calls of a turn that count, at least where they take less than `LONG_NS` together: p90 is then not the slowest of them."""
LONG_NS: Final = 1_000_000_000
"""A turn, or its settling, that took so long ends with the call in hand: a network that takes a second a frame is not called ten times."""
TRY_TURNS: Final = 2
TRY_CALLS: Final = 4
MAX_COMPARED: Final = 4
"""Frames whose answers are compared with those of the first setting, besides the golden ones."""


def look_around(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Say what this machine is, and what decides which settings are worth trying."""
    machine, runtime = describe_machine(), request["runtime"]
    return {
        "machine": asdict(machine), "smt": _smt(), "version": RUNTIMES[runtime].version(), "arithmetic": own_arithmetic(runtime),
        "measured_on": asdict(measured_on(find_target(request["target"]), machine)),
    }


def try_settings(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Open every setting once: what it pins, whether it answers as the first one does, and about how long it takes.

    Gives `rows`, one a setting, with `refused` or with `golden` (share as sealed), `same` (share as the first setting's answers),
    `settings` and `cost_ms`.
    """
    bundle, runtime = open_bundle(Path(request["bundle"])), request["runtime"]
    frames = model_frames(bundle, [Path(file) for file in request["files"]])
    rows: list[dict[str, Any]] = []
    first: list[Answer] = []
    for place, (number, raw) in enumerate(request["settings"]):
        on_progress(f"setting {number}", place / len(request["settings"]))
        options = RuntimeOptions(**raw)
        try:
            with _Limit(request["limit_s"]) as limit:
                session = open_session(bundle, runtime, options)
                limit.renew(calls=len(bundle.manifest.golden))
                golden = check_golden(bundle, session)
                limit.renew(calls=MAX_COMPARED)
                answers = [session.run(frame) for frame in frames[:MAX_COMPARED]]
                first = first or answers
                turn = _Turn(session, bundle.manifest.contract, options, frames, request["purpose"], limit, clock)
                cost_ms = min(turn(TRY_CALLS, 0.0) for _ in range(TRY_TURNS))
                rows.append({"golden": golden, "same": _same(first, answers), "settings": dict(session.settings), "cost_ms": cost_ms})
                session.close()
        except EdgesegError as error:
            if place == 0:
                raise
            rows.append({"refused": str(error)})
        except MemoryError:
            if place == 0:
                raise
            rows.append({"refused": "not enough memory"})
    return {"rows": rows}


def race_settings(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Let settings take turns, forwards and backwards (ABBA); give `costs`: milliseconds a frame of each block, for each setting.

    The cost of a block is the nearest-rank 90th percentile of its calls for `latency`, and for `throughput` the inverse of the frames a
    second that as many callers as there are streams get answered.
    """
    bundle, runtime = open_bundle(Path(request["bundle"])), request["runtime"]
    frames = model_frames(bundle, [Path(file) for file in request["files"]])
    settings, blocks = request["settings"], request["blocks"]
    turns: list[_Turn] = []
    with _Limit(request["limit_s"]) as limit:
        for number, raw in settings:
            on_progress(f"setting {number}", 0.0)
            limit.renew()
            options = RuntimeOptions(**raw)
            session = open_session(bundle, runtime, options)
            turns.append(_Turn(session, bundle.manifest.contract, options, frames, request["purpose"], limit, clock))
            turns[-1](TURN_CALLS, request["warm_up_s"])
        costs: list[list[float]] = [[] for _ in turns]
        for block in range(blocks):
            order = range(len(turns)) if block % 2 == 0 else reversed(range(len(turns)))
            for place in order:
                on_progress(f"setting {settings[place][0]}", block / blocks)
                costs[place].append(turns[place](TURN_CALLS, request["block_s"]))
        for turn in turns:
            turn.session.close()
    return {"costs": costs}


class _Limit:
    """Lets the kernel end the process when nothing renews it in time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> _Limit:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self.renew()
        return self

    def renew(self, more_s: float = 0.0, *, calls: int = 1) -> None:
        """Start anew: the limit for each of so many calls, and `more_s` on top."""
        signal.setitimer(signal.ITIMER_REAL, self._seconds * calls + more_s)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Turn:
    """One setting's turns."""

    def __init__(
        self, session: Session, contract: Contract, options: RuntimeOptions, frames: Sequence[Frame], purpose: str, limit: _Limit,
        clock: Clock,
    ) -> None:
        self.session = session
        self._callers = [cycle(session, contract, [*frames[i:], *frames[:i]]) for i in range(options.streams)]
        self._throughput = purpose == "throughput"
        self._limit, self._clock = limit, clock

    def __call__(self, calls: int, seconds: float) -> float:
        """Settle, then call at least so often and so long; give the cost in milliseconds a frame."""
        start = now = self._clock()
        done = 0
        while not _enough(done, SETTLE_CALLS, now - start, SETTLE_NS):
            self._limit.renew()
            self._callers[0]()
            done += 1
            now = self._clock()
        expected_s = (now - start) / 1e9 / done
        self._limit.renew(4 * (seconds + calls * expected_s))
        if not self._throughput:
            return nearest_rank(_times(self._callers[0], calls, seconds, self._clock), 90) / 1e6
        return 1e3 / _together(self._callers, calls, seconds, self._clock)


def _enough(done: int, calls: int, spent_ns: int, least_ns: float) -> bool:
    """Whether a turn has been long enough: as many calls, or `LONG_NS`; and at least one, and so much time."""
    return done > 0 and spent_ns >= least_ns and (done >= calls or spent_ns >= LONG_NS)


def _times(call: Callable[[], object], calls: int, seconds: float, clock: Clock) -> array[int]:
    """Nanoseconds of each call."""
    times = array("q")
    start = before = clock()
    while not _enough(len(times), calls, before - start, seconds * 1e9):
        call()
        after = clock()
        times.append(after - before)
        before = after
    return times


def _together(callers: Sequence[Callable[[], object]], calls: int, seconds: float, clock: Clock) -> float:
    """Frames a second of callers that work side by side: all go on until each has called often or long enough; what is in hand counts.

    Raises:
        BaseException: whatever the first caller that failed raised.
    """
    if len(callers) == 1:
        times = _times(callers[0], calls, seconds, clock)
        return len(times) * 1e9 / sum(times)
    done, rates, errors = [0] * len(callers), [0.0] * len(callers), list[BaseException]()
    ready = threading.Barrier(len(callers))

    def work(mine: int) -> None:
        try:
            callers[mine]()
            ready.wait()
            start = now = clock()
            while not errors and not _enough(min(done), calls, now - start, seconds * 1e9):
                callers[mine]()
                done[mine] += 1
                now = clock()
            rates[mine] = done[mine] * 1e9 / (now - start)
        except threading.BrokenBarrierError:
            return
        except BaseException as error:
            errors.append(error)
            ready.abort()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(len(callers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(rates)


def _same(first: Sequence[Answer], answers: Sequence[Answer]) -> float:
    """Share of pixels, or of objects, that two settings answer alike; of the frame where it is least."""
    shares = []
    for a, b in zip(first, answers, strict=True):
        if isinstance(a, Instances):
            share = match(as_instances(a), as_instances(b)).share
            shares.append(1.0 if share is None else share)
        else:
            shares.append(float(np.mean(np.asarray(a) == np.asarray(b))))
    return min(shares)


def _smt(root: Path = Path("/")) -> bool:
    """Whether processors share cores, as far as the machine says so."""
    try:
        return (root / "sys/devices/system/cpu/smt/active").read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False
