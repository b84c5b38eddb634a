"""Networks with auxiliary heads: what they give in each mode, what ships of them, what pruning and checkpoints keep."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.core.manifest import Contract
from edgeseg.models import MODELS, build, count_macs, count_parameters, fold
from edgeseg.models.bisenet_v2 import ExpandingDepthwise
from edgeseg.models.blocks import NormAct
from edgeseg.models.dual_resolution import PooledContext, pool_by
from edgeseg.models.heads import NetworkWithHeads
from edgeseg.models.outputs import Outputs
from edgeseg.models.pidnet import ParallelAggregation, PixelAttention
from edgeseg.pruning import prune
from edgeseg.training.checkpoint import CheckpointMeta, load_checkpoint, save_checkpoint

HEADS = {"bisenet_v2": (4, False), "ddrnet_23_slim": (1, False), "pidnet_s": (1, True)}
"""Auxiliary heads, and whether boundaries are learnt."""


def narrow(name: str, num_classes: int = 3, width: float = 0.25) -> NetworkWithHeads:
    net = build(ModelSection(name=name, width=width), num_classes, seed=1)
    assert isinstance(net, NetworkWithHeads)
    return net


def moved(net: nn.Module) -> nn.Module:
    """Norms away from identity."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.8, 1.2)
                module.bias.uniform_(-0.1, 0.1)
    return net.eval()


