"""Which channels move together: the dependency graph of a network, as groups that can be counted, scored and cut.

Channels that a sum, a product, a concatenation or a depthwise convolution ties together are one group and go together (DepGraph, Fang
et al. 2023, arXiv:2301.12900, by torch-pruning). In a grouped convolution every group of it must lose as many, so there the channels at
the same place in each are one unit.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from edgeseg.core.errors import ConfigError, vendor_errors
from edgeseg.core.lazy import require
from edgeseg.models import Network
from edgeseg.pruning.layers import LayerShape, layer_shapes

_GRAPH_HW: Final = (96, 96)
"""The graph of dependencies does not depend on the size it is traced at; a small one is fast, and no encoder asks for more."""


Scorer = Callable[[Any], Tensor | None]
"""Scores each channel of the root layer of a torch-pruning group, the least important lowest; `None` = cannot tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Touch:
    """What cutting one unit of a group takes from one layer."""

    layer: str
    ins: int
    outs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelGroup:
    """Channels that go together."""

    name: str
    """The layer whose output channels number them."""
    units: int
    """How many can be cut one by one."""
    width: int
    """Channels of the layer `name` in a unit: 1, or the groups of a grouped convolution."""
    touches: tuple[Touch, ...]

    def step(self, round_to: int) -> int:
        """Units in a step that keeps the channels of the layer `name` a multiple of `round_to` where they were one."""
        return max(1, round_to // self.width)

    def floor(self, round_to: int, most: float) -> int:
        """Fewest units that may be left: one step, and not less than `1 - most` of all."""
        step = self.step(round_to)
        return min(self.units, max(step, -(-int(self.units * (1 - most)) // step) * step))


class ChannelGraph:
    """The groups of a network (a copy; the one given is untouched) and the layers they touch, at one frame size."""

    def __init__(self, net: nn.Module, example_hw: tuple[int, int]) -> None:
        """Trace `net`.

        Raises:
            ConfigError: the network does not say which layers give the class scores.
        """
        self.source = net
        self.shapes: dict[str, LayerShape] = layer_shapes(net, example_hw)
        self._graph, self._ignored, self._names = _trace(net)
        with vendor_errors("torch-pruning"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._groups = {name: (group, raw) for name, group, raw in self._found()}
        self.groups: dict[str, ChannelGroup] = {name: group for name, (group, _) in self._groups.items()}

    def _found(self) -> Iterator[tuple[str, ChannelGroup, Any]]:
        for raw in self._graph.get_all_groups(ignored_layers=self._ignored):
            modules = [dep.target.module for dep, _ in raw]
            if any(_odd(module) for module in modules):
                continue
            width = max([1, *(m.groups for m in modules if _grouped(m))])
            channels = len(raw[0].idxs)
            if channels % width == 0 and channels > width:
                name = self._names[raw[0].dep.target.module]
                units = channels // width
                yield name, ChannelGroup(name=name, units=units, width=width, touches=self._touches(raw, units)), raw

    def _touches(self, raw: Any, units: int) -> tuple[Touch, ...]:  # noqa: ANN401 - a torch-pruning group
        ins: dict[str, int] = {}
        outs: dict[str, int] = {}
        for dep, indices in raw:
            module, name = dep.target.module, self._names.get(dep.target.module)
            if name is None or not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                continue
            out = self._graph.is_out_channel_pruning_fn(dep.handler)
            if out or _depthwise(module):
                outs[name] = outs.get(name, 0) + len(indices) // units
            if not out or _depthwise(module):
                ins[name] = ins.get(name, 0) + len(indices) // units
        return tuple(Touch(layer=name, ins=ins.get(name, 0), outs=outs.get(name, 0)) for name in {**outs, **ins})

    def shapes_with(self, kept: Mapping[str, int], only: Sequence[str] = ()) -> dict[str, LayerShape]:
        """Layers as they are with so many units of each group `kept` (those not named are whole); `only` these layers, if any are named."""
        lost: dict[str, list[int]] = {}
        for name, group in self.groups.items():
            cut = group.units - kept.get(name, group.units)
            for touch in group.touches:
                entry = lost.setdefault(touch.layer, [0, 0])
                entry[0] += cut * touch.ins
                entry[1] += cut * touch.outs
        names = only or self.shapes
        found = {}
        for name in names:
            if name in self.shapes:
                shape, (ins, outs) = self.shapes[name], lost.get(name, (0, 0))
                found[name] = shape.with_channels(shape.in_channels - ins, shape.out_channels - outs) if ins or outs else shape
        return found

    def scores(self, scorer: Scorer) -> dict[str, Tensor]:
        """Score of each unit of each group, float32 on the CPU; a group that `scorer` can say nothing about is left out."""
        found: dict[str, Tensor] = {}
        with vendor_errors("torch-pruning"):
            for name, (group, raw) in self._groups.items():
                score = scorer(raw)
                if score is not None:
                    found[name] = score.detach().float().cpu().view(group.width, group.units).mean(dim=0)
        return found

    @property
    def network(self) -> nn.Module:
        """The copy that was traced: groups that a scorer gets refer to its layers. Evaluation mode, all parameters with gradients."""
        net: nn.Module = self._graph.model
        return net

    def reads(self, dep: Any) -> bool:  # noqa: ANN401 - a torch-pruning dependency
        """Whether a member of a torch-pruning group is a layer that reads its channels and gives others."""
        module = dep.target.module
        return not _depthwise(module) and not self._graph.is_out_channel_pruning_fn(dep.handler)

    def cut(self, kept: Mapping[str, int], scores: Mapping[str, Tensor]) -> nn.Module:
        """Copy of the network (evaluation mode) where each group keeps so many units, those with the largest scores."""
        graph, _, names = _trace(self.source)
        modules = {name: module for module, name in names.items()}
        with vendor_errors("torch-pruning"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, count in kept.items():
                group = self.groups[name]
                if count >= group.units:
                    continue
                lowest = torch.argsort(scores[name], stable=True)[: group.units - count].tolist()
                indices = sorted(unit + part * group.units for unit in lowest for part in range(group.width))
                module = modules[name]
                found = graph.get_pruning_group(module, graph.get_pruner_of_module(module).prune_out_channels, indices)
                assert graph.check_pruning_group(found), f"{name} would be empty"
                found.prune()
        pruned: nn.Module = graph.model
        for parameter in pruned.parameters():
            parameter.grad = None
        return pruned


def _trace(net: nn.Module) -> tuple[Any, list[nn.Module], dict[nn.Module, str]]:
    """Dependency graph of a copy of `net`, its class layers, and the names of its modules."""
    tp = require("torch_pruning", extra="train")
    traced = copy.deepcopy(net).cpu().eval().requires_grad_(True)  # the graph is read from autograd
    layers = [*getattr(net, "class_layers", ())]
    if not layers:
        raise ConfigError("[prune]: this network does not say which layers give the class scores, so they cannot be kept whole; "
                          "give it class_layers = (\"NAME OF THE LAYER\",), or set macs_share = 1")
    aux = traced.aux_layers if isinstance(traced, Network) else ()  # cut along with the trunk, so that fine-tuning goes on with them
    layers += [name for name, _ in traced.named_modules() if name.split(".")[0] in aux and name.endswith(".scores")]
    with vendor_errors("torch-pruning"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(traced, torch.zeros(1, 3, *_GRAPH_HW), forward_fn=_all_outputs)
    return graph, [traced.get_submodule(name) for name in layers], {module: name for name, module in traced.named_modules()}


def _all_outputs(net: nn.Module, x_NCHW: Tensor) -> Any:  # noqa: ANN401 - what torch-pruning flattens
    return net.graph_outputs(x_NCHW) if isinstance(net, Network) else net(x_NCHW)


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels


def _grouped(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.groups > 1 and not _depthwise(module)


def _odd(module: nn.Module) -> bool:
    """Whether torch-pruning would take it for depthwise, which it is not."""
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.out_channels != module.in_channels
