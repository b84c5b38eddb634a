"""Rounding networks: the arithmetic by hand, what is rounded and what is not in every network, and the way back to plain weights."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.core.config import ModelSection
from edgeseg.core.errors import ConfigError
from edgeseg.models import MODELS, build, fold
from edgeseg.workflow.compress.qat import why_not
from edgeseg.workflow.steps import StepResult
from quantization.qat import FakeQuantized, check_unfolds, settle, unfold, watched
from quantization.qat.fake import fake_activations, fake_weights, grid

SEMANTIC = [name for name, spec in MODELS.items() if spec.task == "semantic"]
HW = (64, 96)


def frames(count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [F.interpolate(torch.randn(1, 3, 8, 12, generator=generator), HW, mode="bilinear") for _ in range(count)]


def network(name: str) -> nn.Module:
    """Random weights whose norms have seen frames."""
    encoder = "resnet18" if name.startswith("fcn") else ""
    net = build(ModelSection(name=name, width=0.1, encoder=encoder), 4).train()
    with torch.no_grad():
        for _ in range(10):
            net(torch.cat(frames() * 2))
    return net.eval()


def test_weights_are_rounded_one_scale_a_channel() -> None:
    w = np.random.default_rng(0).normal(size=(3, 2, 2, 2)).astype(np.float32)
    w[2] = 0
    expected = np.zeros_like(w)
    for c in range(2):
        scale = np.abs(w[c]).max() / 127
        expected[c] = np.round(w[c] / scale) * scale
    weight = torch.from_numpy(w).requires_grad_()
    got = fake_weights(weight, axis=0)
    np.testing.assert_allclose(got.detach().numpy(), expected, atol=1e-6)
    got.sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones_like(weight))  # straight through
    turned = fake_weights(torch.from_numpy(w.transpose(1, 0, 2, 3).copy()), axis=1)
    np.testing.assert_allclose(turned.numpy(), expected.transpose(1, 0, 2, 3), atol=1e-6)


def test_activations_are_rounded_between_their_ends_and_zero_stays() -> None:
    x = torch.tensor([-9.0, -0.93, -0.004, 0.0, 0.3, 1.97, 2.03, 7.0], requires_grad=True)
    low, high = torch.tensor([-1.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)
    scale, zero = grid(low, high)
    y = fake_activations(x, scale, zero)
    step = 3 / 255
    expected = np.clip(np.round(x.detach().numpy() / step), -85, 170) * step
    np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-6)
    assert y[3].item() == 0
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert high.grad is not None
    assert high.grad.item() > 0  # a wider range would clip less of what is above it


def test_ranges_start_where_rounding_costs_least() -> None:
    net = FakeQuantized(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), frames()[0])
    assert net.slot_names() == ["0"]
    with torch.no_grad():
        net.net[0].weight.fill_(0.5)
        net.net[0].bias.zero_()
    x = torch.linspace(0, 1, 600).view(1, 1, -1, 1).repeat(1, 3, 1, 600)
    x[0, :, 0, 0] = 2.0  # one outlier of 3 after the sum, beside 360,000 values up to 1.5
    settle(net, [x])
    (only,) = net.ranges()
    assert only[0] == 0
    assert 1.5 <= only[1] < 2.9
    x[0, :, 0, 0] = 1.0
    settle(net, [x])
    assert net.ranges()[0][1] == pytest.approx(1.5, rel=1e-5)


@pytest.mark.parametrize("name", SEMANTIC)
def test_every_network_rounds_learns_and_unfolds(name: str) -> None:
    net = network(name)
    folded, (x, other) = fold(net), frames()
    rounding = FakeQuantized(copy.deepcopy(folded), x)
    with torch.no_grad():
        expected = folded(x)
    # what is watched is float: nothing is rounded while somebody looks
    seen = watched(rounding, x)
    assert {slot for slot, _ in seen} == set(range(len(rounding.slots)))
    settle(rounding, [x, other])
    with torch.no_grad():
        got = rounding(x)
    assert not torch.equal(got, expected)
    assert float((got - expected).square().mean() / expected.var()) < 0.3
    # all from the class layers on stays float, and nothing else
    floats = [rounding.values[number] for number in rounding.floats]
    assert {value.name for value in floats if value.function == "conv2d"} == _class_layers(net)
    assert not set(rounding.slots) & rounding.floats
    # a copy learns, and the original knows nothing of it
    copied = copy.deepcopy(rounding).train()
    copied(x).square().mean().backward()
    assert all(p.grad is not None for p in copied.net.parameters())
    assert copied.log_high.grad is not None
    assert copied.log_high.grad.count_nonzero() > 0.9 * len(rounding.slots)
    assert all(p.grad is None for p in rounding.parameters())
    # the way back
    with torch.no_grad():
        for parameter in rounding.net.parameters():
            parameter.mul_(1.01)
        back = fold(unfold(net, rounding.net))
        torch.testing.assert_close(back(x), rounding.net(x), rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        torch.testing.assert_close(folded(x), expected)


def _class_layers(net: nn.Module) -> set[str]:
    heads = {name for name in dict(net.named_modules()) if name.split(".")[0] == "skips" and name.count(".") == 1}
    return {*net.class_layers, *heads}  # type: ignore[misc]


class ByHand(nn.Module):
    """A sum, a slice, a concatenation and a layer used twice, none of them a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.scores = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        b = self.shared(a[:, :, 1:]) + self.shared(a[:, :, :-1])
        return self.scores(torch.cat([b, F.relu6(b)], dim=1)) * 2.0


