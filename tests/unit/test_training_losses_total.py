"""The weighted sum, over the main scores, auxiliary heads and a boundary head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.core.config import TrainSection
from edgeseg.models import upsample_logits
from edgeseg.models.outputs import Outputs
from edgeseg.training.fast_cpu import sampled_scores
from edgeseg.training.losses import LOSSES, total_loss
from edgeseg.training.losses.edges import AWARE_ABOVE, EDGE_WEIGHT, boundary_awareness, edge_loss, edge_map

ONES = torch.ones(3)


def batch(seed: int = 0, *, stride: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 64 // stride, 96 // stride, generator=generator)
    labels = torch.zeros(2, 64, 96, dtype=torch.long)
    labels[:, 20:40, 30:70], labels[1, 50:, :20], labels[0, :5] = 1, 2, 255
    return logits, labels


def test_the_default_is_cross_entropy_and_half_of_dice_to_the_bit() -> None:
    """Written out as it was before losses were chosen by table: networks trained then train the same now."""
    logits, labels = batch()
    weights = torch.tensor([0.5, 1.3, 2.0])
    scores, at = sampled_scores(logits, labels, step=3)
    log_probs = F.log_softmax(scores.float(), dim=1)
    known = at != 255
    index, probs = at.where(known, 0), log_probs.exp()
    hit = probs.gather(1, index.unsqueeze(1)).squeeze(1) * known
    overlap = torch.zeros(3).index_add(0, index.reshape(-1), hit.reshape(-1))
    labelled = torch.zeros(3).index_add(0, index.reshape(-1), known.reshape(-1).to(torch.float32))
    answered = (probs.flatten(2) @ known.to(torch.float32).flatten(1).unsqueeze(2)).sum(dim=(0, 2))
    dice = 1 - ((2 * overlap + 1) / (answered + labelled + 1))[labelled > 0].mean()
    before = torch.stack([1.0 * F.nll_loss(log_probs, at, weights, ignore_index=255), 0.5 * dice]).sum()
    assert torch.equal(total_loss(logits, labels, weights, TrainSection(), step=3), before)
    assert torch.equal(total_loss(scores, at, weights, TrainSection()), before)


def test_scores_come_to_the_labels_size() -> None:
    logits, labels = batch()
    torch.testing.assert_close(
        total_loss(logits, labels, ONES, TrainSection()), total_loss(upsample_logits(logits, (64, 96)), labels, ONES, TrainSection())
    )


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_alone_and_in_a_sum(name: str) -> None:
    logits, labels = batch(stride=1)
    alone = total_loss(logits, labels, ONES, TrainSection(loss={name: 2.0}))
    torch.testing.assert_close(alone, 2 * LOSSES[name](logits.log_softmax(1), labels, ONES, TrainSection()))
    other = "ce" if name != "ce" else "dice"
    both = total_loss(logits, labels, ONES, TrainSection(loss={other: 0.25, name: 2.0, "iou" if name != "iou" else "focal": 0.0}))
    torch.testing.assert_close(both, alone + 0.25 * LOSSES[other](logits.log_softmax(1), labels, ONES, TrainSection()))


def test_one_score_stands_for_two_classes() -> None:
    logits, labels = batch()
    labels = labels.where(labels != 2, 1)
    one = logits[:, 1:2] - logits[:, 0:1]
    section = TrainSection(loss=dict.fromkeys(LOSSES, 1.0))
    torch.testing.assert_close(
        total_loss(one, labels, torch.ones(2), section), total_loss(logits[:, :2], labels, torch.ones(2), section), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("step", [None, 1])
def test_auxiliary_heads_take_the_same_sum_times_their_weight(step: int | None) -> None:
    main, labels = batch()
    aux = [batch(1)[0], batch(2, stride=16)[0]]
    section = TrainSection(loss={"ce": 1.0, "lovasz": 0.5})

    def alone(scores: Tensor) -> Tensor:
        return total_loss(scores, labels, ONES, section, step=step)

    got = total_loss(Outputs(main, tuple(aux), (0.4, 1.0)), labels, ONES, section, step=step)
    torch.testing.assert_close(got, alone(main) + 0.4 * alone(aux[0]) + alone(aux[1]))


def brute_edges(label: np.ndarray) -> np.ndarray:
    edges = np.full(label.shape, 255)
    for y, x in np.ndindex(label.shape):
        if label[y, x] != 255:
            near = label[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            edges[y, x] = len(set(near[near != 255].tolist())) > 1
    return edges


def test_edges_are_where_another_class_is_near() -> None:
    _, labels = batch()
    labels[0, 30, 50] = 255
    np.testing.assert_array_equal(edge_map(labels)[0].numpy(), brute_edges(labels[0].numpy()))
    assert 0 < float((edge_map(labels) == 1).float().mean()) < 0.3


def test_edge_loss_is_the_papers_weighted_binary_cross_entropy() -> None:
    _, labels = batch()
    edges = edge_map(labels)
    scores = torch.randn(edges.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    known, s = edges.numpy() != 255, 1 / (1 + np.exp(-scores.numpy()))
    y, s = edges.numpy()[known], s[known]
    share = y.mean()
    w = np.where(y == 1, 1 - share, share)
    expected = (w * -(y * np.log(s) + (1 - y) * np.log(1 - s))).mean()
    assert float(edge_loss(scores, edges)) == pytest.approx(expected, rel=1e-9)
    assert float(edge_loss(scores, torch.zeros_like(edges))) == 0
    assert float(edge_loss(scores, torch.full_like(edges, 255))) == 0
    small = scores[:, :4, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: edge_loss(x, (edges[:, 18:22, 28:32])), (small,))


def test_awareness_is_cross_entropy_where_the_head_sees_an_edge() -> None:
    logits, labels = batch(stride=1)
    scores = 3 * torch.randn(2, 64, 96, generator=torch.Generator().manual_seed(4))
    log_probs = logits.log_softmax(1)
    near = (scores.sigmoid() > AWARE_ABOVE) & (labels != 255)
    expected = -log_probs.gather(1, labels.where(labels != 255, 0).unsqueeze(1)).squeeze(1)[near].mean()
    torch.testing.assert_close(boundary_awareness(log_probs, scores, labels, ONES, TrainSection()), expected)
    nowhere = boundary_awareness(log_probs, torch.full_like(scores, -9.0), labels, ONES, TrainSection())
    assert float(nowhere) == 0


@pytest.mark.parametrize("step", [None, 0, 3])
@pytest.mark.parametrize("edge_stride", [8, 4])
def test_a_boundary_head_adds_its_two_terms(step: int | None, edge_stride: int) -> None:
    main, labels = batch()
    head = 4 * torch.randn(2, 1, 64 // edge_stride, 96 // edge_stride, generator=torch.Generator().manual_seed(5))
    section = TrainSection()
    got = total_loss(Outputs(main, boundary=head), labels, ONES, section, step=step)
    fully = edge_stride != 8 or step is None  # strides that would be sampled at different pixels are compared at all of them
    if fully:
        scores, edges, wide, at = upsample_logits(head, (64, 96)), edge_map(labels), upsample_logits(main, (64, 96)), labels
    else:
        assert step is not None
        scores, edges = sampled_scores(head, edge_map(labels), step)
        wide, at = sampled_scores(main, labels, step)
    awareness = boundary_awareness(wide.log_softmax(1), scores[:, 0], at, ONES, section)
    expected = total_loss(main, labels, ONES, section, step=step) + EDGE_WEIGHT * edge_loss(scores[:, 0], edges) + awareness
    torch.testing.assert_close(got, expected)


def test_an_unlabelled_batch_teaches_nothing() -> None:
    main, labels = batch()
    main.requires_grad_()
    head = torch.randn(2, 1, 8, 12, requires_grad=True)
    everything = TrainSection(loss=dict.fromkeys(LOSSES, 1.0))
    loss = total_loss(Outputs(main, (2 * main,), (1.0,), head), torch.full_like(labels, 255), ONES, everything, step=0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert main.grad is not None
    assert head.grad is not None
    assert not bool(main.grad.any())
    assert not bool(head.grad.any())
