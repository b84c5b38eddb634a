"""Fine-tuning for int8 as a step of a run: an ordinary checkpoint with ranges beside it, found again, and gone on with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from chain_tools import TINY_CONFIG, write_tiny_project

from edgeseg.core.errors import TrainingError
from edgeseg.core.files import read_json
from edgeseg.models import fold
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.workflow.compress.qat import quantization_aware
from edgeseg.workflow.context import open_run
from edgeseg.workflow.learn import learning
from edgeseg.workflow.steps import StepResult
from edgeseg.workflow.ui import Silent
from quantization.carry import load_ranges

QUICK = ("model.width=0.25", "train.epochs=1", "train.eval_every=1", "quantize.qat_epochs=1", "quantize.qat_lr=1e-3")


def tuned(path: Path, *more: str, ui: Silent | None = None) -> tuple[StepResult, StepResult]:
    """The float checkpoint and the one fine-tuned for int8."""
    with open_run(path, (*QUICK, *more), ui=ui or Silent()) as ctx:
        data = learning.prepare_data(ctx)
        trained = learning.train(ctx, data)
        return trained, quantization_aware(ctx, data, trained)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_project(tmp_path_factory.mktemp("qat"), config=TINY_CONFIG)


@pytest.fixture(scope="module")
def done(project: Path) -> tuple[StepResult, StepResult]:
    return tuned(project)


def test_it_is_a_checkpoint_like_any_other_with_ranges_beside_it(done: tuple[StepResult, StepResult]) -> None:
    trained, aware = done
    (before, was), (after, now) = load_checkpoint(trained.output), load_checkpoint(aware.output)
    assert (now.model, now.classes, now.channels) == (was.model, was.classes, was.channels)
    assert {name: value.shape for name, value in before.state_dict().items()} == {n: v.shape for n, v in after.state_dict().items()}
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = fold(before)(x), fold(after)(x)
    history = read_json(aware.output / "history.json")
    apart = float((a - b).abs().max())
    assert (apart > 0) == (history["best_epoch"] > 0)  # what it started from is kept to the bit where that was best
    assert apart < 0.5 * float(a.abs().max())
    ranges = load_ranges(aware.output)
    assert len(ranges.names) == len(ranges.ranges) > 40
    assert all(low <= 0 <= high and low < high for low, high in ranges.ranges)
    assert ranges.frame.shape == (64, 96, 3)
    assert history["precision"] == "fp32"


def test_it_is_found_again_and_done_again_where_it_differs(project: Path, done: tuple[StepResult, StepResult]) -> None:
    assert tuned(project)[1].cached
    again = tuned(project, "quantize.qat_lr=2e-3")[1]
    assert not again.cached
    assert again.sha256 != done[1].sha256
    assert tuned(project)[1].sha256 == done[1].sha256  # the same bits once more


class DiesWhenDone(Silent):
    """Ends the process's work at the first word after the fine-tuning."""

    def progress(self, label: str, done: int, total: int, detail: str = "") -> None:
        if label == "training for int8" and done == 2:
            raise KeyboardInterrupt


def test_interrupted_it_goes_on_to_the_same_bits(project: Path, done: tuple[StepResult, StepResult], tmp_path: Path) -> None:
    shutil.copytree(project.parent, tmp_path / "copy")
    path = tmp_path / "copy" / project.name
    shutil.rmtree(path.parent / "runs/tiny/checkpoints/qat")
    with pytest.raises(KeyboardInterrupt):
        tuned(path, ui=DiesWhenDone())
    assert tuned(path)[1].sha256 == done[1].sha256
    assert not list((path.parent / "runs/tiny/work").glob("qat-*"))


def test_ranges_that_are_damaged_are_refused(done: tuple[StepResult, StepResult], tmp_path: Path) -> None:
    shutil.copytree(done[1].output, tmp_path / "qat")
    (tmp_path / "qat" / "qat.npz").write_bytes(b"PK")
    with pytest.raises(TrainingError, match="learnt ranges are missing or damaged"):
        load_ranges(tmp_path / "qat")
