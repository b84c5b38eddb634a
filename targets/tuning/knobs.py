"""What can be set in each runtime, as data. To tune something more: a `Knob`, and its name in the runtime's line of `KNOBS`.

What is no knob stays as the runtime pins it: the graph optimisation level (always all of it), the frame's layout (the contract's), what a
TensorRT engine is built for, and whatever trades answers for speed but the precision hint, which is judged by its answers
(`targets.tuning.tune`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edgeseg.core.errors import TargetError
from targets.boards.base import Plan
from targets.runtimes.options import PRECISION_HINTS, RuntimeOptions

PURPOSES: Final = ("latency", "throughput")
EVERY_THREAD_COUNT: Final = 8
"""Processors up to which every number of threads is tried; above, powers of two, three quarters and all."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """What decides which values are worth trying on a machine."""

    cores: int
    """Processors the process may use."""
    smt: bool
    """Several of them share a core, and the machine says so."""
    arithmetic: str
    """What the runtime would compute float parts in by its own choice (`targets.runtimes.own_arithmetic`)."""


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One thing that can be set."""

    field: str
    """Of `RuntimeOptions`; `extra.NAME` for a setting by the runtime's own name."""
    values: Callable[[Board, str], tuple[Any, ...]]
    """What to try on a board for a purpose."""
    choices: tuple[Any, ...] = ()
    """All it can stand at; empty = any whole number from 1 to the machine's processors."""

    def knows(self, value: object, cores: int) -> bool:
        """Tell whether it can stand at this on a machine with so many processors."""
        if not self.choices:
            return type(value) is int and 1 <= value <= cores
        return any(type(value) is type(choice) and value == choice for choice in self.choices)

    def put(self, options: RuntimeOptions, value: Any) -> RuntimeOptions:  # noqa: ANN401 - int, str or bool
        """Give the options with this value."""
        head, _, name = self.field.partition(".")
        return replace(options, extra={**options.extra, name: value}) if name else replace(options, **{head: value})


def thread_counts(cores: int) -> tuple[int, ...]:
    """Numbers of threads worth trying, in order."""
    if cores <= EVERY_THREAD_COUNT:
        return tuple(range(1, cores + 1))
    powers = [1 << n for n in range(cores.bit_length()) if 1 << n <= cores]
    return tuple(sorted({*powers, cores * 3 // 4, cores}))


def _stream_counts(board: Board, purpose: str) -> tuple[int, ...]:
    return (1,) if purpose == "latency" else thread_counts(board.cores)


def _switch(field: str, *choices: str | bool) -> Knob:
    """A knob all of whose choices are tried."""
    return Knob(field=field, values=lambda board, purpose: choices, choices=choices)


THREADS: Final = Knob(field="num_threads", values=lambda board, _: thread_counts(board.cores))
STREAMS: Final = Knob(field="streams", values=_stream_counts)
GPU_STREAMS: Final = Knob(field="streams", values=lambda _, purpose: (1,) if purpose == "latency" else (1, 2, 4), choices=(1, 2, 4))
HINT: Final = Knob(
    field="precision_hint", values=lambda board, _: tuple(dict.fromkeys(("f32", board.arithmetic))), choices=PRECISION_HINTS,
)
HALF: Final = _switch("precision_hint", "f32", "f16")
DELEGATE: Final = _switch("delegate", True, False)
SPINNING: Final = _switch("extra.session.intra_op.allow_spinning", "1", "0")
PINNING: Final = _switch("extra.ENABLE_CPU_PINNING", "YES", "NO")
HYPER_THREADING: Final = Knob(
    field="extra.ENABLE_HYPER_THREADING", values=lambda board, _: ("YES", "NO") if board.smt else ("YES",), choices=("YES", "NO"),
)
LAYOUT: Final = _switch("extra.prefer_nhwc", "0", "1")

KNOBS: Final[Mapping[tuple[str, str], tuple[Knob, ...]]] = {
    ("null", "cpu"): (THREADS,),
    ("onnxruntime", "cpu"): (THREADS, SPINNING),
    ("onnxruntime", "cuda"): (LAYOUT,),
    ("openvino", "cpu"): (THREADS, STREAMS, HINT, PINNING, HYPER_THREADING),
    ("openvino", "gpu"): (GPU_STREAMS, HALF),
    ("litert", "cpu"): (THREADS, DELEGATE),
    ("tflite_runtime", "cpu"): (THREADS, DELEGATE),
}
"""By runtime and provider. `openvino` on `gpu` follows OpenVINO's documentation; it has not been seen on hardware."""


def knobs_of(how: Plan) -> tuple[Knob, ...]:
    """What can be set where a plan runs.

    Raises:
        TargetError: nothing.
    """
    knobs = KNOBS.get((how.runtime, how.options.provider))
    if knobs is None:
        known = ", ".join(f"{runtime} on {provider}" for runtime, provider in KNOBS)
        raise TargetError(f"there is nothing to tune in {how.runtime} on {how.options.provider}; there is in {known}")
    return knobs


def settings_of(how: Plan, board: Board, purpose: str, *, keep: Collection[str] = ()) -> list[RuntimeOptions]:
    """Every combination worth trying: the first is `how.options` itself, the default; none occurs twice. Fields in `keep` stay as they are.

    Streams share the threads evenly, so only numbers of threads that they divide are tried.
    """
    knobs, found = [knob for knob in knobs_of(how) if knob.field not in keep], [how.options]
    threaded = THREADS in knobs
    for values in itertools.product(*(knob.values(board, purpose) for knob in knobs)):
        options = how.options
        for knob, value in zip(knobs, values, strict=True):
            options = knob.put(options, value)
        if options not in found and not (threaded and options.num_threads % options.streams):
            found.append(options)
    return found


def fields_of(how: Plan) -> dict[str, Any]:
    """What the knobs of a plan stand at; a setting by the runtime's own name only where it is given."""
    values: dict[str, Any] = {}
    for knob in knobs_of(how):
        head, _, name = knob.field.partition(".")
        if not name:
            values[knob.field] = getattr(how.options, head)
        elif name in how.options.extra:
            values[knob.field] = how.options.extra[name]
    return values


def with_fields(how: Plan, fields: Mapping[str, Any], *, cores: int) -> Plan:
    """Give a plan whose knobs stand at these, on a machine with so many processors; the reverse of `fields_of`.

    Raises:
        ValueError: the runtime has no such knob, or it cannot stand there.
    """
    knobs = {knob.field: knob for knob in knobs_of(how)}
    options = how.options
    for name, value in fields.items():
        if name not in knobs:
            raise ValueError(f"{how.runtime} on {options.provider} has no '{name}' to set")
        if not knobs[name].knows(value, cores):
            raise ValueError(f"{name} cannot be {value!r}")
        options = knobs[name].put(options, value)
    return Plan(how.runtime, options)
