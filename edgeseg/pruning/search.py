"""How far to cut each group, so that what is left costs at most a budget. The cost is a sum over layers: their MACs, or their time.

`uniform`: every group loses the same share of its units. `greedy`: again and again the step that loses the least importance for
what it saves, over all groups at once; where the cost comes in stairs, a longer step is tried too, since a short one may save nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from torch import Tensor

from edgeseg.pruning.groups import ChannelGraph, ChannelGroup
from edgeseg.pruning.layers import LayerShape

LayerCost = Callable[[str, LayerShape], float]
"""What a layer costs, by its name and shape."""
Kept = dict[str, int]
"""Units that each group keeps."""

MAX_RATIO: Final = 0.95
"""No group loses more than this share of its units."""
_BISECTIONS: Final = 12
_STRIDES: Final = (1, 2, 4)
"""Steps that are tried together."""


def total_cost(graph: ChannelGraph, kept: Mapping[str, int], cost: LayerCost) -> float:
    """Cost of all layers with so many units left."""
    return math.fsum(cost(name, shape) for name, shape in graph.shapes_with(kept).items())


def smallest(graph: ChannelGraph, scores: Mapping[str, Tensor], round_to: int) -> Kept:
    """The least that each group can be left with; groups without scores stay whole."""
    return {name: graph.groups[name].floor(round_to, MAX_RATIO) for name in scores}


def uniform(graph: ChannelGraph, scores: Mapping[str, Tensor], cost: LayerCost, budget: float, round_to: int) -> Kept:
    """Every group loses the same share of its units, rounded to steps: the smallest share that meets the budget.

    `budget` must be one that `smallest` meets.
    """
    low, high = 0.0, 1.0
    best = smallest(graph, scores, round_to)
    for _ in range(_BISECTIONS):  # costs fall in steps, so this finds the step, not a point
        share = (low + high) / 2
        kept = {name: _left(graph.groups[name], share, round_to) for name in scores}
        if total_cost(graph, kept, cost) <= budget:
            best, high = kept, share
        else:
            low = share
    return best


def _left(group: ChannelGroup, share: float, round_to: int) -> int:
    step = group.step(round_to)
    left = int(group.units * (1 - share))
    return max(group.floor(round_to, MAX_RATIO), left - left % step)


def greedy(graph: ChannelGraph, scores: Mapping[str, Tensor], cost: LayerCost, budget: float, round_to: int) -> Kept:
    """Cut step by step where the least importance is lost for what is saved (as in HALP, 2110.10811), until the budget is met.

    `budget` must be one that `smallest` meets.
    """
    kept = {name: graph.groups[name].units for name in scores}
    floors = smallest(graph, scores, round_to)
    # lost[name][n] = importance lost when the n least important units are gone
    lost = {name: [0.0, *score.double().sort().values.cumsum(0).tolist()] for name, score in scores.items()}
    layers = {name: tuple(touch.layer for touch in graph.groups[name].touches) for name in scores}
    best: dict[str, tuple[float, int]] = {}
    """Of each group the importance lost per cost saved, and the units left, of its best next step; made again where a layer changed."""
    readers = _neighbours(layers)
    while total_cost(graph, kept, cost) > budget:
        for name in kept:
            if name not in best and kept[name] > floors[name]:
                best[name] = _next_step(graph, name, kept, floors[name], lost[name], layers[name], cost, round_to)
        if not best:
            return kept
        chosen = min(best, key=lambda name: (best[name][0], name))
        kept[chosen] = best[chosen][1]
        for name in readers[chosen]:
            best.pop(name, None)
    return kept


def _neighbours(layers: Mapping[str, tuple[str, ...]]) -> dict[str, set[str]]:
    """Groups that share a layer with each group, itself included."""
    touching: dict[str, set[str]] = {}
    for name, touched in layers.items():
        for layer in touched:
            touching.setdefault(layer, set()).add(name)
    return {name: {name}.union(*(touching[layer] for layer in touched)) for name, touched in layers.items()}


def _next_step(
    graph: ChannelGraph, name: str, kept: Mapping[str, int], floor: int, lost: list[float], layers: tuple[str, ...], cost: LayerCost,
    round_to: int,
) -> tuple[float, int]:
    group, now = graph.groups[name], kept[name]
    step = group.step(round_to)

    def priced(left: int) -> float:
        shapes = graph.shapes_with({**kept, name: left}, layers)
        return math.fsum(cost(layer, shape) for layer, shape in shapes.items())

    before, found = priced(now), []
    for stride in _STRIDES:
        left = max(floor, (now - 1) // step * step - (stride - 1) * step)
        saved = before - priced(left)
        loss = lost[group.units - left] - lost[group.units - now]
        found.append((loss / saved if saved > 0 else math.inf, left))
    return min(found, key=lambda pair: (pair[0], -pair[1]))
