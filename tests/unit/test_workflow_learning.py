"""What the training step stands on: starting weights that are gone once it is done, and norms refused before the others are called."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from chain_tools import TINY_CONFIG, write_tiny_project

from edgeseg.core.errors import ConfigError, InputMissingError, MissingExtraError, TrainingError
from edgeseg.core.files import read_json
from edgeseg.models.encoders import build_encoder
from edgeseg.training.ranks import Ranks
from edgeseg.workflow import chain
from edgeseg.workflow.context import open_run
from edgeseg.workflow.learn import learning
from edgeseg.workflow.learn.together import Crew
from edgeseg.workflow.steps import StepResult
from edgeseg.workflow.ui import Silent

ONLY_EXPORT = frozenset({"check", "export"})
STARTING = ("model.name=fcn8s", "model.encoder=resnet18", "model.width=0.125", "train.epochs=1", "train.eval_every=1",
            "model.encoder_weights=weights/start.pth")
NET = """
from torch import nn


class NormAct(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


def build(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), NormAct(4), nn.Conv2d(4, num_classes, 1))
"""


def trained(path: Path, *more: str, only: frozenset[str] | None = ONLY_EXPORT) -> StepResult:
    """The training step as `edgeseg export` meets it."""
    with open_run(path, (*STARTING, *more), ui=Silent(), only=only) as ctx:
        return learning.train(ctx, learning.prepare_data(ctx))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose training is done; the file it started from is gone."""
    folder = tmp_path_factory.mktemp("done")
    path = write_tiny_project(folder, config=TINY_CONFIG)
    weights = folder / "weights" / "start.pth"
    weights.parent.mkdir()
    torch.manual_seed(1)
    torch.save(build_encoder("resnet18", 0.125).state_dict(), weights)
    assert not trained(path, only=None).cached
    weights.unlink()
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing was done."""
    return write_tiny_project(tmp_path_factory.mktemp("project"), config=TINY_CONFIG)


def test_what_a_training_started_from_may_go_once_it_is_done(done: Path) -> None:
    again = trained(done)
    assert again.cached
    assert read_json(done.parent / "runs/tiny/.steps/train.json")["key"]["encoder_weights"]


@pytest.mark.parametrize("more", [("train.seed=9",), ("model.encoder_weights=weights/other.pth",)])
def test_another_training_needs_its_weights(done: Path, more: tuple[str, ...]) -> None:
    for only in (ONLY_EXPORT, None):
        with pytest.raises(InputMissingError, match=r"weights/\w+\.pth does not exist"):
            trained(done, *more, only=only)
    assert trained(done).cached  # and leaves what was done


def test_other_weights_in_their_place_are_another_training(done: Path) -> None:
    weights = done.parent / "weights" / "start.pth"
    weights.write_bytes(b"others")
    try:
        with pytest.raises(InputMissingError, match="step 'train' was not done for this configuration"):
            trained(done)
    finally:
        weights.unlink()


def test_without_a_record_nothing_is_taken_for_done(tmp_path: Path) -> None:
    path = write_tiny_project(tmp_path, config=TINY_CONFIG)
    with pytest.raises(InputMissingError, match=r"start\.pth does not exist"):
        trained(path)


def test_a_package_may_go_too(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(section: Any) -> str:
        raise MissingExtraError("not installed")

    monkeypatch.setattr(learning, "encoder_weights_sha256", gone)
    assert trained(done).cached
    with pytest.raises(MissingExtraError, match="not installed"):
        trained(done, "train.seed=9")


@pytest.mark.parametrize(("overrides", "words"), [
    (("model.name=segformer",), "[model] name = 'segformer' is unknown; one of fast_scnn"),
    (("model.name=fcn8s", "model.encoder=resnet101"), "'resnet101': fcn8s takes resnet18, "),
    (("model.encoder=resnet18",), "'resnet18': fast_scnn takes none"),
    (("model.factory=a_net:build", "model.width=0.5"), "width = 0.5: a factory decides that itself"),
    (("model.factory=no_such_package_here:build", "model.width=1.0"), "there is no module 'no_such_package_here'"),
    (("model.name=fcn8s", "model.encoder_weights=none.pth"), "none.pth does not exist"),
])
def test_names_of_the_network_are_checked_before_the_data(project: Path, overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises((ConfigError, InputMissingError), match=re.escape(words)):
        chain.train(project, overrides, ui=Silent(), resume=False, restart=False)
    assert not (project.parent / "runs/tiny/data.json").exists()


def test_the_network_of_a_finished_training_is_not_looked_up_again(done: Path) -> None:
    with open_run(done, STARTING, ui=Silent(), only=ONLY_EXPORT) as ctx:
        learning.check_network(ctx)  # its starting weights are gone


def test_a_norm_that_would_drift_is_refused_before_the_others_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "norm_act_net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = write_tiny_project(tmp_path, config=TINY_CONFIG)
    crew = Crew(Ranks(count=2), "launch", 0)
    overrides = ("model.factory=norm_act_net:build", "model.width=1.0")
    with open_run(path, overrides, ui=Silent(), crew=crew) as ctx:
        data = learning.prepare_data(ctx)
        with pytest.raises(ConfigError, match=r"the network's norm '1' is a NormAct"):
            learning.train(ctx, data)
        assert not data.opened  # no frame was decoded


def test_a_damaged_training_names_the_whole_command_that_begins_it_again(tmp_path: Path) -> None:
    project = write_tiny_project(tmp_path, config=TINY_CONFIG)
    overrides = ("train.epochs=2", "data.layout=folder")
    with open_run(project, overrides, ui=Silent()) as ctx:
        data = learning.prepare_data(ctx)
        last = learning._train_work(ctx.folder, learning._train_key(ctx.config, data.dataset)) / "last"
    last.mkdir(parents=True)
    again = f"begin again with: edgeseg train {project} --set train.epochs=2 --set data.layout=folder --restart"
    with pytest.raises(TrainingError, match=re.escape(again)):
        chain.train(project, overrides, ui=Silent(), resume=True, restart=False)
