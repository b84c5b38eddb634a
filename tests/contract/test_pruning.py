"""Every network that gives a class a pixel can be pruned: it is sound, keeps its classes, comes back from disk, folds and trains on. One of
each way to be built also exports and answers as in torch; exporters see ordinary layers, cut or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeseg.core.bundle import BundleInfo, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.manifest import Contract
from edgeseg.core.metrics import agreement
from edgeseg.models import MODELS, Network, build, channel_shapes, count_macs, fold
from edgeseg.models.outputs import Outputs
from edgeseg.pruning import Pruner, layer_shapes
from edgeseg.pruning.prune import macs
from edgeseg.training.checkpoint import CheckpointMeta, load_checkpoint, save_checkpoint
from edgeseg.training.evaluate import torch_predictor
from edgeseg.workflow.bundle.bundling import own_answer
from edgeseg.workflow.zoo_worker import settle
from exporters import EXPORTERS

NARROW = {name: ModelSection(name=name, width=0.25) for name in ("unet", "fcn32s", "fcn16s", "fcn8s")}
ON_ENCODERS = {
    f"{name} on {encoder}": ModelSection(name=name, encoder=encoder, width=0.5)
    for name, encoder in (("unet", "mobilenet_v2"), ("fcn8s", "resnet18"), ("unet", "efficientnet_lite0"))
}
CASES = {
    **{name: NARROW.get(name, ModelSection(name=name, width=0.5)) for name, spec in MODELS.items() if spec.task == "semantic"},
    **ON_ENCODERS,
}
EXPORTED = {"unet", "fcn8s", "fast_scnn", "lraspp_mobilenet_v3_small", "pidnet_s"}
"""Transposed convolutions, sums of scores, depthwise layers and pooling, gates, and several branches in groups."""
HW = (64, 96)


@pytest.mark.parametrize("name", CASES)
def test_pruned_network_is_sound_and_answers_as_in_torch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*HW, 3), dtype=np.uint8) for _ in range(6)]
    net = build(CASES[name], 4)
    settle(net, frames)
    assert isinstance(net, Network)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    pruner = Pruner(net, HW, importance="magnitude", round_to=8)
    total, least = count_macs(net, HW), pruner.least(macs)
    assert pruner.full(macs) == total
    budget = max(0.5 * total, 1.05 * least)
    pruned, report = pruner.cut(macs, budget, scope="global")

    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert count_macs(pruned, HW) == report.macs_after <= budget
    assert pruner.cost_of(pruned, macs) == report.macs_after, "what a cut costs is known before it is made"
    shapes = layer_shapes(pruned, HW)
    assert all(shapes[layer].out_channels == 4 for layer in net.class_layers)
    for module in pruned.modules():
        if isinstance(module, nn.Conv2d):
            assert tuple(module.weight.shape[:2]) == (module.out_channels, module.in_channels // module.groups)

    contract, names = Contract(height=HW[0], width=HW[1]), ("a", "b", "c", "d")
    meta = CheckpointMeta(
        model=CASES[name], num_classes=4, classes=names, palette=((0, 0, 0),) * 4, contract=contract, config_sha256="0" * 64,
        dataset="none", dataset_sha256="0" * 64,
    )
    save_checkpoint(tmp_path / "checkpoint", pruned, meta)
    loaded, _ = load_checkpoint(tmp_path / "checkpoint")
    assert channel_shapes(loaded) == channel_shapes(pruned)
    x = torch.randn(1, 3, 45, 67)
    with torch.inference_mode():
        expected = pruned(x)
        assert torch.equal(loaded(x), expected)
        torch.testing.assert_close(fold(loaded)(x), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    out = loaded.train()(torch.randn(2, 3, 64, 64))
    (out.main if isinstance(out, Outputs) else out).mean().backward()  # fine-tuning works

    if name not in EXPORTED:
        return
    settle(pruned, frames)
    (tmp_path / "model").mkdir()
    info = BundleInfo(name="pruned", contract=contract, classes=names, palette=((0, 0, 0),) * 4, reference=None, parents=(),
                      config_sha256="")
    bundle = seal_bundle(tmp_path / "bundle", EXPORTERS["openvino"](pruned, contract, tmp_path / "model"), info, golden_frames=[],
                         answer=own_answer)
    run, predict = own_answer(bundle)[1], torch_predictor(pruned, contract)
    assert np.mean([agreement(run(frame), predict(frame)) for frame in frames]) >= 0.999  # type: ignore[arg-type]
