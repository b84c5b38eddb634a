"""Groups, scores and searches one by one: what each promises, by numbers worked out another way."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from edgeseg.core.config import IMPORTANCE_NAMES, PRUNE_SCOPES, ModelSection, PruneSection, parse_config
from edgeseg.core.errors import ConfigError
from edgeseg.models import build, count_macs
from edgeseg.pruning import IMPORTANCES, SCOPES, LayerShape, Pruner, layer_shapes, prune
from edgeseg.pruning.groups import ChannelGraph
from edgeseg.pruning.prune import macs
from edgeseg.pruning.search import greedy, total_cost, uniform

HW = (32, 32)


def test_names_of_the_config_are_those_of_the_registries() -> None:
    assert set(IMPORTANCE_NAMES) == set(IMPORTANCES)
    assert set(PRUNE_SCOPES) == set(SCOPES)


def group_of(graph: ChannelGraph, layer: str) -> str:
    """Name of the group that holds the output channels of a layer."""
    return next(name for name, group in graph.groups.items() if any(touch.layer == layer and touch.outs for touch in group.touches))


class Grouped(nn.Module):
    """A grouped convolution, a depthwise one with two filters a channel, and a sum around both."""

    class_layers = ("scores",)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.grouped = nn.Conv2d(32, 48, 3, padding=1, groups=2)
        self.back = nn.Conv2d(48, 32, 1)
        self.doubling = nn.Conv2d(32, 64, 3, padding=1, groups=32)
        self.scores = nn.Conv2d(64, 3, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        x = self.first(x_NCHW).relu()
        scores: Tensor = self.scores(self.doubling(x + self.back(self.grouped(x).relu()).relu()).relu())
        return scores


def test_groups_of_a_grouped_convolution_stay_equal() -> None:
    graph = ChannelGraph(Grouped(), HW)
    assert graph.groups["grouped"].units == 24
    assert graph.groups["grouped"].width == 2
    assert "first" not in graph.groups, "its channels have two filters each in the depthwise layer, which cannot be cut alone"
    scores = {"grouped": torch.arange(24.0)}
    pruned = graph.cut({"grouped": 8}, scores)
    layer = pruned.get_submodule("grouped")
    assert isinstance(layer, nn.Conv2d)
    assert (layer.out_channels, layer.groups, layer.weight.shape) == (16, 2, (16, 16, 3, 3))
    before = graph.source.get_submodule("grouped")
    assert isinstance(before, nn.Conv2d)
    assert torch.equal(layer.weight, torch.cat([before.weight[a : a + 8] for a in (16, 40)]))
    assert pruned(torch.randn(1, 3, *HW)).shape == (1, 3, *HW)
    assert layer_shapes(pruned, HW) == graph.shapes_with({"grouped": 8})


def test_taylor_is_the_derivative_by_a_gate_on_the_channel() -> None:
    """Molchanov et al.: the square of dL/dg where g = 1 multiplies the channel, whatever norm and depthwise layer lie after its layer."""
    torch.manual_seed(0)
    net = build(ModelSection(width=0.25), 3).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    frames = [torch.randn(1, 3, 48, 48) for _ in range(2)]

    def loss_of(model: nn.Module, x: Tensor) -> Tensor:
        scores = model(x)
        loss: Tensor = (scores * torch.linspace(-1, 1, scores.numel()).view_as(scores)).mean() + scores.square().mean()
        return loss

    def losses(model: nn.Module) -> Iterator[Tensor]:
        return (loss_of(model, x) for x in frames)

    graph = ChannelGraph(net, (48, 48))
    scores = graph.scores(IMPORTANCES["taylor"](graph, losses))
    group = group_of(graph, "extract.4.body.0.conv")  # expand; then norm, ReLU, depthwise, norm, ReLU; read by the projection alone
    derivatives = []
    for x in frames:
        gate = torch.ones(graph.groups[group].units, requires_grad=True)
        hook = net.get_submodule("extract.4.body.1").register_forward_hook(lambda m, i, y, gate=gate: y * gate.view(1, -1, 1, 1))
        loss_of(net, x).backward()  # type: ignore[no-untyped-call]
        hook.remove()
        assert gate.grad is not None
        derivatives.append(gate.grad)
    torch.testing.assert_close(scores[group], torch.stack(derivatives).square().mean(dim=0), rtol=1e-3, atol=1e-12)
    with pytest.raises(ConfigError, match="importance = 'taylor' needs training batches"):
        prune(net, macs_share=0.8, round_to=8, example_hw=HW, importance="taylor")


def test_bn_scale_ranks_by_gamma_and_leaves_groups_without_a_norm_whole() -> None:
    net = build(ModelSection(name="unet", width=0.25, depth=1), 3)
    first = net.get_submodule("down.0.0.bn")
    assert isinstance(first, nn.BatchNorm2d)
    with torch.no_grad():
        first.weight.copy_(torch.linspace(1, 2, 16).flip(0))
    graph = ChannelGraph(net, HW)
    scores = graph.scores(IMPORTANCES["bn_scale"](graph, None))
    torch.testing.assert_close(scores[group_of(graph, "down.0.0.conv")], torch.linspace(1, 2, 16).flip(0))
    assert group_of(graph, "up.0.up") not in scores  # the up-convolution has no norm


def costs(graph: ChannelGraph, scores: dict[str, Tensor], kept: dict[str, int]) -> float:
    """Importance that is lost."""
    return sum(float(scores[name].sort().values[: graph.groups[name].units - count].sum()) for name, count in kept.items())


def test_all_layers_at_once_lose_less_for_the_same_macs() -> None:
    net = build(ModelSection(name="unet", width=0.25, depth=2), 3)
    graph = ChannelGraph(net, HW)
    generator = torch.Generator().manual_seed(1)
    scores = {
        name: torch.rand(group.units, generator=generator) * 10 ** (index % 3) for index, (name, group) in enumerate(graph.groups.items())
    }
    budget = 0.5 * total_cost(graph, {}, macs)
    equal, weighed = (search(graph, scores, macs, budget, 8) for search in (uniform, greedy))
    for kept in (equal, weighed):
        assert total_cost(graph, kept, macs) <= budget
        assert total_cost(graph, kept, macs) == count_macs(graph.cut(kept, scores), HW)
        assert all(count % 8 == 0 for count in kept.values())
    assert costs(graph, scores, weighed) < 0.7 * costs(graph, scores, equal)


def test_a_cost_in_stairs_is_climbed_down_whole() -> None:
    """Eight channels save nothing where kernels compute sixteen: no layer is left on the far side of a stair."""
    net = build(ModelSection(name="unet", width=0.5, depth=1), 3)
    graph = ChannelGraph(net, HW)

    def stairs(name: str, shape: LayerShape) -> float:
        sixteens = math.ceil(shape.in_channels / 16) * math.ceil(shape.out_channels / 16)
        return float(shape.macs / (shape.in_channels * shape.out_channels) * 256 * sixteens)

    budget = 0.6 * total_cost(graph, {}, stairs)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        scores = {name: torch.rand(group.units, generator=generator) for name, group in graph.groups.items()}
        kept = greedy(graph, scores, stairs, budget, 8)
        assert total_cost(graph, kept, stairs) <= budget
        assert all(count % 16 == 0 for count in kept.values())


def test_a_pruner_cuts_a_pruned_network_further() -> None:
    net = build(ModelSection(width=0.5), 3)
    total = count_macs(net, HW)
    half, _ = prune(net, macs_share=0.7, round_to=8, example_hw=HW)
    pruner = Pruner(half, HW, importance="magnitude", round_to=8)
    quarter, report = pruner.cut(macs, 0.5 * total, scope="global")
    assert report.macs_before == count_macs(half, HW)
    assert pruner.cost_of(quarter, macs) == count_macs(quarter, HW) <= 0.5 * total
    least, _ = pruner.cut_to_least()
    assert count_macs(least, HW) == pruner.least(macs) < 0.2 * total


def test_one_goal_at_a_time() -> None:
    with pytest.raises(ConfigError, match=r"\[prune\] macs_share = 0.5 and p90_ms = 9: give one of them"):
        parse_config({"prune": {"macs_share": 0.5, "p90_ms": 9}})
    assert not PruneSection(p90_ms=0.0).wanted
    assert PruneSection(latency_share=0.5).to_latency
