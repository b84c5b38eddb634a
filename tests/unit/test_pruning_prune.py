"""Pruning of every network: sound shapes, the share reached, the classes untouched, a checkpoint that comes back."""

from pathlib import Path

import pytest
import torch
from torch import nn

from edgeseg.core.config import ModelSection
from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import Contract
from edgeseg.models import MODELS, build, channel_shapes, count_macs, fold
from edgeseg.models.outputs import Outputs
from edgeseg.pruning import prune
from edgeseg.training.checkpoint import CheckpointMeta, load_checkpoint, save_checkpoint

NARROW = {
    "unet": ModelSection(name="unet", width=0.25, depth=3),
    **{name: ModelSection(name=name, width=0.5) for name in ("bisenet_v2", "ddrnet_23_slim", "pidnet_s", "effnet_lite")},
    **{name: ModelSection(name=name, width=0.25) for name in ("fcn32s", "fcn16s", "fcn8s")},
}


def section_of(name: str) -> ModelSection:
    return NARROW.get(name, ModelSection(name=name))


def test_macs_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ConvTranspose2d(8, 4, 2, stride=2),
    )
    expected = 8 * 5 * 6 * 3 * 9 + 8 * 5 * 6 * 9 + 8 * 5 * 6 * 4 * 4
    assert count_macs(net, (10, 12)) == expected


def test_macs_of_fast_scnn_are_the_measured_half_giga() -> None:
    assert count_macs(build(ModelSection(), 11), (360, 480)) == pytest.approx(0.57e9, rel=0.02)


@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if spec.task == "semantic"])
def test_pruned_network_is_sound_and_comes_back_from_disk(name: str, tmp_path: Path) -> None:
    section = section_of(name)
    net = build(section, 5)
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
    for module in pruned.modules():
        if isinstance(module, nn.Conv2d):
            assert tuple(module.weight.shape[:2]) == (module.out_channels, module.in_channels // module.groups)

    meta = CheckpointMeta(
        model=section, num_classes=5, classes=("a", "b", "c", "d", "e"), palette=((0, 0, 0),) * 5, contract=Contract(height=96, width=128),
        config_sha256="0" * 64, dataset="none", dataset_sha256="0" * 64,
    )
    saved = save_checkpoint(tmp_path / "pruned", pruned, meta)
    loaded, loaded_meta = load_checkpoint(tmp_path / "pruned")
    assert loaded_meta == saved.meta
    assert channel_shapes(loaded) == channel_shapes(pruned)
    x = torch.randn(1, 3, 45, 67)
    with torch.inference_mode():
        expected = pruned(x)
        assert torch.equal(loaded(x), expected)
        torch.testing.assert_close(fold(loaded)(x), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    out = loaded.train()(torch.randn(2, 3, 64, 64))
    (out.main if isinstance(out, Outputs) else out).mean().backward()  # fine-tuning works


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
