"""Which operations of an instance model stay float: all that handles boxes and scores rather than features.

In 8 bits a coordinate has 256 values for the whole frame, and scores tie. So int8 is for the operations that have weights (convolutions,
linear layers) and for what lies between those before the first selection (TopK) of boxes; of the operations with weights those stay float
whose outputs are scores, offsets or mask probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

FLOAT_REASON: Final = "boxes, scores and their last layers: 8 bits are too few for coordinates, and 8-bit scores tie"
"""Why they stay float, for the manifest."""


@dataclass(frozen=True)
class Operation:
    """An operation of a graph."""

    inputs: tuple[str, ...]
    """Names of the operations its inputs come from."""
    weighted: bool = False
    """It multiplies by trained weights."""
    selects: bool = False
    """It chooses the best boxes (TopK)."""


def float_operations(graph: Mapping[str, Operation], outputs: Iterable[str]) -> set[str]:
    """Give the names of the operations that stay float; `outputs` = the operations that give the model's outputs."""
    found: set[str] = set()
    pending = list(outputs)
    while pending:  # back from the outputs to the layers that make scores, those included
        name = pending.pop()
        if name in found or name not in graph:
            continue
        found.add(name)
        if not graph[name].weighted:
            pending += graph[name].inputs
    return found | {name for name in _behind_selections(graph) if not graph[name].weighted}


def _behind_selections(graph: Mapping[str, Operation]) -> set[str]:
    """Operations that something chosen by a TopK enters, at once or through others."""
    consumers: dict[str, list[str]] = {}
    for name, operation in graph.items():
        for source in operation.inputs:
            consumers.setdefault(source, []).append(name)
    found: set[str] = set()
    pending = [name for name, operation in graph.items() if operation.selects]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += consumers.get(name, [])
    return found
