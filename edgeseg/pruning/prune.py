"""Cut whole channels until a share of the cost is left: MACs, or what another `LayerCost` says (milliseconds on a device)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from edgeseg.core.errors import ConfigError
from edgeseg.models import Network, channel_shapes, count_macs, count_parameters
from edgeseg.pruning.groups import ChannelGraph
from edgeseg.pruning.importances import IMPORTANCES, Losses
from edgeseg.pruning.layers import LayerShape, layer_shapes
from edgeseg.pruning.search import Kept, LayerCost, greedy, smallest, total_cost, uniform

Search = Callable[[ChannelGraph, Mapping[str, Tensor], LayerCost, float, int], Kept]
SCOPES: Final[dict[str, Search]] = {"global": greedy, "per_layer": uniform}
"""Names of `[prune] scope`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerChannels:
    """Output channels of one layer."""

    layer: str
    before: int
    after: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneReport:
    """What was cut. MACs are of one frame at the size given."""

    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    ratio: float
    """Share of all channels that could be cut which are gone."""
    channels: tuple[LayerChannels, ...]
    """Every convolution that ships, in the order of the network."""
    importance: str = "magnitude"
    scope: str = "per_layer"

    @property
    def macs_share(self) -> float:
        """Share of the MACs that is left."""
        return self.macs_after / self.macs_before


def macs(name: str, shape: LayerShape) -> float:
    """Cost of a layer in MACs."""
    return shape.macs


def prune(
    net: nn.Module, *, macs_share: float, round_to: int, example_hw: tuple[int, int], importance: str = "magnitude",
    scope: str = "per_layer", losses: Losses | None = None,
) -> tuple[nn.Module, PruneReport]:
    """Give a pruned copy of `net` (evaluation mode) with at most `macs_share` of its MACs at `example_hw`, and what was cut.

    Channel counts are multiples of `round_to` wherever they were before. The class layers keep their outputs. Accuracy is lost until the
    network is fine-tuned. `importance` is a name of `IMPORTANCES`, `scope` one of `SCOPES`; `losses` is what `taylor` asks for.

    Raises:
        ConfigError: so small a share would leave a layer with fewer than `round_to` channels; names the smallest one possible.
    """
    if macs_share >= 1:
        kept = copy.deepcopy(net).eval()
        return kept, report(net, kept, 0.0, example_hw, importance=importance, scope=scope)
    pruner = Pruner(net, example_hw, importance=importance, round_to=round_to, losses=losses)
    check_macs_share(pruner, macs_share, net)
    return cut_to_macs(pruner, macs_share, net, scope=scope)


class Pruner:
    """A network whose channels were scored once, to be cut to any budget."""

    def __init__(
        self, net: nn.Module, example_hw: tuple[int, int], *, importance: str, round_to: int, losses: Losses | None = None
    ) -> None:
        self.net, self.hw, self.importance, self.round_to = net, example_hw, importance, round_to
        self.graph = ChannelGraph(net, example_hw)
        self.scores = self.graph.scores(IMPORTANCES[importance](self.graph, losses))

    def full(self, cost: LayerCost) -> float:
        """Cost of the network as it is."""
        return total_cost(self.graph, {}, cost)

    def least(self, cost: LayerCost) -> float:
        """Cost with every group as small as it can be."""
        return total_cost(self.graph, self.smallest(), cost)

    def cost_of(self, pruned: nn.Module, cost: LayerCost) -> float:
        """Cost of a network that was cut from this one."""
        return math.fsum(cost(name, shape) for name, shape in layer_shapes(pruned, self.hw).items())

    def smallest(self) -> Kept:
        """Units that each group keeps at least."""
        return smallest(self.graph, self.scores, self.round_to)

    def cut(self, cost: LayerCost, budget: float, *, scope: str) -> tuple[nn.Module, PruneReport]:
        """Give a copy that costs at most `budget`, which must not lie below `least`."""
        return self._cut(SCOPES[scope](self.graph, self.scores, cost, budget, self.round_to), scope)

    def cut_to_least(self) -> tuple[nn.Module, PruneReport]:
        """Give the smallest network there is, which tells what no cut can get below."""
        return self._cut(self.smallest(), "per_layer")

    def _cut(self, kept: Kept, scope: str) -> tuple[nn.Module, PruneReport]:
        pruned = self.graph.cut(kept, self.scores)
        units = {name: self.graph.groups[name].units for name in kept}
        ratio = 1 - sum(kept.values()) / max(1, sum(units.values()))
        return pruned, report(self.net, pruned, ratio, self.hw, importance=self.importance, scope=scope)


def check_macs_share(pruner: Pruner, share: float, whole: nn.Module) -> None:
    """Refuse a share of the MACs of `whole` that the network of `pruner` cannot be cut to.

    Raises:
        ConfigError: names the smallest share possible.
    """
    total = count_macs(whole, pruner.hw)
    if pruner.least(macs) > share * total:
        least = int(pruner.least(macs) / total * 100 + 1) / 100
        raise ConfigError(f"[prune] macs_share = {share} would empty a layer; set at least {least}, "
                          "or a smaller round_to, or a larger [model] width")


def cut_to_macs(pruner: Pruner, share: float, whole: nn.Module, *, scope: str) -> tuple[nn.Module, PruneReport]:
    """Cut the network of `pruner` to a share of the MACs of `whole`, or not at all where it has no more."""
    return pruner.cut(macs, max(share * count_macs(whole, pruner.hw), pruner.least(macs)), scope=scope)


def report(
    before: nn.Module, after: nn.Module, ratio: float, hw: tuple[int, int], *, importance: str, scope: str
) -> PruneReport:
    """What differs between two networks, of which one was cut from the other."""
    old, new = channel_shapes(before), channel_shapes(after)
    aux = before.aux_layers if isinstance(before, Network) else ()
    convolutions = [name for name, shape in old.items() if "groups" in shape and name.split(".")[0] not in aux]
    return PruneReport(
        params_before=count_parameters(before), params_after=count_parameters(after),
        macs_before=count_macs(before, hw), macs_after=count_macs(after, hw), ratio=ratio,
        channels=tuple(LayerChannels(layer=name, before=old[name]["out"], after=new[name]["out"]) for name in convolutions),
        importance=importance, scope=scope,
    )