@pytest.mark.parametrize("name", HEADS)
def test_parameters_within_a_percent_of_the_reference(name: str) -> None:
    spec = MODELS[name]
    assert abs(spec.num_params - spec.published_params) <= 0.01 * spec.published_params


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("hw", [(64, 96), (37, 53)])
def test_training_gives_outputs_and_evaluation_a_tensor(name: str, hw: tuple[int, int]) -> None:
    net = narrow(name).train()
    num_aux, has_boundary = HEADS[name]
    x = torch.randn(2, 3, *hw)
    with torch.no_grad():
        out = net(x)
        scores = net.eval()(x)
    h, w = -(-hw[0] // 8), -(-hw[1] // 8)
    assert isinstance(out, Outputs)
    assert isinstance(scores, Tensor)
    assert out.main.shape == scores.shape == (2, 3, h, w)
    assert len(out.aux) == len(out.aux_weights) == num_aux
    quarter = (-(-hw[0] // 4), -(-hw[1] // 4))
    assert all(tuple(aux.shape[2:]) in ((h, w), quarter) and aux.shape[1] == 3 for aux in out.aux)
    assert (None if out.boundary is None else tuple(out.boundary.shape)) == ((2, 1, h, w) if has_boundary else None)


@pytest.mark.parametrize("name", HEADS)
def test_heads_reach_the_trunk_with_their_gradient(name: str) -> None:
    net = narrow(name).train()
    out = net(torch.randn(2, 3, 64, 64))
    boundary = 0 if out.boundary is None else out.boundary.square().mean()
    (sum(aux.square().mean() for aux in out.aux) + boundary).backward()
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    reached = [p for n, p in net.named_parameters() if p.grad is not None and n.split(".")[0] not in net.aux_layers]
    assert len(reached) > 4
    assert net.classifier.get_submodule("scores").weight.grad is None
    assert first is not None


@pytest.mark.parametrize("name", HEADS)
def test_what_ships_has_no_heads_and_answers_the_same(name: str) -> None:
    net = moved(narrow(name))
    folded = fold(net)
    names = {n.split(".")[0] for n, _ in folded.named_modules()}
    assert not names & set(net.aux_layers)
    assert set(net.aux_layers) <= {n.split(".")[0] for n, _ in net.named_modules()}, "the original keeps them"
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    x = torch.randn(1, 3, 45, 67)
    with torch.inference_mode():
        expected = net(x)
        torch.testing.assert_close(folded(x), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        assert isinstance(folded.train()(torch.randn(2, 3, 64, 64)), Tensor)
    assert count_parameters(net) < sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_pruning_cuts_trunk_and_heads_together(name: str, tmp_path: Path) -> None:
    section = ModelSection(name=name, width=0.5)
    net = build(section, 3, seed=1)
    pruned, report = prune(net, macs_share=0.75, round_to=8, example_hw=(64, 64))
    assert report.macs_after == count_macs(pruned, (64, 64)) <= 0.75 * report.macs_before
    assert isinstance(pruned, NetworkWithHeads)
    assert not {row.layer.split(".")[0] for row in report.channels} & set(pruned.aux_layers), "the report is of what ships"
    out = pruned.train()(torch.randn(2, 3, 64, 64))
    assert isinstance(out, Outputs)
    assert len(out.aux) == HEADS[name][0]
    assert all(aux.shape[1] == 3 for aux in out.aux)
    assert out.boundary is None or out.boundary.shape[1] == 1

    meta = CheckpointMeta(
        model=section, num_classes=3, classes=("a", "b", "c"), palette=((0, 0, 0),) * 3, contract=Contract(height=64, width=64),
        config_sha256="0" * 64, dataset="none", dataset_sha256="0" * 64,
    )
    save_checkpoint(tmp_path / "pruned", pruned.eval(), meta)
    loaded, _ = load_checkpoint(tmp_path / "pruned")
    x = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        assert torch.equal(loaded(x), pruned(x))
    assert loaded.state_dict().keys() == pruned.state_dict().keys(), "the heads are kept, so that fine-tuning goes on with them"


@pytest.mark.parametrize("n", [1, 2, 5, 9, 16, 17])
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_pool_by_is_padded_average_pooling(n: int, stride: int) -> None:
    x = torch.randn(1, 2, n, n + 1)
    torch.testing.assert_close(pool_by(x, stride), F.avg_pool2d(x, 2 * stride + 1, stride, padding=stride))


def test_context_of_a_single_cell() -> None:
    itself, context = moved(PooledContext(8, 8))(torch.randn(1, 8, 1, 1))
    assert [tuple(part.shape) for part in (itself, *context)] == [(1, 8, 1, 1)] * 5


@pytest.mark.parametrize("stride", [1, 2])
def test_expanding_depthwise_is_a_convolution_with_six_outputs_a_channel(stride: int) -> None:
    torch.manual_seed(0)
    module = ExpandingDepthwise(4, stride=stride).eval()
    steps = [[m for m in branch.modules() if isinstance(m, nn.Conv2d)] for branch in module.branches]
    assert all(len(convolutions) == stride for convolutions in steps)
    x = torch.randn(2, 4, 7, 9)
    y = x
    for step in range(stride):
        weights = torch.stack([convolutions[step].weight for convolutions in steps], dim=1).flatten(0, 1)  # channel-major, as a multiplier
        y = F.conv2d(y, weights, stride=stride if step == 0 else 1, padding=1, groups=y.shape[1]) / (1 + 1e-5) ** 0.5
    got = module(x).unflatten(1, (6, 4)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(got, torch.relu(y), rtol=1e-5, atol=1e-6)


def test_parallel_aggregation_is_one_convolution_in_four_groups() -> None:
    torch.manual_seed(0)
    module = moved(ParallelAggregation(8, 8, 16))
    assert isinstance(module, ParallelAggregation)
    x = torch.randn(1, 8, 5, 6)
    grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4, bias=False)
    norms = [process.get_submodule("0") for process in module.process]
    with torch.inference_mode():
        grouped.weight.copy_(torch.cat([process.get_submodule("1").weight for process in module.process]))  # type: ignore[arg-type, misc]
        itself, context = module.context(x)
        maps = grouped(torch.cat([norm(itself + wider) for norm, wider in zip(norms, context, strict=True)], dim=1))
        expected = module.compress(torch.cat([itself, maps], dim=1)) + module.shortcut(x)
        torch.testing.assert_close(module(x), expected)


def test_pixel_attention_stays_between_its_two_maps() -> None:
    torch.manual_seed(0)
    module = moved(PixelAttention(8, 4, 4))
    fine, coarse = torch.randn(1, 4, 6, 6), torch.randn(1, 8, 3, 3)
    with torch.inference_mode():
        got = module(fine, coarse, 2, None)
        other = F.interpolate(module.get_submodule("compress")(coarse), (6, 6), mode="bilinear", align_corners=False)
    low, high = torch.minimum(fine, other), torch.maximum(fine, other)
    assert bool(((got >= low - 1e-5) & (got <= high + 1e-5)).all())
    assert not torch.allclose(got, fine)


def test_norm_in_front_of_a_convolution_folds_into_a_depthwise_one() -> None:
    torch.manual_seed(0)
    net = moved(nn.Sequential(NormAct(5), nn.Conv2d(5, 2, 1)))
    folded = fold(net)
    x = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(folded(x), net(x))
    kinds = [type(module) for module in folded.modules()]
    assert nn.BatchNorm2d not in kinds
