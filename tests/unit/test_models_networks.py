"""Parameter counts against the papers, blocks against their definitions, the contract in torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgeseg.core.config import ModelSection
from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import Contract
from edgeseg.models import MODELS, ContractModule, build, count_parameters, decide, fold, normalise, upsample_logits
from edgeseg.models.blocks import pool_to, scaled
from edgeseg.models.lraspp import LARGE, LrAspp


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count_is_the_papers(name: str) -> None:
    spec = MODELS[name]
    with torch.device("meta"):  # FCN on VGG-16 would take half a gigabyte
        got = count_parameters(build(ModelSection(name=name), spec.num_classes))
    assert got == spec.num_params
    assert abs(got - spec.published_params) <= 0.03 * spec.published_params


def test_lraspp_large_with_halved_last_block_matches_table_7() -> None:
    assert round(count_parameters(LrAspp(19, LARGE, halve_last=True)) / 1e6, 2) == 1.51


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fast_scnn'"):
        build(ModelSection(name="fast_scn"), 3)


@pytest.mark.parametrize(("wish", "got"), [(32, 32), (12, 16), (1, 8), (20, 24), (100, 104), (83, 80)])
def test_scaled_rounds_to_eight(wish: float, got: int) -> None:
    assert scaled(wish) == got


@pytest.mark.parametrize(("h", "w"), [(12, 18), (6, 6), (6, 12)])
def test_pool_to_is_adaptive_pooling_where_bins_divide(h: int, w: int) -> None:
    x = torch.randn(2, 3, h, w)
    torch.testing.assert_close(pool_to(x, 6), F.adaptive_avg_pool2d(x, 6))


def test_pool_to_covers_every_cell_of_an_uneven_map() -> None:
    x = torch.randn(1, 1, 12, 17, requires_grad=True)
    pooled = pool_to(x, 6)
    assert pooled.shape[2:] == (6, 6)
    pooled.sum().backward()
    assert x.grad is not None
    assert bool((x.grad > 0).all())


def test_fold_changes_no_answer_and_leaves_the_original() -> None:
    torch.manual_seed(0)
    net = build(ModelSection(name="unet", width=0.125, depth=2), 3)
    net.train()
    net(torch.randn(2, 3, 32, 32))  # moves the running statistics away from identity
    net.eval()
    x = torch.randn(1, 3, 30, 34)
    folded = fold(net)
    torch.testing.assert_close(folded(x), net(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())


def test_normalise_is_per_channel_rgb() -> None:
    frame = torch.tensor([[[[124, 116, 0]]]], dtype=torch.uint8)
    got = normalise(frame)[0, :, 0, 0].numpy()
    np.testing.assert_allclose(got, [0.0, 0.0, (0 - 104) / 57.375], rtol=1e-5)


def test_threshold_of_one_score_and_of_two_agree() -> None:
    score = torch.linspace(-3, 3, 50).view(1, 1, 5, 10)
    two = torch.cat([torch.zeros_like(score), score], dim=1)
    contract = Contract(height=5, width=10, decision="threshold", threshold=0.7)
    expected = (torch.sigmoid(score[:, 0]) > 0.7).to(torch.uint8)
    assert torch.equal(decide(score, contract), expected)
    assert torch.equal(decide(two, contract), expected)
    half = Contract(height=5, width=10, decision="threshold", threshold=0.5)
    assert torch.equal(decide(two, half), decide(two, Contract(height=5, width=10)))


def test_contract_module_answers_frames_with_class_maps() -> None:
    torch.manual_seed(0)
    net = build(ModelSection(name="fast_scnn", width=0.25), 5).eval()
    frame = torch.randint(0, 256, (1, 40, 56, 3), dtype=torch.uint8)
    with torch.inference_mode():
        got = ContractModule(net, Contract(height=40, width=56))(frame)
        logits = upsample_logits(net(normalise(frame)), (40, 56))
    assert got.dtype == torch.uint8
    assert got.shape == (1, 40, 56)
    assert torch.equal(got, logits.argmax(1).to(torch.uint8))
