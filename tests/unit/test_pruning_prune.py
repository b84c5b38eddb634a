"""Pruning to a share of the MACs: the share reached, the classes untouched, the least important first; tests/contract has every network."""

import pytest
import torch
from torch import nn

from edgeseg.core.config import ModelSection
from edgeseg.core.errors import ConfigError
from edgeseg.models import build, count_macs
from edgeseg.pruning import prune

NARROW = {"unet": ModelSection(name="unet", width=0.25, depth=3), "bisenet_v2": ModelSection(name="bisenet_v2", width=0.5)}


def test_macs_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ConvTranspose2d(8, 4, 2, stride=2),
    )
    expected = 8 * 5 * 6 * 3 * 9 + 8 * 5 * 6 * 9 + 8 * 5 * 6 * 4 * 4
    assert count_macs(net, (10, 12)) == expected


def test_macs_of_fast_scnn_are_the_measured_half_giga() -> None:
    assert count_macs(build(ModelSection(), 11), (360, 480)) == pytest.approx(0.57e9, rel=0.02)


@pytest.mark.parametrize("name", ["fast_scnn", "unet", "bisenet_v2"])
def test_every_layer_loses_its_share(name: str) -> None:
    net = build(NARROW.get(name, ModelSection(name=name)), 5)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    pruned, report = prune(net, macs_share=0.6, round_to=8, example_hw=(96, 128))

    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert report.macs_after == count_macs(pruned, (96, 128)) <= 0.6 * count_macs(net, (96, 128)) == 0.6 * report.macs_before
    assert report.macs_share > 0.45  # the steps of round_to overshoot by little
    assert report.params_after < report.params_before
    classes = [row for row in report.channels if row.layer in net.class_layers]
    assert [row.after for row in classes] == [5] * len(net.class_layers)
    assert all(row.after % 8 == 0 for row in report.channels if row not in classes)
    assert any(row.after < row.before for row in report.channels)


def test_least_important_channels_go_first() -> None:
    net = build(ModelSection(name="unet", width=0.25, depth=1), 3)
    first = net.get_submodule("down.0.0.conv")
    assert isinstance(first, nn.Conv2d)
    with torch.no_grad():
        for module in net.modules():  # make every other channel of the first layer weak, and all else alike
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1.0)
        first.weight[::2] = 100.0
    pruned, _ = prune(net, macs_share=0.5, round_to=8, example_hw=(32, 32))
    kept = pruned.get_submodule("down.0.0.conv")
    assert isinstance(kept, nn.Conv2d)
    assert bool((kept.weight == 100.0).all())


def test_share_of_one_is_a_copy() -> None:
    net = build(ModelSection(width=0.25), 3)
    pruned, report = prune(net, macs_share=1.0, round_to=8, example_hw=(32, 32))
    assert pruned is not net
    assert report.macs_after == report.macs_before
    assert report.macs_share == 1.0


def test_share_that_would_empty_a_layer_is_refused_with_what_is_possible() -> None:
    net = build(ModelSection(width=0.25), 3)
    with pytest.raises(ConfigError, match=r"macs_share = 0.05 would empty a layer; set at least 0\.\d+") as error:
        prune(net, macs_share=0.05, round_to=8, example_hw=(32, 32))
    least = float(str(error.value).split("at least ")[1].split(",")[0])
    prune(net, macs_share=least, round_to=8, example_hw=(32, 32))
