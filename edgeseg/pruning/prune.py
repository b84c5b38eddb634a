"""Cut whole channels until a share of the MACs is left.

Channels that a sum, a product, a concatenation or a depthwise convolution ties together are one group and go together (DepGraph, Fang
et al. 2023, arXiv:2301.12900, by torch-pruning). A group's channels are scored by the L2 norm of all weights that belong to them, and
every group loses the same share of its channels, the lowest scores first.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from edgeseg.core.errors import ConfigError, vendor_errors
from edgeseg.core.lazy import require
from edgeseg.models import Network, channel_shapes, count_macs, count_parameters

MAX_RATIO: Final = 0.95
"""No group loses more than this share of its channels."""
_BISECTIONS: Final = 7
_GRAPH_HW: Final = (64, 64)
"""The graph of dependencies does not depend on the size it is traced at; a small one is fast."""


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
    """Share of its channels that every group was asked to lose, before rounding."""
    channels: tuple[LayerChannels, ...]
    """Every convolution that ships, in the order of the network."""

    @property
    def macs_share(self) -> float:
        """Share of the MACs that is left."""
        return self.macs_after / self.macs_before


def prune(net: nn.Module, *, macs_share: float, round_to: int, example_hw: tuple[int, int]) -> tuple[nn.Module, PruneReport]:
    """Give a pruned copy of `net` (evaluation mode) with at most `macs_share` of its MACs at `example_hw`, and what was cut.

    Channel counts are multiples of `round_to` wherever they were before. The class layers keep their outputs. Accuracy is lost until the
    network is fine-tuned.

    Raises:
        ConfigError: so small a share would leave a layer with fewer than `round_to` channels; names the smallest one possible.
    """
    total = count_macs(net, example_hw)
    if macs_share >= 1:
        kept = copy.deepcopy(net).eval()
        return kept, _report(net, kept, 0.0, example_hw)
    low, high = 0.0, MAX_RATIO
    smallest = _cut(net, high, round_to)
    least = count_macs(smallest, example_hw)
    if least > macs_share * total:
        raise ConfigError(f"[prune] macs_share = {macs_share} would empty a layer; set at least {_round_up(least / total)}, "
                          "or a smaller round_to, or a larger [model] width")
    best, ratio = smallest, high
    for _ in range(_BISECTIONS):  # MACs fall in steps (whole multiples of round_to), so this finds the step, not a point
        middle = (low + high) / 2
        candidate = _cut(net, middle, round_to)
        if count_macs(candidate, example_hw) <= macs_share * total:
            best, ratio, high = candidate, middle, middle
        else:
            low = middle
    return best, _report(net, best, ratio, example_hw)


def _round_up(share: float) -> float:
    return int(share * 100 + 1) / 100


def _cut(net: nn.Module, ratio: float, round_to: int) -> nn.Module:
    """Copy of `net` where every group has lost `ratio` of its channels, in evaluation mode."""
    tp = require("torch_pruning", extra="train")
    pruned = copy.deepcopy(net).cpu().eval().requires_grad_(True)  # the graph is read from autograd
    names = [*getattr(net, "class_layers", ())]
    if not names:
        raise ConfigError("[prune] macs_share: this network does not say which layers give the class scores, so they cannot be kept whole; "
                          "give it class_layers = (\"NAME OF THE LAYER\",), or set macs_share = 1")
    aux = pruned.aux_layers if isinstance(pruned, Network) else ()  # cut along with the trunk, so that fine-tuning goes on with them
    names += [name for name, _ in pruned.named_modules() if name.split(".")[0] in aux and name.endswith(".scores")]
    # torch-pruning skips a group whole when rounding would empty it, so each layer's share is held below that.
    # The half channel keeps int() from rounding the last `round_to` away.
    shares = {
        module: max(0.0, min(ratio, 1 - (round_to + 0.5) / module.out_channels))
        for module in pruned.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    }
    with vendor_errors("torch-pruning"):
        pruner = tp.pruner.BasePruner(
            pruned, torch.zeros(1, 3, *_GRAPH_HW), importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=ratio,
            pruning_ratio_dict=shares, ignored_layers=[pruned.get_submodule(name) for name in names], round_to=round_to,
            forward_fn=_all_outputs,
        )
        pruner.step()
    for parameter in pruned.parameters():
        parameter.grad = None
    return pruned


def _all_outputs(net: nn.Module, x_NCHW: Tensor) -> Any:  # noqa: ANN401 - what torch-pruning flattens
    return net.graph_outputs(x_NCHW) if isinstance(net, Network) else net(x_NCHW)


def _report(before: nn.Module, after: nn.Module, ratio: float, hw: tuple[int, int]) -> PruneReport:
    old, new = channel_shapes(before), channel_shapes(after)
    aux = before.aux_layers if isinstance(before, Network) else ()
    convolutions = [name for name, shape in old.items() if "groups" in shape and name.split(".")[0] not in aux]
    return PruneReport(
        params_before=count_parameters(before), params_after=count_parameters(after),
        macs_before=count_macs(before, hw), macs_after=count_macs(after, hw), ratio=ratio,
        channels=tuple(LayerChannels(layer=name, before=old[name]["out"], after=new[name]["out"]) for name in convolutions),
    )
