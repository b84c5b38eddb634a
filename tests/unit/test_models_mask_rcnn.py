"""Mask R-CNN part by part, against plain loops; and the whole: fixed shapes at any size, static, of the reference's size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeseg.core.config import ModelSection
from edgeseg.models import count_parameters, fold
from edgeseg.models.encoders import ENCODERS
from edgeseg.models.mask_rcnn import InstanceContractModule, MaskRcnn, Regions, build
from edgeseg.models.mask_rcnn.align import POINTS, RoiAlign
from edgeseg.models.mask_rcnn.anchors import Anchors, level_anchors
from edgeseg.models.mask_rcnn.boxes import clip, decode, encode, iou, suppress
from edgeseg.models.mask_rcnn.detections import Detections
from edgeseg.models.mask_rcnn.heads import BoxHead, MaskHead
from edgeseg.models.mask_rcnn.proposals import Proposals
from edgeseg.models.mask_rcnn.pyramid import FeaturePyramid


def random_boxes(count: int, seed: int, side: float = 200.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    middle = side * torch.rand(count, 2, generator=generator)
    half = 0.1 * side * (0.2 + torch.rand(count, 2, generator=generator))
    return torch.cat([middle - half, middle + half], dim=1)


def small(**options: Any) -> MaskRcnn:
    torch.manual_seed(0)
    section = ModelSection(name="mask_rcnn", encoder="mobilenet_v3_small", **{"width": 0.25, "max_instances": 10, **options})
    net = build(section, 3)
    assert isinstance(net, MaskRcnn)
    return net


# ------------------------------------------------------------------ boxes


@pytest.mark.parametrize("weights", [(1.0, 1.0), (10.0, 5.0)])
def test_decode_undoes_encode(weights: tuple[float, float]) -> None:
    boxes, wanted = random_boxes(50, 0), random_boxes(50, 1)
    torch.testing.assert_close(decode(boxes, encode(boxes, wanted, weights), weights), wanted, rtol=1e-4, atol=1e-3)


def test_decode_moves_by_shares_of_the_size_and_grows_by_no_more_than_62_fold() -> None:
    box = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    torch.testing.assert_close(decode(box, torch.tensor([[0.5, -0.25, math.log(2), 0.0]])), torch.tensor([[10.0, 10.0, 50.0, 50.0]]))
    huge = decode(box, torch.tensor([[0.0, 0.0, 100.0, 0.0]]))
    assert float(huge[0, 2] - huge[0, 0]) == pytest.approx(20 * 1000 / 16)


def test_clip_and_iou() -> None:
    assert clip(torch.tensor([[-3.0, 5.0, 200.0, 7.0]]), (50, 100)).tolist() == [[0.0, 5.0, 100.0, 7.0]]
    found = iou(torch.tensor([[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 1.0, 1.0]]), torch.tensor([[2.0, 0.0, 6.0, 4.0], [9.0, 9.0, 9.0, 9.0]]))
    torch.testing.assert_close(found, torch.tensor([[8 / 24, 0.0], [0.0, 0.0]]))


def greedy(overlap: np.ndarray, threshold: float) -> np.ndarray:
    kept = np.ones(len(overlap), dtype=bool)
    for i in range(len(overlap)):
        if kept[i]:
            kept[i + 1 :] &= ~(overlap[i, i + 1 :] > threshold)
    return kept


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_suppression_is_greedy_suppression(threshold: float) -> None:
    equal, fast = 0, 0
    for seed in range(30):
        around = random_boxes(6, seed).repeat(20, 1)
        boxes = around + 4 * torch.randn(120, 4, generator=torch.Generator().manual_seed(seed))
        overlap = iou(boxes, boxes)
        wanted = greedy(overlap.numpy(), threshold)
        equal += bool((suppress(overlap, threshold).numpy().astype(bool) == wanted).all())
        fast += bool((suppress(overlap, threshold, steps=1).numpy().astype(bool) == wanted).all())
    assert equal >= 29, "the steps are too few"
    assert fast < 15, "these sets would not notice Fast NMS in its place"


def test_boxes_exactly_alike_leave_one() -> None:
    overlap = iou(*2 * (torch.tensor([[0.0, 0.0, 5.0, 5.0]]).expand(7, 4),))
    assert suppress(overlap, 0.5).tolist() == [1.0, 0, 0, 0, 0, 0, 0]


# ------------------------------------------------------------------ anchors, pyramid, proposals


def test_anchors_lie_around_cells_and_have_the_papers_areas() -> None:
    anchors = level_anchors((2, 3), 16).reshape(2, 3, 3, 4)
    middle = (anchors[..., :2] + anchors[..., 2:]) / 2
    torch.testing.assert_close(middle[1, 2], torch.tensor([[40.0, 24.0]]).expand(3, 2))
    side = anchors[..., 2:] - anchors[..., :2]
    torch.testing.assert_close(side.prod(-1), torch.full((2, 3, 3), 128.0**2))
    torch.testing.assert_close((side[..., 1] / side[..., 0])[0, 0], torch.tensor([0.5, 1.0, 2.0]))


def test_anchors_are_made_anew_for_another_size_and_are_in_no_checkpoint() -> None:
    anchors = Anchors((4, 8))
    cpu = torch.device("cpu")
    assert anchors([(4, 6), (2, 3)], cpu).shape == (90, 4)
    assert anchors([(2, 2), (1, 1)], cpu).shape == (15, 4)
    torch.testing.assert_close(anchors([(2, 2), (1, 1)], cpu)[12:], level_anchors((1, 1), 8))
    assert anchors.state_dict() == {}


@pytest.mark.parametrize("hw", [(64, 96), (37, 53)])
def test_pyramid_gives_the_levels_of_its_strides(hw: tuple[int, int]) -> None:
    sizes = [(-(-hw[0] // s), -(-hw[1] // s)) for s in (4, 8, 16, 32, 64)]
    levels = FeaturePyramid([3, 4, 5, 6], 8)([torch.randn(2, 3 + i, *size) for i, size in enumerate(sizes[:4])])
    assert [tuple(level.shape) for level in levels] == [(2, 8, *size) for size in sizes]


def test_what_a_coarse_cell_holds_reaches_just_the_cells_it_covers() -> None:
    pyramid = FeaturePyramid([1, 1, 1, 1], 1)
    for module in [*pyramid.inner, *pyramid.outer]:
        torch.nn.init.zeros_(module.weight)
        torch.nn.init.zeros_(module.bias)
    for inner, outer in zip(pyramid.inner, pyramid.outer, strict=True):
        inner.weight.data[:] = 1
        outer.weight.data[0, 0, 1, 1] = 1
    maps = [torch.zeros(1, 1, size, size) for size in (7, 4, 2, 1)]
    maps[1][0, 0, 3, 1] = 1.0
    assert torch.nonzero(pyramid(maps)[0][0, 0]).tolist() == [[6, 2], [6, 3]]  # row 7 lies past the edge


def test_proposals_are_the_best_that_do_not_overlap_and_then_the_suppressed_ones() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [90, 90, 120, 120]])
    scores, deltas = torch.tensor([3.0, 4.0, 1.0, -2.0]), torch.zeros(4, 4)
    boxes = Proposals(4)(scores, deltas, anchors, (100, 100))
    assert boxes.tolist() == [[1, 0, 11, 10], [50, 50, 60, 60], [90, 90, 100, 100], [0, 0, 10, 10]]
    assert Proposals(2)(scores, deltas, anchors, (100, 100)).tolist() == boxes[:2].tolist()
    assert len(Proposals(9)(scores, deltas, anchors, (100, 100))) == 4


# ------------------------------------------------------------------ RoIAlign


def looked_up(levels: list[Tensor], box: list[float]) -> np.ndarray:
    """RoIAlign of one box in plain loops; eq. 1 of arXiv:1612.03144 written out."""
    x0, y0, x1, y1 = box
    k = min(5, max(2, math.floor(4 + math.log2(math.sqrt((x1 - x0) * (y1 - y0)) / 224))))
    level, stride = levels[k - 2][0].numpy(), 2**k
    height, width = level.shape[1:]
    answer = np.zeros((level.shape[0], POINTS, POINTS))
    for i in range(POINTS):
        for j in range(POINTS):
            y = min(max((y0 + (i + 0.5) * (y1 - y0) / POINTS) / stride - 0.5, 0), height - 1)
            x = min(max((x0 + (j + 0.5) * (x1 - x0) / POINTS) / stride - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            answer[:, i, j] = ((1 - dy) * ((1 - dx) * level[:, top, left] + dx * level[:, top, right])
                               + dy * ((1 - dx) * level[:, below, left] + dx * level[:, below, right]))
    return answer


def pyramid_of(hw: tuple[int, int], frames: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(frames, 3, -(-hw[0] // s), -(-hw[1] // s), generator=generator) for s in (4, 8, 16, 32)]


def test_roi_align_is_bilinear_on_the_level_of_the_boxs_size() -> None:
    levels = pyramid_of((500, 620))
    boxes = [[3.0, 5.5, 40.25, 60.0], [100.0, 20.0, 250.0, 190.0], [10.0, 10.0, 400.0, 300.0], [0.0, 0.0, 620.0, 500.0],
             [600.0, 480.0, 620.0, 500.0], [8.0, 8.0, 8.0, 8.0], [30.0, 40.0, 142.0, 152.0], [30.0, 40.0, 253.9, 264.0]]
    got = RoiAlign((4, 8, 16, 32))(levels, torch.tensor(boxes))
    assert got.shape == (8, 3, POINTS, POINTS)
    for box, features in zip(boxes, got, strict=True):
        if box[2] > box[0]:
            np.testing.assert_allclose(features.numpy(), looked_up(levels, box), atol=2e-4)
    assert bool(torch.isfinite(got).all())


def test_roi_align_of_several_frames_is_that_of_each() -> None:
    levels = pyramid_of((64, 96), frames=3)
    boxes, frame = random_boxes(12, 0, 60), torch.tensor([2, 0, 1] * 4)
    align = RoiAlign((4, 8, 16, 32))
    alone = [align([level[i : i + 1] for level in levels], boxes[n : n + 1])[0] for n, i in enumerate(frame.tolist())]
    torch.testing.assert_close(align(levels, boxes, frame), torch.stack(alone))


def test_roi_align_passes_gradients_to_features() -> None:
    levels = [level.double().requires_grad_(True) for level in pyramid_of((32, 48))]
    boxes = torch.tensor([[2.0, 3.0, 17.0, 20.0]], dtype=torch.float64)
    align = RoiAlign((4, 8, 16, 32))
    assert torch.autograd.gradcheck(lambda first: align([first, *levels[1:]], boxes), (levels[0],), atol=1e-4, rtol=1e-3, eps=1e-3)


# ------------------------------------------------------------------ heads, detections


def test_the_mask_of_a_class_is_its_row_of_the_last_convolution() -> None:
    head = MaskHead(4, 8, 5)
    features, rows = torch.randn(6, 4, POINTS, POINTS), torch.tensor([0, 3, 1, 2, 3, 0])
    x = features
    for conv in head.convs:
        x = torch.relu(conv(x))
    every = head.scores(torch.relu(head.up(x)))
    torch.testing.assert_close(head(features, rows), every[torch.arange(6), rows], rtol=1e-4, atol=1e-5)


def test_the_box_head_sees_means_of_2x2_points() -> None:
    head = BoxHead(2, 8, 3)
    features = torch.randn(5, 2, POINTS, POINTS)
    bins = features.reshape(5, 2, 7, 2, 7, 2).mean(dim=(3, 5)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(head(features), head(bins), rtol=1e-4, atol=1e-5)


def test_detections_suppress_within_a_class_only_and_leave_slots_empty() -> None:
    boxes = torch.tensor([[0.0, 0, 20, 20], [1, 0, 21, 20], [0, 0, 20, 21], [50, 50, 90, 90]])
    logits = torch.log(torch.tensor([[0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.2, 0.02, 0.78], [0.97, 0.02, 0.01]]))
    found, row = Detections(5)(boxes, logits, torch.zeros(4, 8), (100, 100))
    torch.testing.assert_close(found[:, 4:], torch.tensor([[0.8, 1], [0.78, 2], [0, 0], [0, 0], [0, 0]]))
    torch.testing.assert_close(found[:2, :4], boxes[[0, 2]])
    assert row.tolist()[:2] == [0, 1] and not found[2:].any()


def test_each_class_has_a_box_of_its_own() -> None:
    boxes, logits = torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([[0.0, 2.0, 2.0]])
    deltas = torch.tensor([[0.0, 0, 0, 0, 10.0, 0, 0, 0]])  # a step of one width for class 2, as offsets are 10-fold
    found, _ = Detections(2)(boxes, logits, deltas, (100, 100))
    assert sorted((int(row[5]), row[0].item()) for row in found) == [(1, 0.0), (2, 20.0)]


# ------------------------------------------------------------------ the whole


def test_as_many_parameters_as_the_reference() -> None:
    """torchvision's maskrcnn_resnet50_fpn has 44,401,393 at 91 classes; its norms are frozen (53,120 more here), and it has boxes and
    masks for the background too (4,357 fewer here)."""
    with torch.device("meta"):
        net = build(ModelSection(name="mask_rcnn", encoder="resnet50"), 91)
    assert count_parameters(net) == 44_401_393 + 53_120 - 4_357
    assert abs(count_parameters(net) / 44_401_393 - 1) < 0.01


@pytest.mark.parametrize("encoder", ENCODERS)
def test_stands_on_every_encoder(encoder: str) -> None:
    with torch.device("meta"):
        net = build(ModelSection(name="mask_rcnn", encoder=encoder, width=0.25, max_instances=5), 4).eval()
        found, masks = net(torch.empty(1, 3, 90, 131))
    assert (found.shape, masks.shape) == ((5, 6), (5, 28, 28))


def test_width_scales_pyramid_and_heads_and_not_the_encoder() -> None:
    wide, light = small(width=1.0), small()
    assert count_parameters(wide.encoder) == count_parameters(light.encoder)
    assert (wide.rpn.conv.out_channels, light.rpn.conv.out_channels) == (256, 64)
    assert count_parameters(light) < 0.15 * count_parameters(wide)


@pytest.mark.parametrize("hw", [(64, 96), (37, 53), (16, 16)])
@pytest.mark.parametrize("slots", [10, 200])
def test_shapes_depend_on_nothing_that_is_in_the_frame(hw: tuple[int, int], slots: int) -> None:
    net = small(max_instances=slots).eval()
    for x_NCHW in (torch.randn(1, 3, *hw), torch.zeros(1, 3, *hw)):
        with torch.inference_mode():
            found, masks = net(x_NCHW)
        assert found.shape == (slots, 6) and masks.shape == (slots, 28, 28)
        assert bool(torch.isfinite(found).all()) and float(masks.min()) >= 0 and float(masks.max()) <= 1
        assert found[:, 4].tolist() == sorted(found[:, 4].tolist(), reverse=True)
        assert bool((found[:, 0] <= found[:, 2]).all()) and float(found[:, 2].max()) <= hw[1] and float(found[:, 3].max()) <= hw[0]
        empty = found[:, 4] == 0
        assert not found[empty].any() and not masks[empty].any()


def test_training_mode_gives_the_first_stage() -> None:
    regions = small().train()(torch.randn(2, 3, 64, 96))
    assert isinstance(regions, Regions)
    count = 3 * (16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2)
    assert regions.scores_NA.shape == (2, count) and regions.deltas_NA4.shape == (2, count, 4) and regions.anchors_A4.shape == (count, 4)


def test_folded_and_in_bytes() -> None:
    net = small()
    net.train()(torch.randn(4, 3, 64, 96))
    net.eval()
    frame = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found, masks = InstanceContractModule(net)(frame)
        again, masks_again = InstanceContractModule(fold(net))(frame)
    assert masks.dtype == torch.uint8 and int(masks.max()) > 0
    torch.testing.assert_close(again, found, rtol=1e-3, atol=1e-2)
    assert int((masks.int() - masks_again.int()).abs().max()) <= 1


def test_the_graph_is_static() -> None:
    program = torch.export.export(small().eval(), (torch.randn(1, 3, 37, 53),))
    outputs = next(iter(program.graph.nodes.__reversed__())).args[0]
    assert [tuple(node.meta["val"].shape) for node in outputs] == [(10, 6), (10, 28, 28)]
