"""The first operation at which two executions of one network part ways, and why, in words.

Two cases. Files of one format (float and int8, f32 and bf16) have tensors of the same names: an operation is to blame if what it gives is
bad and what it takes is not. Between formats, and against torch, only values can be compared: a tensor is good if the reference has one of
the same values in some layout, or if something good is computed from it; the first operation whose inputs are good and whose output has the
shape of a tensor of the reference, but the values of none, is to blame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from targets.parity.compare import EXACT_DB, Fingerprints, noise_share, sqnr_db
from targets.parity.graph import Graph, Op, Values

FLOAT_DB: Final = 60.0
"""A tensor of a float graph is as in the reference from here on; float rounding leaves more than 90, bf16 about 50."""
INT8_DB: Final = 15.0
"""A tensor of an int8 graph is bad below this: noise of a fifth of its size."""
_OWN_SHARE: Final = 0.75
"""An operation is to blame if at least this share of the noise behind it was not there before it."""
_CLIPPED_SHARE: Final = 0.5
"""A range is called clipped if this share of the noise is of values outside it."""


@dataclass(frozen=True, kw_only=True)
class Blame:
    """Where it goes wrong."""

    op: str
    """`Op.words`."""
    op_name: str
    op_index: int
    sqnr_before_db: float
    """Of the worst of its inputs."""
    sqnr_after_db: float
    cause: str
    """In words: `range clipped ...`, `bf16 chosen by the runtime`."""

    @property
    def words(self) -> str:
        """One line."""
        before = "exact" if self.sqnr_before_db >= EXACT_DB else f"{self.sqnr_before_db:.0f} dB"
        return f"{self.op}: {self.cause} ({before} before it, {self.sqnr_after_db:.0f} dB after)"

    def to_json(self) -> dict[str, Any]:
        """Give all fields and the line."""
        return {**asdict(self), "words": self.words}


def by_name(
    reference: Graph, expected: Values, other: Graph, got: Values, *, limit_db: float, cause: str = ""
) -> Blame | None:
    """Blame an operation of two files of one format.

    Args:
        reference: the graph that is right.
        expected: its tensors on a frame.
        other: the graph that is in doubt.
        got: its tensors on the same frame.
        limit_db: a tensor below this is bad.
        cause: what to say where the values do not tell; empty = they do.

    Gives the first operation below the limit that adds most of its noise itself; else the one that adds most of all; `None` where no name
    is in both, or nothing differs.
    """
    shared = [name for name in expected if _comparable(expected, other, got, name)]
    noise = {name: noise_share(sqnr_db(expected[name], _read(other, got, name))) for name in shared}
    limit = noise_share(limit_db)
    found: list[tuple[float, float, float, Op]] = []
    carried: dict[str, float] = {}
    for op in reference.ops:
        before = max((carried.get(name, 0.0) for name in op.inputs), default=0.0)
        for name in op.outputs:
            after = noise.get(name, before)  # a tensor that the other file does not have passes on what it was given
            carried[name] = after
            if name in noise and after > before:
                found.append((after - before, before, after, op))
    if not found:
        return None
    bad = [one for one in found if one[2] > limit and one[0] >= _OWN_SHARE * one[2]]
    _, before, after, op = bad[0] if bad else max(found, key=lambda one: one[0])
    said = cause or _why(op, expected, other, got)
    return Blame(
        op=op.words, op_name=op.name, op_index=op.index, sqnr_before_db=_db(before), sqnr_after_db=_db(after), cause=said,
    )


def by_value(
    reference: list[tuple[str, NDArray[Any]]], other: Graph, got: Values, *, limit_db: float = FLOAT_DB, cause: str = ""
) -> Blame | None:
    """Blame an operation of a file whose reference has other names and perhaps another layout; see the head of this module.

    Args:
        reference: tensors with what they are called, in the order they were computed.
        other: the graph in doubt.
        got: its tensors on the same frame.
        limit_db: equal from here on.
        cause: what to say besides; empty = that the values differ.
    """
    prints = Fingerprints(reference)
    nearest = {name: prints.nearest(values) for name, values in got.items()}
    good = {name: match is not None and match[1] >= limit_db for name, match in nearest.items()}
    fine: dict[str, bool] = {}
    for op in reversed(other.ops):
        for name in op.outputs:
            behind = other.consumers.get(name, ())
            fine[name] = good.get(name, False) or any(fine.get(made, False) for one in behind for made in one.outputs)
    passed: set[str] = set()
    """Tensors up to which all is well, or nothing can be said."""
    known: dict[str, float] = {}
    for op in other.ops:
        if not all(name in passed or fine.get(name, True) or name not in got for name in op.inputs):
            continue
        for name in op.outputs:
            match = nearest.get(name)
            if fine.get(name, False) or match is None:
                passed.add(name)
                known[name] = match[1] if match is not None and good.get(name, False) else min(
                    (known.get(source, EXACT_DB) for source in op.inputs), default=EXACT_DB,
                )
                continue
            before = min((known.get(source, EXACT_DB) for source in op.inputs), default=EXACT_DB)
            said = cause or f"gives other values than the reference; nearest is {match[0]}"
            return Blame(op=op.words, op_name=op.name, op_index=op.index, sqnr_before_db=before, sqnr_after_db=match[1], cause=said)
    return None


def _read(graph: Graph, values: Values, name: str) -> NDArray[Any]:
    """What the consumers of a tensor read."""
    return values[graph.settled.get(name, name)]


def _comparable(expected: Values, graph: Graph, values: Values, name: str) -> bool:
    held = graph.settled.get(name, name)
    return held in values and values[held].shape == expected[name].shape and bool(np.any(expected[name]))


def _db(noise: float) -> float:
    return EXACT_DB if noise <= 0 else float(-10 * np.log10(noise))


def _why(op: Op, expected: Values, other: Graph, got: Values) -> str:
    """What the values say about an operation of a quantized file."""
    name = next(one for one in op.outputs if _comparable(expected, other, got, one))
    wanted, held = expected[name].astype(np.float64), _read(other, got, name).astype(np.float64)
    before = got[name].astype(np.float64) if name in got and other.settled.get(name, name) != name else wanted
    if name not in other.settled:
        return "differs" if not op.detail else f"differs ({op.detail})"
    low, high = float(held.min()), float(held.max())
    step = max((high - low) / 255, 1e-12)
    outside = (before > high + step) | (before < low - step)
    noise = np.square(wanted - held)
    if noise.sum() > 0 and noise[outside].sum() >= _CLIPPED_SHARE * noise.sum():
        reach = f"values reach {before.min():.3g} to {before.max():.3g}"
        return f"range clipped to {low:.3g} to {high:.3g} where {reach} ({outside.mean():.2%} of them are cut)"
    if before is not wanted and np.square(wanted - before).sum() >= _CLIPPED_SHARE * noise.sum():
        return "its 8-bit weights"
    typical = float(np.abs(wanted).mean())
    return f"8 bits are too coarse for its range {low:.3g} to {high:.3g} (steps of {step:.2g}, values of {typical:.2g} on average)"


def as_list(values: Mapping[str, NDArray[Any]]) -> list[tuple[str, NDArray[Any]]]:
    """Tensors of a graph as a reference for `by_value`."""
    return list(values.items())
