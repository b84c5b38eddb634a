"""Metrics and percentiles against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseg.core.metrics import agreement, confusion_matrix, score
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
    assert result.pixel_accuracy == pytest.approx((label == pred)[known].mean())
    assert result.num_pixels == known.sum()


def test_absent_class_is_not_evaluated() -> None:
    label = np.zeros((4, 4), np.uint8)
    pred = label.copy()
    pred[0, 0] = 1  # answered, but never labelled
    result = score(confusion_matrix(pred, label, num_classes=3))
    assert result.iou == (15 / 16, None, None)
    assert result.miou == 15 / 16


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
