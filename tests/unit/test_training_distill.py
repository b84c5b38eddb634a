"""What is learnt from a teacher: the distillers against plain numpy, gradients, corners, and the loop with a teacher."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training_fit import HW, files_of, run, stores_of, tiny_config, write_tiny
from test_training_ranks import TwoHeads
from torch import Tensor, nn

from edgeseg.core.config import DISTILLER_NAMES, ModelSection, TrainSection, load_config, parse_config
from edgeseg.core.errors import ConfigError, InputMissingError, TrainingError
from edgeseg.core.manifest import Contract
from edgeseg.data.dataset import load_dataset
from edgeseg.models import build
from edgeseg.models.outputs import Outputs
from edgeseg.training.distill import DISTILLERS, frozen, taught_loss
from edgeseg.training.ranks import SINGLE, Ranks
from edgeseg.training.task import SemanticTask, TaskContext
from edgeseg.workflow.learn.teaching import learning_values, load_teacher, teacher_sha256

T = 3.0


def scores(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, shape)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def kd_by_hand(s: np.ndarray, t: np.ndarray, counts: np.ndarray) -> float:
    total = 0.0
    for n, y, x in zip(*np.nonzero(counts), strict=True):
        p, q = softmax(t[n, :, y, x] / T, 0), softmax(s[n, :, y, x] / T, 0)
        total += float((p * np.log(p / q)).sum())
    return T**2 * total / counts.sum()


def cwd_by_hand(s: np.ndarray, t: np.ndarray, counts: np.ndarray) -> float:
    frames = []
    for n in range(len(s)):
        if counts[n].any():
            p, q = (softmax(x[n][:, counts[n]] / T, 1) for x in (t, s))
            frames.append((p * np.log(p / q)).sum(axis=1).mean())
    return T**2 * float(np.mean(frames))


BY_HAND = {"kd": kd_by_hand, "cwd": cwd_by_hand}


def test_every_name_of_the_config_is_a_distiller() -> None:
    assert tuple(DISTILLERS) == DISTILLER_NAMES == tuple(sorted(BY_HAND))


@pytest.mark.parametrize("name", DISTILLERS)
def test_a_distiller_is_its_formula(name: str) -> None:
    s, t = scores(0, 3, 4, 5, 6), scores(1, 3, 4, 5, 6)
    counts = np.random.default_rng(2).random((3, 5, 6)) < 0.7
    counts[1] = False
    distiller = DISTILLERS[name]
    for part in (counts, np.ones_like(counts)):
        got = distiller(torch.from_numpy(s), torch.from_numpy(t), torch.from_numpy(part), T)
        assert float(got) == pytest.approx(BY_HAND[name](s, t, part), rel=1e-9)
    same = distiller(torch.from_numpy(t), torch.from_numpy(t), torch.from_numpy(counts), T)
    assert float(same) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", DISTILLERS)
@pytest.mark.parametrize("classes", [1, 3])
def test_gradients_are_right_and_the_teachers_stay_out(name: str, classes: int) -> None:
    s = torch.from_numpy(scores(0, 2, classes, 3, 4)).requires_grad_()
    t = torch.from_numpy(scores(1, 2, classes, 3, 4)).requires_grad_()
    counts = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    distiller = DISTILLERS[name]
    assert torch.autograd.gradcheck(lambda x: distiller(x, t.detach(), counts, 2.0), s)
    distiller(s, t, counts, 2.0).backward()
    assert t.grad is None
    assert s.grad is not None
    assert not s.grad.masked_select(~counts.unsqueeze(1)).any()  # nothing is learnt where nothing counts


@pytest.mark.parametrize("name", DISTILLERS)
def test_where_nothing_is_labelled_it_is_nothing_with_a_gradient_of_nothing(name: str) -> None:
    s = torch.from_numpy(scores(0, 2, 3, 4, 4)).requires_grad_()
    section = TrainSection(distiller=name)
    loss = taught_loss(s, torch.from_numpy(scores(1, 2, 3, 8, 8)), torch.full((2, 32, 32), 255), section)
    loss.backward()
    assert loss.item() == 0
    assert s.grad is not None
    assert not s.grad.any()


@pytest.mark.parametrize("name", DISTILLERS)
def test_large_scores_stay_finite(name: str) -> None:
    s, t = 1e4 * torch.from_numpy(scores(0, 1, 3, 4, 4)).float().requires_grad_(), 1e4 * torch.from_numpy(scores(1, 1, 3, 4, 4)).float()
    assert torch.isfinite(DISTILLERS[name](s, t, torch.ones(1, 4, 4, dtype=torch.bool), 1.0))


def test_the_teachers_scores_come_to_the_students_size() -> None:
    labels = torch.zeros(1, 32, 48, dtype=torch.long)
    labels[:, :, 24:] = 255
    section = TrainSection(distiller="kd", distill_weight=2.0, distill_temperature=T)
    fine = torch.from_numpy(scores(0, 1, 3, 1, 1)).float().expand(1, 3, 32, 48)  # constant: any interpolation keeps it
    student = torch.from_numpy(scores(1, 1, 3, 4, 6)).float()
    counts = np.zeros((1, 4, 6), dtype=bool)
    counts[:, :, :3] = True
    expected = 2 * kd_by_hand(student.double().numpy(), fine[:, :, :4, :6].double().numpy(), counts)
    assert float(taught_loss(student, fine, labels, section)) == pytest.approx(expected, rel=1e-5)
    coarse = fine[:, :, :2, :2]
    assert float(taught_loss(student, coarse, labels, section)) == pytest.approx(expected, rel=1e-5)


def test_one_score_learns_from_two_and_two_from_one() -> None:
    labels = torch.zeros(1, 4, 6, dtype=torch.long)
    two = torch.from_numpy(scores(0, 1, 2, 4, 6)).float()
    one = two[:, 1:] - two[:, :1]
    for name in DISTILLERS:
        section = TrainSection(distiller=name)
        assert float(taught_loss(one, two, labels, section)) == pytest.approx(0, abs=1e-5)
        assert float(taught_loss(two, one, labels, section)) == pytest.approx(0, abs=1e-5)
        assert float(taught_loss(one + 3 * torch.rand_like(one), two, labels, section)) > 1e-3


class Halves:
    """Two processes in one: what the other would have gathered is given."""

    count, rank = 2, 0

    def __init__(self, others: list[Tensor]) -> None:
        self.others = others

    def gathered(self, rows_N: Tensor) -> Tensor:
        return torch.cat([rows_N, self.others.pop(0)])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


def test_two_processes_take_the_loss_of_the_whole_batch(root: Path) -> None:
    config = tiny_config(root, batch_size=8)
    data = load_dataset(config.data, seed=0)
    torch.manual_seed(0)
    net, teacher = TwoHeads().eval(), frozen(TwoHeads(), torch.device("cpu"))
    context = TaskContext(data=data, config=config, stores=stores_of(data), contract=Contract(height=HW[0], width=HW[1]),
                          device=torch.device("cpu"), precision="fp32", teacher=teacher, ranks=SINGLE)
    task = SemanticTask(context)
    (batch,) = task.batches(0).stream
    whole = task.loss(net, batch)  # type: ignore[arg-type]
    first, second = ([part[:4], part[4:]][i] for part in [batch.frames_NHWC] for i in (0, 1))  # type: ignore[attr-defined]
    seen: list[Tensor] = []

    class Second(Ranks):
        def gathered(self, rows_N: Tensor) -> Tensor:
            seen.append(rows_N.detach())
            return rows_N

    labels = batch.labels_NHW  # type: ignore[attr-defined]
    SemanticTask.loss(_with(task, Second()), net, dataclasses.replace(batch, frames_NHWC=second, labels_NHW=labels[4:]))  # type: ignore[arg-type, type-var]
    half = SemanticTask.loss(_with(task, Halves(seen)), net, dataclasses.replace(batch, frames_NHWC=first, labels_NHW=labels[:4]))  # type: ignore[arg-type, type-var]
    assert float(half.detach()) == pytest.approx(whole.item(), rel=1e-5)


def _with(task: SemanticTask, ranks: object) -> SemanticTask:
    other = object.__new__(SemanticTask)
    other.__dict__ = {**task.__dict__, "context": dataclasses.replace(task.context, ranks=ranks)}  # type: ignore[arg-type]
    return other


def teacher_of(root: Path, *, seed: int = 11) -> nn.Module:
    return build(ModelSection(name="unet", width=0.125, depth=1), 2, seed=seed)


def test_a_training_with_a_teacher_resumes_to_the_same_bits_and_knows_its_teacher(root: Path, tmp_path: Path) -> None:
    config, teacher = tiny_config(root, epochs=2), teacher_of(root)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    run(config, tmp_path / "unbroken", teacher=teacher)

    def die(now: object) -> None:
        if getattr(now, "step", 0) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "broken", teacher=teacher, on_progress=die)
    with pytest.raises(TrainingError, match=r"teacher was '\w+', now '\w+'"):
        run(config, tmp_path / "broken", teacher=teacher_of(root, seed=12), resume=True)
    with pytest.raises(TrainingError, match=r"teacher was '\w+', now None"):
        run(config, tmp_path / "broken", resume=True)
    run(config, tmp_path / "broken", teacher=teacher, resume=True)
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "unbroken")
    assert teacher.training  # given in training mode: it is left as it was
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    run(config, tmp_path / "alone")
    assert files_of(tmp_path / "alone")["best/weights.safetensors"] != files_of(tmp_path / "unbroken")["best/weights.safetensors"]


def test_a_student_comes_to_agree_with_its_teacher(root: Path, tmp_path: Path) -> None:
    """With the labels' part at almost nothing, what is left to learn from is the teacher."""
    teacher = teacher_of(root).eval()
    config = dataclasses.replace(
         tiny_config(root, epochs=4, loss={"ce": 1e-6}, distiller="kd", distill_weight=5.0),
        model=ModelSection(name="unet", width=0.25, depth=1),
    )
    result = run(config, tmp_path / "run", teacher=teacher)
    assert result.history[-1].loss < 0.5 * result.history[0].loss


