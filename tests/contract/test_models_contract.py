"""Every network of the registry that gives a class a pixel: any size, natural stride, folds, trains, exports statically."""

import pytest
import torch
from torch import nn

from edgeseg.core.config import ModelSection
from edgeseg.models import MODELS, Network, build, fold

NARROW = {name: ModelSection(name=name, width=0.125) for name in ("unet", "fcn32s", "fcn16s", "fcn8s")}
SEMANTIC = [name for name, spec in MODELS.items() if spec.task == "semantic"]
STRIDES = {"unet": 1, "effnet_lite": 4}


def narrow(name: str, num_classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return build(NARROW.get(name, ModelSection(name=name, width=0.25)), num_classes)


@pytest.mark.parametrize("name", SEMANTIC)
@pytest.mark.parametrize("hw", [(64, 96), (37, 53), (16, 16)])
def test_any_size_gives_scores_at_one_stride(name: str, hw: tuple[int, int]) -> None:
    net = narrow(name).eval()
    with torch.inference_mode():
        scores = net(torch.randn(1, 3, *hw))
    stride = STRIDES.get(name, 8)
    assert scores.shape == (1, 3, -(-hw[0] // stride), -(-hw[1] // stride))


@pytest.mark.parametrize("name", SEMANTIC)
def test_folded_network_answers_the_same(name: str) -> None:
    net = narrow(name)
    net.train()
    with torch.no_grad():
        net(torch.randn(2, 3, 64, 64))
    net.eval()
    x = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        expected, got = net(x), fold(net)(x)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", SEMANTIC)
def test_class_layers_exist_and_end_in_the_classes(name: str) -> None:
    net = narrow(name, num_classes=7)
    assert isinstance(net, Network)
    assert all(net.get_submodule(layer).out_channels == 7 for layer in net.class_layers)


@pytest.mark.parametrize("name", SEMANTIC)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net = narrow(name).train()
    out = net(torch.randn(2, 3, 64, 64))
    outputs = [out] if isinstance(out, torch.Tensor) else [out.main, *out.aux, *([] if out.boundary is None else [out.boundary])]
    torch.stack([scores.square().mean() for scores in outputs]).sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", SEMANTIC)
def test_width_multiplies_channels_in_eights(name: str) -> None:
    for module in fold(narrow(name)).modules():
        if isinstance(module, nn.Conv2d) and module.out_channels != 3:
            assert module.out_channels % 8 == 0


@pytest.mark.parametrize("name", SEMANTIC)
def test_exported_graph_is_static(name: str) -> None:
    program = torch.export.export(narrow(name).eval(), (torch.randn(1, 3, 37, 53),))
    output = next(iter(program.graph.nodes.__reversed__())).args[0][0].meta["val"]
    assert all(isinstance(size, int) for size in output.shape)
