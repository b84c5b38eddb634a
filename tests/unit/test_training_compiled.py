"""`[train] compile`: refused where it cannot be, off where nobody asked, and decided by time where it is tried."""

import dataclasses
import itertools
from pathlib import Path

import pytest
import torch
from test_training_fit import HW, run, stores_of, tiny_config, write_tiny
from torch import nn

from edgeseg.core.config import TrainSection
from edgeseg.core.errors import ConfigError, RuntimeFailure
from edgeseg.core.manifest import Contract
from edgeseg.data.dataset import load_dataset
from edgeseg.training.compiled import Trial, choose, try_out
from edgeseg.training.ranks import SINGLE, Ranks
from edgeseg.training.task import SemanticTask, TaskContext

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


@pytest.fixture
def task(root: Path) -> SemanticTask:
    config = tiny_config(root)
    data = load_dataset(config.data, seed=0)
    return SemanticTask(TaskContext(data=data, config=config, stores=stores_of(data), contract=Contract(height=HW[0], width=HW[1]),
                                    device=CPU, precision="fp32"))


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_off_on_a_cpu_and_in_several_processes(task: SemanticTask) -> None:
    net, auto = small(), TrainSection()
    assert choose(net, task, auto, CPU, SINGLE, num_steps=10**9).run is net
    assert choose(net, task, auto, CPU, SINGLE, num_steps=10**9).words == "off: on a CPU"
    assert choose(net, task, auto, CPU, Ranks(count=2), num_steps=10**9).words == "off: several processes"
    with pytest.raises(ConfigError, match=r'compile = "on" works in one process'):
        choose(net, task, dataclasses.replace(auto, compile="on"), CPU, Ranks(count=2), num_steps=1)


def test_on_gives_the_same_answers_and_leaves_the_network_alone(task: SemanticTask) -> None:
    net = small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    choice = choose(net, task, TrainSection(compile="on"), CPU, SINGLE, num_steps=1, backend="eager")
    assert choice.words == "on"
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(choice.run(x), net(x))


def test_a_compiler_that_fails_is_said(task: SemanticTask) -> None:
    with pytest.raises(RuntimeFailure, match=r"torch\.compile failed"):
        choose(small(), task, TrainSection(compile="on"), CPU, SINGLE, num_steps=1, backend="no-such-backend")


def test_a_trial_counts_the_compiling(task: SemanticTask) -> None:
    plain, compiled = [1.0] * 15, [40.0, *[0.4] * 14]
    moments = itertools.accumulate(part for seconds in (*plain, *compiled) for part in (0.0, seconds))
    trial = try_out(small(), task, CPU, backend="eager", clock=lambda: next(moments))
    assert (trial.plain_ms, trial.compiled_ms, trial.compile_s) == pytest.approx((1000.0, 400.0, 40.0))
    assert not trial.pays(66)
    assert trial.pays(67)
    assert not Trial(plain_ms=5.0, compiled_ms=6.0, compile_s=0.0).pays(10**9)


def test_what_was_chosen_is_in_the_result(root: Path, tmp_path: Path) -> None:
    assert run(tiny_config(root, epochs=1), tmp_path / "run").compiled == "off: on a CPU"
    assert run(tiny_config(root, epochs=1, compile="off"), tmp_path / "run").compiled == "off"
