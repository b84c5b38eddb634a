"""Every form of the decision head answers as bilinear resize + decision of torch does."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.core.manifest import Contract
from edgeseg.models import decide, upsample_logits
from exporters.head import DECISIONS, FASTEST, BandedHead, CellHead, ResizeHead, bilinear_matrix, cells_fit, fastest, head_for


def smooth(channels: int, h: int, w: int, *, seed: int) -> Tensor:
    """Scores as a network gives them: large areas of one class, soft borders, a little noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, channels, h // 4 + 2, w // 4 + 2, generator=generator)
    noise = torch.randn(1, channels, h, w, generator=generator)
    return 4 * F.interpolate(coarse, (h, w), mode="bicubic", align_corners=False) + 0.1 * noise


def assert_same(got: Tensor, scores_NCHW: Tensor, contract: Contract) -> None:
    """Equal, but where the decision hangs on less than float rounding."""
    assert got.dtype == torch.uint8 and got.shape == (1, contract.height, contract.width)
    differs = got != decide(scores_NCHW, contract)
    if scores_NCHW.shape[1] > 1:
        best = scores_NCHW.topk(2, dim=1).values
        margin = best[:, 0] - best[:, 1]
    else:
        assert contract.threshold is not None
        margin = (scores_NCHW[:, 0] - torch.logit(torch.tensor(contract.threshold))).abs()
    assert not differs.any() or float(margin[differs].max()) < 1e-4
    assert float(differs.float().mean()) < 1e-4