class Wrong(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, channels, 1)

    def forward(self, x: Tensor) -> Outputs:
        return Outputs(self.layer(x))


def test_other_teachers_are_refused(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root)
    with pytest.raises(ConfigError, match="the teacher tells 5 classes apart, the student 2; choose"):
        run(config, tmp_path / "run", teacher=Wrong(5))
    with pytest.raises(ConfigError, match=r"the teacher gives \(1, 96\) and no scores"):
        run(config, tmp_path / "run", teacher=nn.Sequential(nn.AdaptiveAvgPool2d((4, 8)), nn.Flatten()))
    assert run(dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1)), tmp_path / "run", teacher=Wrong(1)).history
    with pytest.raises(ConfigError, match="mask_rcnn finds objects; leave it out"):
        parse_config({"model": {"name": "mask_rcnn"}, "train": {"teacher": "x"}})


def test_where_a_teacher_lies_and_what_depends_on_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "edgeseg.toml").write_text('[train]\nteacher = "runs/big"\n', encoding="utf-8")
    section = load_config(tmp_path / "edgeseg.toml").train
    assert section.teacher == str(tmp_path / "runs/big")
    with pytest.raises(InputMissingError, match=r"runs/big is neither a run with a trained network nor a checkpoint; train it first"):
        teacher_sha256(section)
    run(tiny_config(root), tmp_path / "out", epochs=0)
    (tmp_path / "runs/big/checkpoints").mkdir(parents=True)
    (tmp_path / "out/best").rename(tmp_path / "runs/big/checkpoints/trained")
    sha = teacher_sha256(section)
    assert sha == teacher_sha256(dataclasses.replace(section, teacher=f"{section.teacher}/checkpoints/trained"))
    assert learning_values(section, sha)["teacher"] == sha
    with pytest.raises(ConfigError, match="is this run's own checkpoint; give the student another name"):
        teacher_sha256(section, run_folder=tmp_path / "runs/big")
    classes = load_dataset(tiny_config(root).data, seed=0).classes
    assert isinstance(load_teacher(section, classes), nn.Module)
    with pytest.raises(ConfigError, match=r"knows the classes .*, the data sky, road; choose a teacher"):
        load_teacher(section, ("sky", "road"))


def test_without_a_teacher_nothing_of_it_is_in_the_keys() -> None:
    assert learning_values(TrainSection()) == learning_values(TrainSection(distiller="kd", distill_weight=9.0))
    assert not {"teacher", "distiller", "distill_weight", "distill_temperature"} & learning_values(TrainSection()).keys()
    assert teacher_sha256(TrainSection()) is None
