"""Thresholds are chosen for the metric that was named, on labelled pixels, and are never worse than argmax there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.core.config import DecisionSection
from edgeseg.core.files import read_json
from edgeseg.core.images import write_class_map, write_frame
from edgeseg.core.manifest import Contract
from edgeseg.core.metrics import confusion_matrix
from edgeseg.data.dataset import Sample
from edgeseg.data.store import FrameStore
from edgeseg.models import decide
from edgeseg.training import thresholds
from edgeseg.training.thresholds import GRID, METRICS, choose_decision, choose_thresholds, value_of, with_thresholds


def skewed(seed: int, classes: int, *, pixels: int = 6000) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Scores that speak too quietly of rare classes."""
    rng = np.random.default_rng(seed)
    shares = 0.3 ** np.arange(classes)
    labels = rng.choice(classes, pixels, p=shares / shares.sum()).astype(np.uint8)
    scores = rng.normal(0, 1.2, (pixels, classes)) + 2.0 * np.eye(classes)[labels] - 2.0 * np.arange(classes)
    return scores.astype(np.float32), labels


def answers(scores: NDArray[np.float32], chosen: tuple[float, ...]) -> NDArray[np.uint8]:
    contract = with_thresholds(Contract(height=1, width=len(scores)), chosen)
    tensor = torch.from_numpy(scores).T.reshape(1, scores.shape[1], 1, -1)
    return np.asarray(decide(tensor, contract)[0, 0].numpy())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("classes", [2, 4])
def test_better_than_argmax_and_found_by_the_reference_decision(metric: str, classes: int) -> None:
    scores, labels = skewed(0, classes)
    chosen = choose_thresholds(scores, labels, metric=metric)
    assert sum(chosen) == pytest.approx(1)
    assert min(chosen) > 0

    def value(given: tuple[float, ...]) -> float:
        return value_of(confusion_matrix(answers(scores, given), labels, num_classes=classes), metric)

    equal = value((1 / classes,) * classes)
    assert value(chosen) > equal + 0.002
    if classes == 2:  # one dimension: every value of the grid can be tried
        every = [value((1 / (1 + np.exp(-offset)), 1 / (1 + np.exp(offset)))) for offset in GRID]
        assert value(chosen) >= max(every) - 1e-6


def test_no_single_offset_of_the_grid_does_better() -> None:
    scores, labels = skewed(1, 3)
    chosen = np.array(choose_thresholds(scores, labels, metric="iou"))
    best = value_of(confusion_matrix(answers(scores, tuple(chosen.tolist())), labels, num_classes=3), "iou")
    for c in range(3):
        for step in (-1.0, -0.3, -0.05, 0.05, 0.3, 1.0):
            other = chosen * np.exp(np.where(np.arange(3) == c, step, 0.0))
            value = value_of(confusion_matrix(answers(scores, tuple((other / other.sum()).tolist())), labels, num_classes=3), "iou")
            assert value <= best + 1e-6


def test_scores_that_cannot_be_bettered_keep_equal_thresholds() -> None:
    labels = np.array([0, 1, 2] * 50, np.uint8)
    assert choose_thresholds((5 * np.eye(3)[labels]).astype(np.float32), labels, metric="dice") == pytest.approx((1 / 3,) * 3)


def test_two_classes_are_one_threshold() -> None:
    contract = with_thresholds(Contract(height=4, width=4), (0.3, 0.7))
    assert (contract.decision, contract.threshold, contract.thresholds) == ("threshold", 0.7, None)
    contract = with_thresholds(Contract(height=4, width=4), (0.3, 0.6, 0.1))
    assert (contract.decision, contract.threshold, contract.thresholds) == ("thresholds", None, (0.3, 0.6, 0.1))


def test_metrics_are_those_of_the_config() -> None:
    assert DecisionSection.__dataclass_fields__["metric"].metadata["choices"] == METRICS