def test_values_are_numbered_as_they_are_computed() -> None:
    rounding = FakeQuantized(ByHand(), frames()[0])
    assert [value.function for value in rounding.values] == ["conv2d", "relu", "conv2d", "conv2d", "add", "relu6", "cat", "conv2d", "mul"]
    assert rounding.slot_names() == ["first", "shared", "shared", "add:4", "add:4", "cat:6"]
    assert [rounding.values[number].function for number in sorted(rounding.floats)] == ["conv2d", "mul"]
    # the sum is read as it is and behind an activation: two ranges; the slices share the one of what they are cut from
    assert sorted(slot for slot, _ in watched(rounding, frames()[0])) == [0, 0, 0, 1, 2, 3, 4, 5]


class AskingForSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.scores = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        return self.scores(F.avg_pool2d(y, 2) if x.shape[2] > 32 else torch.sigmoid(y))


def test_a_network_that_computes_otherwise_at_another_size_is_refused() -> None:
    rounding = FakeQuantized(AskingForSize(), frames()[0])
    rounding(torch.randn(2, 3, 48, 48))
    with pytest.raises(ConfigError, match=r"computes otherwise at another size \(sigmoid to 32x32 is its value 2\).*crop = \[0, 0\]"):
        rounding(torch.randn(1, 3, 32, 32))


def test_what_cannot_be_trained_for_int8_is_refused() -> None:
    with pytest.raises(ConfigError, match="no layer between its input and its class layers"):
        FakeQuantized(nn.Conv2d(3, 2, 1), frames()[0])
    keras_like = nn.Module()
    keras_like.fold_norms = lambda: None  # type: ignore[assignment]
    with pytest.raises(ConfigError, match=r'cannot be undone, .*rescue = "mixed"'):
        check_unfolds(keras_like)


def test_what_cannot_be_trained_for_int8_is_known_before_a_climb(monkeypatch: pytest.MonkeyPatch) -> None:
    keras_like, final = nn.Module(), StepResult("train", Path("anywhere"), "0" * 64, True, 0.0)
    monkeypatch.setattr("edgeseg.training.checkpoint.load_checkpoint", lambda _: (keras_like, None))
    assert why_not(final) == ""
    keras_like.fold_norms = lambda: None  # type: ignore[assignment]
    assert "norms of a Keras network" in why_not(final)


def test_norms_that_are_left_keep_their_statistics() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    rounding = FakeQuantized(net, frames()[0]).train()
    before = net[1].running_mean.clone()  # type: ignore[union-attr, operator]
    rounding(torch.randn(4, 3, 16, 16))
    assert torch.equal(net[1].running_mean, before)  # type: ignore[arg-type]
    assert rounding.slot_names() == ["0"]  # norm and activation are part of the layer
