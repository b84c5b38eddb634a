"""How many times as fast int8 makes a kind of layer in each runtime: numbers that `benchmarks/int8_gains.py` printed, not folklore.

They were taken on an x86-64 processor with VNNI, one thread, 64 channels at 48x64 (`benchmarks/results/int8_gains.json`), with the version
that is named. On other processors they differ: they explain what was measured and never stand in for a measurement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from targets.executed.base import INT8, ExecutedPrecision


@dataclass(frozen=True, kw_only=True)
class Gains:
    """What int8 gains in one runtime."""

    version: str
    by_kind: Mapping[str, float]
    """Kind of layer -> time in float32 over time in int8; below 1, int8 is the slower."""


GAINS: Final[dict[str, Gains]] = {
    "onnxruntime": Gains(version="1.31.1", by_kind={"convolution": 3.63, "depthwise": 0.51, "transposed": 0.89}),
    "openvino": Gains(version="2026.4.1", by_kind={"convolution": 3.95, "depthwise": 0.71, "transposed": 3.55}),
    "litert": Gains(version="2.3.0", by_kind={"convolution": 4.09, "depthwise": 0.83, "transposed": 2.84}),
}


def without_gain(found: ExecutedPrecision, runtime: str) -> list[dict[str, Any]]:
    """Kinds of layers that run in int8 and are no faster for it where that was measured, the largest share of the MACs first.

    Each has `kind`, `share` (of the network's MACs), `gain` and the `version` of the runtime it was measured with.
    """
    gains = GAINS.get(runtime)
    if gains is None:
        return []
    shares: dict[str, float] = {}
    for layer in found.layers:
        if layer.precision == INT8 and gains.by_kind.get(layer.kind, 1.0) < 1:
            shares[layer.kind] = shares.get(layer.kind, 0.0) + found.share_of(layer)
    return [
        {"kind": kind, "share": share, "gain": gains.by_kind[kind], "version": gains.version}
        for kind, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
