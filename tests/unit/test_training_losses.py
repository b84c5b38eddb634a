"""Each loss against a plain numpy version, against finite differences, and at its corners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeseg.core.config import LOSS_NAMES, TrainSection
from edgeseg.training.losses import LOSSES
from edgeseg.training.losses.boundary import RADIUS, signed_distance
from edgeseg.training.losses.cross_entropy import hard_pixels

Array = NDArray[np.float64]
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.5])
SECTION = TrainSection(focal_gamma=1.7, tversky_alpha=0.4, tversky_beta=0.8)
PLAIN: dict[str, TrainSection] = dict.fromkeys(LOSSES, SECTION)


def scores(seed: int = 0, *, frames: int = 2, height: int = 6, width: int = 5, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits in double, labels without the last of more than two classes, the top rows of the first frame unlabelled."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(frames, classes, height, width, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, max(2, classes - 1), (frames, height, width), generator=generator)
    labels[0, :2] = 255
    return logits, labels


def value(name: str, logits: Tensor, labels: Tensor, section: TrainSection = SECTION) -> Tensor:
    weights = torch.from_numpy(WEIGHTS[: logits.shape[1]]).to(logits.dtype)
    return LOSSES[name](logits.log_softmax(1), labels, weights, section)


# The numpy versions: p float64 [P, C] and y [P] of the labelled pixels, one after the other.


def flat(logits: Tensor, labels: Tensor) -> tuple[Array, NDArray[np.int64]]:
    p = logits.softmax(1).permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).numpy()
    y = labels.reshape(-1).numpy()
    return p[y != 255], y[y != 255]


def numpy_ce(p: Array, y: NDArray[np.int64]) -> float:
    w = WEIGHTS[y]
    return float((w * -np.log(p[np.arange(len(y)), y])).sum() / w.sum())


def numpy_bce(p: Array, y: NDArray[np.int64]) -> float:
    total, w = 0.0, WEIGHTS[y]
    for i, label in enumerate(y):
        terms = [-np.log(p[i, c]) if c == label else -np.log(1 - p[i, c]) for c in range(p.shape[1])]
        total += w[i] * np.mean(terms)
    return float(total / w.sum())


def numpy_focal(p: Array, y: NDArray[np.int64]) -> float:
    w, right = WEIGHTS[y], p[np.arange(len(y)), y]
    return float((w * -((1 - right) ** 1.7) * np.log(right)).sum() / w.sum())


def numpy_region(formula: Callable[[float, float, float], float]) -> Callable[[Array, NDArray[np.int64]], float]:
    def loss(p: Array, y: NDArray[np.int64]) -> float:
        found = []
        for c in sorted(set(y.tolist())):
            hit, answered, labelled = float(p[y == c, c].sum()), float(p[:, c].sum()), float((y == c).sum())
            found.append(formula(hit, answered - hit, labelled - hit))
        return 1 - float(np.mean(found))

    return loss


def numpy_lovasz(p: Array, y: NDArray[np.int64]) -> float:
    found = []
    for c in sorted(set(y.tolist())):
        is_class = y == c
        errors = np.where(is_class, 1 - p[:, c], p[:, c])
        order = np.argsort(-errors)

        def jaccard_loss(wrong: NDArray[np.int64], is_class: NDArray[np.bool_] = is_class) -> float:
            """Of the answer that errs at exactly these pixels: eq. (6) of the paper, |M| / |{y = c} or M|."""
            missed = np.zeros(len(is_class), dtype=bool)
            missed[wrong] = True
            return float(missed.sum() / (is_class | missed).sum())

        gains = [jaccard_loss(order[: i + 1]) - (jaccard_loss(order[:i]) if i else 0.0) for i in range(len(order))]
        found.append(float((errors[order] * gains).sum()))
    return float(np.mean(found))


def brute_distance(label: NDArray[np.int64], c: int) -> Array:
    """Signed distance by looking at every pair of pixels."""
    rows, columns = np.indices(label.shape)
    phi = np.zeros(label.shape)
    for y, x in np.ndindex(label.shape):
        other = label == c if label[y, x] != c else (label != c) & (label != 255)
        away = np.sqrt((rows - y) ** 2 + (columns - x) ** 2)[other].min(initial=RADIUS)
        phi[y, x] = (min(away, RADIUS) - 0.5) * (1 if label[y, x] != c else -1)
    return phi / (RADIUS - 0.5)


def numpy_boundary(logits: Tensor, labels: Tensor) -> float:
    p, total = logits.softmax(1).numpy(), 0.0
    for n, label in enumerate(labels.numpy()):
        known = label != 255
        classes = sorted(set(label[known].tolist()))
        for c in classes:
            total += (brute_distance(label, c) * (p[n, c] - (label == c)))[known].sum() / len(classes)
    return float(total / (labels != 255).sum())


NUMPY: dict[str, Callable[[Array, NDArray[np.int64]], float]] = {
    "ce": numpy_ce, "bce": numpy_bce, "focal": numpy_focal, "lovasz": numpy_lovasz,
    "dice": numpy_region(lambda tp, fp, fn: (2 * tp + 1) / (2 * tp + fp + fn + 1)),
    "iou": numpy_region(lambda tp, fp, fn: (tp + 1) / (tp + fp + fn + 1)),
    "tversky": numpy_region(lambda tp, fp, fn: (tp + 1) / (tp + 0.4 * fp + 0.8 * fn + 1)),
}


def test_names_of_the_config_are_the_registry() -> None:
    assert set(LOSS_NAMES) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_plain_numpy_version(name: str, seed: int) -> None:
    logits, labels = scores(seed)
    expected = numpy_boundary(logits, labels) if name == "boundary" else NUMPY[name](*flat(logits, labels))
    assert float(value(name, logits, labels)) == pytest.approx(expected, rel=1e-6 if name == "boundary" else 1e-9)  # distances are float32
    assert float(value(name, logits.float(), labels)) == pytest.approx(expected, rel=1e-4)


CHECKED = {**PLAIN, "ce, smoothed": replace(SECTION, label_smoothing=0.1), "ce, hard pixels": replace(SECTION, ohem=0.5, ohem_keep=0.3)}


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("classes", [2, 4])
def test_gradient_is_that_of_finite_differences(name: str, classes: int) -> None:
    logits, labels = scores(3, height=4, width=4, classes=classes)

    def loss(x: Tensor) -> Tensor:
        return value(name.partition(",")[0], x, labels, CHECKED[name])

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_labelled_gives_zero_and_a_gradient_of_zero(name: str) -> None:
    logits = torch.randn(2, 4, 5, 5, requires_grad=True)
    loss = value(name, logits, torch.full((2, 5, 5), 255))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert bool((logits.grad == 0).all())


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_answer_costs_nothing_and_any_other_does(name: str) -> None:
    _, labels = scores()
    perfect = (60.0 * F.one_hot(labels.where(labels != 255, 0), 4).permute(0, 3, 1, 2)).float().requires_grad_()
    loss = value(name, perfect, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert perfect.grad is not None
    assert bool(torch.isfinite(perfect.grad).all())
    assert float(value(name, perfect.detach() / 100, labels)) > 0.005
    wrong = value(name, perfect.detach().roll(1, dims=1), labels)
    assert bool(torch.isfinite(wrong))
    assert float(wrong) > float(value(name, perfect.detach() / 100, labels))


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_say_nothing(name: str) -> None:
    logits, labels = scores()
    other = logits.clone()
    other[0, :, :2] = 50 * torch.randn(4, 2, 5, dtype=torch.float64)
    assert float(value(name, other, labels)) == pytest.approx(float(value(name, logits, labels)), rel=1e-12)


@pytest.mark.parametrize("name", ["dice", "iou", "tversky", "lovasz", "boundary"])
def test_an_absent_class_is_no_term_of_the_mean(name: str) -> None:
    """Splitting a class that is answered but never labelled into two changes nothing."""
    logits, labels = scores()
    split = torch.cat([logits[:, :3], logits[:, 3:] - np.log(2), logits[:, 3:] - np.log(2)], dim=1)
    got = LOSSES[name](split.log_softmax(1), labels, torch.ones(5, dtype=torch.float64), SECTION)
    assert float(got) == pytest.approx(float(value(name, logits, labels)), rel=1e-9)


def test_cross_entropy_is_pytorchs_also_smoothed() -> None:
    logits, labels = scores()
    weights = torch.from_numpy(WEIGHTS)
    for smoothing in (0.0, 0.2):
        expected = F.cross_entropy(logits, labels, weights, ignore_index=255, label_smoothing=smoothing)
        torch.testing.assert_close(value("ce", logits, labels, TrainSection(label_smoothing=smoothing)), expected)


def test_two_classes_make_binary_cross_entropy_the_cross_entropy() -> None:
    logits, labels = scores(classes=3)
    logits, labels = logits[:, :2], labels.clamp(max=1).where(labels != 255, 255)
    torch.testing.assert_close(value("bce", logits, labels), value("ce", logits, labels))
    one_score = (logits[:, 1] - logits[:, 0])[labels != 255]
    target, weight = labels[labels != 255].double(), torch.from_numpy(WEIGHTS)[labels[labels != 255]]
    expected = F.binary_cross_entropy_with_logits(one_score, target, weight, reduction="sum") / weight.sum()
    torch.testing.assert_close(value("bce", logits, labels), expected)


def test_focal_without_gamma_is_cross_entropy_and_tversky_of_ones_is_iou() -> None:
    logits, labels = scores()
    torch.testing.assert_close(value("focal", logits, labels, TrainSection(focal_gamma=0)), value("ce", logits, labels))
    ones = TrainSection(tversky_alpha=1, tversky_beta=1)
    torch.testing.assert_close(value("tversky", logits, labels, ones), value("iou", logits, labels))


def test_hard_pixels_are_the_least_probable() -> None:
    logits, labels = scores(5, height=20, width=20)
    log_probs = logits.log_softmax(1)
    p = log_probs.gather(1, labels.where(labels != 255, 0).unsqueeze(1)).squeeze(1).exp()
    kept = hard_pixels(log_probs, labels, below=0.2, least_share=0.01)
    assert torch.equal(kept != 255, (labels != 255) & (p <= 0.2))
    kept = hard_pixels(log_probs, labels, below=1e-9, least_share=0.25)
    count = int((labels != 255).sum())
    assert int((kept != 255).sum()) == -(-count // 4)
    assert float(p[kept != 255].max()) <= float(p[(kept == 255) & (labels != 255)].min())
    assert torch.equal(hard_pixels(log_probs, torch.full_like(labels, 255), below=0.5, least_share=0.5), torch.full_like(labels, 255))


def test_signed_distance_is_that_of_every_pair() -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((30, 41), np.int64)
    label[5:12, 3:9], label[20:, 30:], label[14, 20] = 1, 2, 1
    label[rng.random(label.shape) < 0.1] = 255
    tensor = torch.from_numpy(label)
    got = signed_distance(tensor == torch.arange(3).view(-1, 1, 1), tensor != 255)
    for c in range(3):
        np.testing.assert_allclose(got[c].numpy()[label != 255], brute_distance(label, c)[label != 255], atol=1e-6)


def test_confidently_wrong_is_finite_in_float32() -> None:
    logits, labels = torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
    logits[:, 1] = 500.0
    for name in LOSSES:
        x = logits.clone().requires_grad_()
        loss = value(name, x, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        assert bool(torch.isfinite(loss)), name
        assert x.grad is not None
        assert bool(torch.isfinite(x.grad).all()), name
