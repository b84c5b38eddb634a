"""Every encoder of the registry: counts and maps as published, any size, under U-Net and FCN, folded and exported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeseg.core.config import ModelSection
from edgeseg.core.encoders import DEFAULT_ENCODERS, PACKAGES, SMALLEST_SIDE, encoder_of
from edgeseg.core.manifest import Contract
from edgeseg.models import ENCODERS, MODELS, ContractModule, Network, build, fold
from edgeseg.models.encoders import Encoder, build_encoder
from exporters import EXPORTERS

on_every_encoder = pytest.mark.parametrize("name", ENCODERS)
on_two_networks = pytest.mark.parametrize("network", ["unet", "fcn8s"])
STRIDES = {"unet": 1, "fcn8s": 8}
PUBLISHED = {
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "vgg16": 138_365_992, "inception_v3": 27_161_264,
    "mobilenet_v2": 3_504_872, "mobilenet_v3_small": 2_542_856, "mobilenet_v3_large": 5_483_032, "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680, "efficientnet_lite2": 6_092_072,
}


def narrow(network: str, encoder: str) -> nn.Module:
    return build(ModelSection(name=network, encoder=encoder, width=0.125), 3, seed=1)


def moved(net: nn.Module) -> nn.Module:
    """With running statistics that are not those of a network just built."""
    net.train()
    with torch.no_grad():
        net(torch.randn(2, 3, 96, 96))
    return net.eval()


@on_every_encoder
def test_parameters_with_the_classifier_are_the_references(name: str) -> None:
    spec = ENCODERS[name]
    with torch.device("meta"):
        encoder = build_encoder(name)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == spec.num_params
    assert spec.reference_params == PUBLISHED[name]
    assert (encoder.strides, encoder.channels) == (spec.strides, spec.channels)


@on_every_encoder
@pytest.mark.parametrize("hw", [(96, 128), (75, 101), (90, 79)])
def test_maps_have_the_cells_of_their_stride_at_any_size(name: str, hw: tuple[int, int]) -> None:
    encoder = build_encoder(name, 0.125).eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(1, 3, *hw))
    cells = [tuple(one.shape) for one in maps]
    assert cells == [(1, c, -(-hw[0] // s), -(-hw[1] // s)) for c, s in zip(encoder.channels, encoder.strides, strict=True)]
    assert encoder.strides[-1] == 32


@on_every_encoder
@on_two_networks
def test_networks_take_every_encoder_at_any_size_and_fold(name: str, network: str) -> None:
    assert name in MODELS[network].encoders
    net = moved(narrow(network, name))
    assert isinstance(net, Network)
    folded = fold(net)
    assert not [key for key, module in folded.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    x, stride = torch.randn(1, 3, 77, 101), STRIDES[network]
    with torch.inference_mode():
        expected, got = net(x), folded(x)
    assert got.shape == (1, 3, -(-77 // stride), -(-101 // stride))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@on_every_encoder
def test_a_unet_on_it_learns_in_every_parameter(name: str) -> None:
    net = narrow("unet", name).train()
    net(torch.randn(2, 3, 96, 96)).square().mean().backward()
    assert [key for key, parameter in net.named_parameters() if parameter.grad is None] == []


@on_every_encoder
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    first, second = narrow("fcn8s", name).state_dict(), narrow("fcn8s", name).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize(("network", "encoder"), [
    ("unet", "resnet18"), ("fcn8s", "vgg16"), ("fcn16s", "inception_v3"), ("unet", "mobilenet_v3_small"), ("effnet_lite", ""),
])
def test_onnx_answers_as_torch_at_a_size_that_no_stride_divides(network: str, encoder: str, tmp_path: Path) -> None:
    import onnxruntime

    contract = Contract(height=90, width=118)
    section = ModelSection(name=network, encoder=encoder, width=0.125)
    assert encoder_of(section)
    net = moved(build(section, 3, seed=1))
    frame = torch.randint(0, 256, (1, 90, 118, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = ContractModule(net, contract)(frame).numpy()
    assert len(np.unique(expected)) > 1
    model = EXPORTERS["onnx"](net, contract, tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / model.entry), providers=["CPUExecutionProvider"])
    assert float((session.run(None, {"frame": frame.numpy()})[0] == expected).mean()) >= 0.999


def test_the_page_on_models_lists_every_network_and_encoder_with_its_count() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    for name, spec in ENCODERS.items():
        assert f"| `{name}`" in page, name
        assert f" | {spec.num_params:,} | {spec.reference_params:,} | " in page, name
    for name, network in MODELS.items():
        assert f"| `{name}` | {network.num_params:,} | " in page, name


def test_the_encoders_named_without_torch_are_those_of_the_registry() -> None:
    assert set(SMALLEST_SIDE) | set(PACKAGES) | set(DEFAULT_ENCODERS.values()) <= set(ENCODERS)
    for network, encoder in DEFAULT_ENCODERS.items():
        spec = MODELS[network]
        assert not spec.encoders or encoder in spec.encoders
        with torch.device("meta"):
            assert isinstance(build(ModelSection(name=network), 3).get_submodule("encoder"), Encoder)