class Channels(nn.Module):
    """Scores that are the frame's own channels (or the second minus the first), brightness being how loudly a class speaks."""

    def __init__(self, *, one_score: bool) -> None:
        super().__init__()
        self.one_score = one_score

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW[:, 1:2] - x_NCHW[:, :1] if self.one_score else x_NCHW


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    rng = np.random.default_rng(3)
    samples = []
    for i in range(3):
        label = np.kron(rng.integers(0, 2, (5, 7)), np.ones((8, 8))).astype(np.uint8)
        bright = np.stack([label == 0, label == 1, np.zeros_like(label)], axis=-1) * 60 + np.array([110, 70, 0])
        write_frame(tmp_path / f"{i}.png", np.clip(bright + rng.normal(0, 12, bright.shape), 0, 255).astype(np.uint8))
        label[:3] = 255
        write_class_map(tmp_path / f"{i}_mask.png", label)
        samples.append(Sample(id=str(i), split="val", image=tmp_path / f"{i}.png", label=tmp_path / f"{i}_mask.png"))
    return FrameStore(samples, num_classes=3, memory_limit_mb=100)


@pytest.mark.parametrize("resize", ["stretch", "tile"])
@pytest.mark.parametrize("one_score", [True, False])
def test_chosen_on_frames_at_any_size(
    store: FrameStore, one_score: bool, resize: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = Contract(height=32, width=40, resize=resize)
    classes = 2 if one_score else 3
    seen: list[int] = []
    choice = choose_decision(
        Channels(one_score=one_score), store, contract, num_classes=classes, metric="iou", on_frame=lambda done, total: seen.append(done)
    )
    assert seen == [1, 2, 3]
    assert choice.contract.decision == ("threshold" if one_score else "thresholds")
    assert choice.after > choice.before + 0.02
    assert (choice.contract.height, choice.contract.resize) == (32, resize)
    monkeypatch.setattr(thresholds, "MAX_SCORES", 2000)  # every k-th row and column
    fewer = choose_decision(Channels(one_score=one_score), store, contract, num_classes=classes, metric="iou")
    assert fewer.after > fewer.before


def test_what_is_no_better_at_frame_size_is_not_taken(store: FrameStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "choose_thresholds", lambda scores, labels, *, metric: (0.999, 0.001))
    choice = choose_decision(Channels(one_score=True), store, Contract(height=32, width=40), num_classes=2, metric="iou")
    assert choice.contract.threshold == 0.5
    assert choice.after == choice.before


def test_the_step_is_done_once_a_checkpoint_and_only_where_asked_for(tmp_path: Path) -> None:
    from chain_tools import TINY_CONFIG, write_tiny_project

    from edgeseg.models import build
    from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint
    from edgeseg.workflow.context import open_run
    from edgeseg.workflow.learn import learning
    from edgeseg.workflow.steps import StepResult
    from edgeseg.workflow.ui import Silent

    path = write_tiny_project(tmp_path, config=TINY_CONFIG)
    with open_run(path, ("decision.rule=thresholds", "decision.metric=dice"), ui=Silent()) as ctx:
        data = learning.prepare_data(ctx)
        net = build(ctx.config.model, len(data.dataset.classes), seed=1)
        checkpoint = save_checkpoint(ctx.folder / "checkpoints" / "trained", net, CheckpointMeta(
            model=ctx.config.model, num_classes=len(data.dataset.classes), classes=data.dataset.classes, palette=data.dataset.palette,
            contract=learning.contract_of(ctx.config), config_sha256="0" * 64, dataset="field", dataset_sha256=data.dataset.sha256,
        ))
        trained = StepResult("train", checkpoint.folder, checkpoint.sha256, False, 0.0)
        first = learning.decide(ctx, data, trained)
        assert first.decision == "thresholds"
        assert first.thresholds is not None
        assert len(first.thresholds) == len(data.dataset.classes)
        assert learning.decide(ctx, data, trained) == first
        assert [step.cached for step in ctx.steps.done if step.name == "decision"] == [False, True]
        written = read_json(ctx.folder / "decision.json")
        assert written["metric"] == "dice"
        assert written["after"] >= written["before"]
    with open_run(path, (), ui=Silent()) as ctx:
        assert learning.decide(ctx, data, trained) == learning.contract_of(ctx.config)