SIZES = [((12, 16), (96, 128)), ((23, 31), (90, 122)), ((24, 32), (48, 64)), ((40, 50), (40, 50)), ((9, 20), (9, 80))]


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("classes", [2, 3, 11, 19])
@pytest.mark.parametrize("size", SIZES)
def test_argmax_forms(decision: str, classes: int, size: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (h, w), (height, width) = size
    contract = Contract(height=height, width=width)
    noise = torch.randn(1, classes, h, w, generator=torch.Generator().manual_seed(4))
    for scores in (smooth(classes, h, w, seed=3), noise):
        for band_bytes in (1, 50_000, 1 << 30) if scores is not noise else (50_000,):
            head = BandedHead(classes, (h, w), contract, decision, band_bytes=band_bytes)
            assert_same(head(scores), upsample_logits(scores, (height, width)), contract)


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("scores_a_pixel", [1, 2])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.93])
def test_threshold_forms(decision: str, scores_a_pixel: int, threshold: float) -> None:
    contract = Contract(height=60, width=90, decision="threshold", threshold=threshold)
    scores = smooth(scores_a_pixel, 8, 12, seed=5)
    wide = upsample_logits(scores, (60, 90))
    got = BandedHead(scores_a_pixel, (8, 12), contract, decision, band_bytes=4096)(scores)
    assert 0 < float(got.float().mean()) < 1
    assert_same(got, wide if scores_a_pixel == 1 else wide[:, 1:] - wide[:, :1], contract)


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize(("threshold", "answer"), [(0.0, 1), (1.0, 0)])
def test_a_threshold_at_the_end_of_the_range_decides_all(decision: str, threshold: float, answer: int) -> None:
    contract = Contract(height=16, width=16, decision="threshold", threshold=threshold)
    got = BandedHead(1, (2, 2), contract, decision)(100 * smooth(1, 2, 2, seed=6))
    assert bool((got == answer).all())


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("scores_a_pixel", [1, 2])
def test_one_score_and_two_are_the_same_network(decision: str, scores_a_pixel: int) -> None:
    """Scores (0, s) and the one score s answer alike, by argmax, by a threshold and by two thresholds."""
    one = smooth(1, 8, 12, seed=5)
    scores = one if scores_a_pixel == 1 else torch.cat([torch.zeros_like(one), one], dim=1)
    wide = upsample_logits(one, (60, 90))
    for contract, limit in (
        (Contract(height=60, width=90), 0.0),
        (Contract(height=60, width=90, decision="threshold", threshold=0.8), math.log(4)),
        (Contract(height=60, width=90, decision="thresholds", thresholds=(0.2, 0.8)), math.log(4)),
    ):
        expected = (wide[:, 0] > limit).to(torch.uint8)
        assert 0 < float(expected.float().mean()) < 1
        for got in (BandedHead(scores_a_pixel, (8, 12), contract, decision)(scores), decide(upsample_logits(scores, (60, 90)), contract)):
            assert float((got != expected).float().mean()) < 1e-3


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("classes", [3, 11])
@pytest.mark.parametrize("size", SIZES)
def test_thresholds_one_a_class(decision: str, classes: int, size: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (h, w), (height, width) = size
    shares = torch.rand(classes, generator=torch.Generator().manual_seed(11), dtype=torch.float64) + 0.05
    thresholds = tuple((shares / shares.sum()).tolist())
    contract = Contract(height=height, width=width, decision="thresholds", thresholds=thresholds)
    scores = smooth(classes, h, w, seed=12)
    wide = upsample_logits(scores, (height, width))
    got = BandedHead(classes, (h, w), contract, decision, band_bytes=50_000)(scores)
    assert float((got != decide(wide, contract)).float().mean()) < 1e-4
    # As the words have it: of the classes whose probability lies above their threshold, the one with the largest ratio.
    ratio = wide.double().softmax(1) / torch.tensor(thresholds).double().view(1, -1, 1, 1)
    assert bool((ratio.amax(1) >= 1).all())
    assert float((got != ratio.argmax(1)).float().mean()) < 1e-4
    assert float((got != wide.argmax(1)).float().mean()) > 0.02


def test_equal_thresholds_are_argmax() -> None:
    scores = smooth(4, 12, 16, seed=13)
    equal = Contract(height=48, width=64, decision="thresholds", thresholds=(0.25,) * 4)
    plain = decide(upsample_logits(scores, (48, 64)), Contract(height=48, width=64))
    assert float((decide(upsample_logits(scores, (48, 64)), equal) != plain).float().mean()) < 1e-4


@pytest.mark.parametrize("decision", DECISIONS)
def test_the_first_of_equals_wins(decision: str) -> None:
    scores = torch.zeros(1, 4, 3, 5)
    scores[:, 2:] = 1.5  # classes 2 and 3 tie everywhere
    contract = Contract(height=12, width=20)
    assert bool((BandedHead(4, (3, 5), contract, decision, band_bytes=256)(scores) == 2).all())
    assert bool((BandedHead(2, (3, 5), contract, decision)(scores[:, :2]) == 0).all())


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("size", [1e-6, 1e4])
def test_scores_of_any_size(decision: str, size: float) -> None:
    scores = smooth(5, 6, 8, seed=7) * size
    contract = Contract(height=48, width=64)
    wide = upsample_logits(scores, (48, 64))
    assert float((BandedHead(5, (6, 8), contract, decision)(scores) != decide(wide, contract)).float().mean()) < 1e-3


def test_interpolation_weights_are_torchs_and_sum_to_one() -> None:
    rows = bilinear_matrix(7, 50)
    x = torch.rand(1, 1, 7, 1, generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(rows @ x[0, 0], upsample_logits(x, (50, 1))[0, 0])
    torch.testing.assert_close(rows.sum(1), torch.ones(50))


def test_a_large_head_is_cut_into_bands_that_read_few_rows() -> None:
    head = head_for("openvino", (1, 11, 45, 60), Contract(height=360, width=480))
    assert isinstance(head, BandedHead)
    assert len(head.bands) > 4
    assert head.bands[0][0] == 0 and head.bands[-1][1] == 45
    assert max(stop - first for first, stop in head.bands) < 45 / 3


def test_the_plain_head_is_the_reference() -> None:
    scores, contract = smooth(3, 6, 8, seed=9), Contract(height=48, width=64)
    assert torch.equal(ResizeHead((48, 64))(scores), decide(upsample_logits(scores, (48, 64)), contract))


def test_every_format_has_a_form() -> None:
    for format in FASTEST:
        assert {fastest(format, 2), fastest(format, 3), fastest(format, 19)} <= set(DECISIONS)


CELL_SIZES = [((12, 16), (96, 128)), ((6, 9), (24, 36)), ((5, 7), (40, 28)), ((1, 1), (8, 8)), ((9, 20), (36, 320))]


@pytest.mark.parametrize("classes", [3, 11, 19])
@pytest.mark.parametrize("size", CELL_SIZES)
def test_cells_answer_as_resize_and_argmax(classes: int, size: tuple[tuple[int, int], tuple[int, int]]) -> None:
    (h, w), (height, width) = size
    contract = Contract(height=height, width=width)
    assert cells_fit((h, w), contract, classes)
    head = CellHead(classes, (h, w), contract)
    for scores in (smooth(classes, h, w, seed=3), torch.randn(1, classes, h, w, generator=torch.Generator().manual_seed(4))):
        assert_same(head(scores), upsample_logits(scores, (height, width)), contract)


def test_cells_of_one_class_everywhere() -> None:
    scores = torch.zeros(1, 4, 5, 6)
    scores[:, 2:] = 1.5  # classes 2 and 3 tie everywhere: the first of equals
    assert bool((CellHead(4, (5, 6), Contract(height=40, width=48))(scores) == 2).all())


def test_cells_with_thresholds() -> None:
    thresholds = (0.6, 0.25, 0.1, 0.05)
    contract = Contract(height=80, width=96, decision="thresholds", thresholds=thresholds)
    scores = smooth(4, 10, 12, seed=12)
    wide = upsample_logits(scores, (80, 96))
    got = CellHead(4, (10, 12), contract)(scores)
    assert float((got != decide(wide, contract)).float().mean()) < 1e-4
    assert float((got != wide.argmax(1)).float().mean()) > 0.02


@pytest.mark.parametrize(
    ("scores_hw", "size", "classes"),
    [((24, 32), (48, 64), 5), ((23, 31), (90, 122), 5), ((6, 8), (42, 56), 5), ((12, 16), (96, 128), 2), ((40, 50), (40, 50), 5)],
    ids=["too small a factor", "uneven", "odd", "two classes", "full size"],
)
def test_cells_do_not_fit_everywhere(scores_hw: tuple[int, int], size: tuple[int, int], classes: int) -> None:
    assert not cells_fit(scores_hw, Contract(height=size[0], width=size[1]), classes)
    assert isinstance(head_for("onnx", (1, classes, *scores_hw), Contract(height=size[0], width=size[1])), BandedHead)


def test_only_runtimes_that_take_sizes_at_run_time_get_cells() -> None:
    contract = Contract(height=96, width=128)
    heads = {format: type(head_for(format, (1, 5, 12, 16), contract)) for format in FASTEST}
    assert heads == {"onnx": CellHead, "openvino": BandedHead, "tflite": BandedHead}
