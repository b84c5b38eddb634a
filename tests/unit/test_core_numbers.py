"""Metrics and percentiles against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.core.metrics import agreement, boundary_f1, confusion_matrix, mean_boundary_f1, outlines, score
from edgeseg.core.stats import latency_stats, nearest_rank


def test_iou_against_plain_sets() -> None:
    rng = np.random.default_rng(0)
    label, pred = rng.integers(0, 4, (40, 50), dtype=np.uint8), rng.integers(0, 4, (40, 50), dtype=np.uint8)
    label[:5] = 255
    result = score(confusion_matrix(pred, label, num_classes=4))
    known = label != 255
    for c in range(4):
        a, b = (label == c) & known, (pred == c) & known
        assert result.iou[c] == pytest.approx((a & b).sum() / (a | b).sum())
        assert result.dice[c] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert result.miou == pytest.approx(np.mean(result.iou))
    assert result.mean_dice == pytest.approx(np.mean(result.dice))
    assert result.pixel_accuracy == pytest.approx((label == pred)[known].mean())
    assert result.num_pixels == known.sum()


def test_absent_class_is_not_evaluated() -> None:
    label = np.zeros((4, 4), np.uint8)
    pred = label.copy()
    pred[0, 0] = 1  # answered, but never labelled
    result = score(confusion_matrix(pred, label, num_classes=3))
    assert result.iou == (15 / 16, None, None)
    assert result.miou == 15 / 16
    assert result.dice == (30 / 31, None, None)
    assert result.mean_dice == 30 / 31


def plain_boundary_f1(pred: np.ndarray, label: np.ndarray, c: int, radius: float) -> float | None:
    """Every pixel of one outline against every pixel of the other."""
    if not (label == c).any():
        return None
    points = []
    for image in (np.where(label == 255, 255, pred), label):
        found = []
        for y, x in zip(*np.nonzero(image == c), strict=True):
            near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [image[j, i] for j, i in near if 0 <= j < image.shape[0] and 0 <= i < image.shape[1]]
            if any(v not in (c, 255) for v in inside):
                found.append((y, x))
        points.append(np.array(found, dtype=float).reshape(-1, 2))
    answered, labelled = points
    if not len(answered) or not len(labelled):
        return float(len(answered) == len(labelled))
    away = np.sqrt(((answered[:, None] - labelled[None]) ** 2).sum(-1))
    precision, recall = (away.min(1) <= radius).mean(), (away.min(0) <= radius).mean()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("tolerance", [0.0, 0.03, 0.08])
def test_boundary_f1_against_every_pair_of_pixels(tolerance: float) -> None:
    rng = np.random.default_rng(1)
    label = np.kron(rng.integers(0, 3, (5, 6)), np.ones((9, 9))).astype(np.uint8)
    pred = np.roll(label, (2, 1), (0, 1))
    pred[rng.random(pred.shape) < 0.01] = 3
    label[:, 40:44] = 255
    got = boundary_f1(pred, label, num_classes=5, tolerance=tolerance)
    radius = max(1.0, tolerance * np.hypot(*label.shape))
    assert got == pytest.approx([plain_boundary_f1(pred, label, c, radius) for c in range(5)])
    assert all(value is not None and 0 < value < 1 for value in got[:3])
    assert got[3:] == (None, None)


def test_boundary_f1_at_its_corners() -> None:
    label = np.zeros((60, 80), np.uint8)
    label[20:40, 30:50] = 1
    assert boundary_f1(label, label, num_classes=3) == (1.0, 1.0, None)
    near = np.zeros_like(label)
    near[21:41, 30:50] = 1  # a shift of one pixel lies within the tolerance
    assert boundary_f1(near, label, num_classes=2) == (1.0, 1.0)
    assert boundary_f1(np.zeros_like(label), label, num_classes=2) == (0.0, 0.0)
    full = np.zeros((60, 80), np.uint8)
    assert boundary_f1(full, full, num_classes=2) == (1.0, None)
    assert boundary_f1(label, full, num_classes=2) == (0.0, None)
    assert boundary_f1(label, np.full_like(label, 255), num_classes=2) == (None, None)
    assert set(np.unique(outlines(label))) == {0, 1, 255}
    with pytest.raises(ValueError, match="differ in size"):
        boundary_f1(label, label[1:], num_classes=2)


def test_boundary_f1_of_a_class_is_the_mean_over_its_frames() -> None:
    assert mean_boundary_f1([(1.0, None, None), (0.5, 0.25, None)]) == (0.75, 0.25, None)


def test_nothing_to_evaluate_is_an_error_not_a_number() -> None:
    with pytest.raises(ValueError, match="no labelled pixel"):
        score(np.zeros((3, 3), np.int64))
    with pytest.raises(ValueError, match="differ in size"):
        agreement(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="outside"):
        confusion_matrix(np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint8), num_classes=3)


def test_percentiles_are_nearest_rank() -> None:
    values = [15.0, 20.0, 35.0, 40.0, 50.0]  # the textbook example of the nearest-rank method
    assert [nearest_rank(values, p) for p in (5, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]
    assert nearest_rank([7.0], 99) == 7
    with pytest.raises(ValueError, match="0 values"):
        nearest_rank([], 50)


def test_no_time_is_left_out() -> None:
    stats = latency_stats([1_000_000] * 99 + [901_000_000])
    assert (stats.p50_ms, stats.p90_ms, stats.p99_ms, stats.max_ms) == (1, 1, 1, 901)
    assert stats.fps == pytest.approx(100)
    assert stats.mean_ms == pytest.approx(10)
