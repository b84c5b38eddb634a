"""Two gloo processes are one: the same loss, gradients, norms, scores and order of samples as one process with the whole batch."""

import dataclasses
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import test_training_instances as instances
import torch
from test_training_fit import stores_of, tiny_config, write_tiny
from torch import Tensor, nn

from edgeseg.core.config import Config
from edgeseg.core.errors import ConfigError, TrainingError
from edgeseg.core.manifest import Contract
from edgeseg.data.dataset import load_dataset
from edgeseg.data.loader import batches
from edgeseg.models.outputs import Outputs
from edgeseg.training.device import pick_device
from edgeseg.training.instance_task import InstanceTask
from edgeseg.training.loop import check_split
from edgeseg.training.ranks import SINGLE, Ranks, joined, ranks_of
from edgeseg.training.step import Stepper
from edgeseg.training.sync_norm import check_norms, synchronise_norms
from edgeseg.training.task import SemanticTask, TaskContext

LOSSES = {"ce": 1.0, "dice": 0.5, "focal": 0.3, "lovasz": 0.5}


class TwoHeads(nn.Module):
    """Strided convolutions with norms, and an auxiliary head while it trains; no dropout, whose masks differ by rank."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.scores, self.aux = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)
        self.unused = nn.Conv2d(1, 1, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor | Outputs:
        early = self.stem(x_NCHW)
        main = self.scores(self.body(early))
        return Outputs(main, (self.aux(early),), (0.4,)) if self.training else main


def one_step(root: Path, ranks: Ranks, *, precision: str = "fp32") -> dict[str, Tensor]:
    """Gradients, loss, norm statistics and validation counts of the first step with batches of 8."""
    config: Config = tiny_config(root, batch_size=8, ema=0.0, loss=LOSSES, precision=precision, clip_norm=0.0)
    data = load_dataset(config.data, seed=0)
    context = TaskContext(data=data, config=config, stores=stores_of(data), contract=Contract(height=32, width=48),
                          device=torch.device("cpu"), precision=precision, ranks=ranks)
    torch.manual_seed(0)
    net = TwoHeads()
    with torch.no_grad():
        net.stem[0].weight.mul_(3)
    task = SemanticTask(context)
    stepper = Stepper(net, task, context)
    stepper.net.train()
    (batch,) = task.batches(0).stream
    stepper.step(batch, step=0, lr=0.0)
    result = {f"grad.{name}": p.grad for name, p in stepper.net.named_parameters() if p.grad is not None}
    result |= {name: value.clone() for name, value in stepper.net.named_buffers()}
    result["loss"] = torch.tensor(stepper.finish_epoch())
    result["score"] = torch.tensor([task.validate(stepper.net).score])
    return result


def instance_step(folder: Path, ranks: Ranks) -> dict[str, Tensor]:
    """Loss and gradients of Mask R-CNN's first step with a batch of 4."""
    context = dataclasses.replace(instances.context_of(folder, clip_norm=0.0), ranks=ranks)
    task = InstanceTask(context)
    stepper = Stepper(instances.network(), task, context)
    stepper.net.train()
    stepper.step(next(task.batches(0).stream), step=0, lr=0.0)
    result = {name: p.grad for name, p in stepper.net.named_parameters() if p.grad is not None}
    return {**result, "loss": torch.tensor(stepper.finish_epoch())}


def norm_alone(ranks: Ranks) -> dict[str, Tensor]:
    """Batch norm forward and backward on this process's half of eight frames whose channels have large means."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 4, 5, 6, generator=generator) + torch.tensor([0.0, 10.0, 1000.0, -3.0]).view(1, 4, 1, 1)
    weigh = torch.randn(8, 4, 5, 6, generator=generator)
    half = slice(ranks.rank * 8 // ranks.count, (ranks.rank + 1) * 8 // ranks.count)
    norm = nn.Sequential(nn.BatchNorm2d(4, momentum=0.3))
    with torch.no_grad():
        norm[0].weight.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]))
    synchronise_norms(norm, ranks)
    mine = x[half].clone().requires_grad_()
    y = norm(mine)
    (y * weigh[half]).sum().backward()
    assert mine.grad is not None
    result = {"y": ranks.gathered(y.detach()), "grad": ranks.gathered(mine.grad), "weight": ranks.total(norm[0].weight.grad),
              "bias": ranks.total(norm[0].bias.grad), "mean": norm[0].running_mean, "var": norm[0].running_var}
    norm.eval()
    return {**result, "eval": norm(x[:1]).detach()}


def child() -> None:
    """What each of the two processes does; rank 0 writes what it found."""
    torch.set_num_threads(1)
    ranks, root, out = ranks_of(os.environ), Path(sys.argv[1]), Path(sys.argv[2])
    with joined(ranks, cuda=False):
        found: dict[str, Any] = {"fp32": one_step(root, ranks), "bf16": one_step(root, ranks, precision="bf16"), "norm": norm_alone(ranks)}
        found["instances"] = instance_step(out / f"shapes{ranks.rank}", ranks)
        net = nn.ModuleDict({"first": nn.Linear(1, 1, bias=False), "nobody": nn.Linear(1, 1)})
        if ranks.rank == 1:  # a gradient that only one process has still counts as half
            net["first"](torch.ones(1)).sum().backward()
        ranks.mean_gradients(net)
        found["half"] = [None if p.grad is None else float(p.grad) for p in net.parameters()]
        found["told"] = ranks.told({"from": ranks.rank})
        try:
            ranks.must_agree("colour", str(ranks.rank))
        except TrainingError as error:
            (out / "disagreed.txt").write_text(str(error))
        ranks.wait()
        if ranks.is_first:
            torch.save(found, out / "found.pt")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def found(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("out")
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with reserved_port() as port:
        two_processes(port, paths, root, out)
    return torch.load(out / "found.pt"), out


@contextmanager
def reserved_port() -> Iterator[str]:
    """A port that nobody else is given; who asks for it by number and may share it, as PyTorch's store, can listen there."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield str(reserved.getsockname()[1])


def two_processes(port: str, paths: str, root: Path, out: Path) -> None:
    processes = []
    for rank in range(2):
        environment = {**os.environ, "PYTHONPATH": paths, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
                       "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
        command = [sys.executable, "-c", "import test_training_ranks as t; t.child()", str(root), str(out)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, stderr = process.communicate(timeout=500)
        assert process.returncode == 0, stderr


def test_a_step_of_two_processes_is_the_step_of_one(root: Path, found: tuple[dict[str, Any], Path]) -> None:
    torch.set_num_threads(1)
    alone, together = one_step(root, SINGLE), found[0]["fp32"]
    assert alone.keys() == together.keys()
    assert "grad.unused.weight" not in alone
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=2e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert float(alone["grad.stem.0.weight"].abs().max()) > 1e-3  # else the comparison says nothing


def test_bf16_too_within_its_precision(root: Path, found: tuple[dict[str, Any], Path]) -> None:
    torch.set_num_threads(1)
    alone, together = one_step(root, SINGLE, precision="bf16"), found[0]["bf16"]
    torch.testing.assert_close(together["loss"], alone["loss"], rtol=1e-2, atol=0)
    ours, its = together["grad.scores.weight"], alone["grad.scores.weight"]
    assert float((ours - its).norm() / its.norm()) < 0.05


def test_objects_too(found: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    alone, together = instance_step(tmp_path, SINGLE), found[0]["instances"]
    assert alone.keys() == together.keys()
    torch.testing.assert_close(together["loss"], alone["loss"], rtol=1e-4, atol=0)
    ours, its = (torch.cat([one[name].reshape(-1) for name in alone]) for one in (together, alone))
    assert float((ours - its).norm() / its.norm()) < 1e-3


def test_a_norm_over_two_processes_is_pytorchs_over_the_whole_batch(found: tuple[dict[str, Any], Path]) -> None:
    alone, together = norm_alone(SINGLE), found[0]["norm"]
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_what_the_processes_tell_each_other(found: tuple[dict[str, Any], Path]) -> None:
    assert found[0]["half"] == [0.5, None, None]
    assert found[0]["told"] == {"from": 0}
    assert (found[1] / "disagreed.txt").read_text().startswith("rank 1 has another colour than rank 0")


def test_slices_make_the_batch_of_one_process(root: Path) -> None:
    config = tiny_config(root)
    store, _ = stores_of(load_dataset(config.data, seed=0))
    options: dict[str, Any] = {"seed": 3, "epoch": 1, "batch_size": 4, "crop_hw": (32, 48), "section": config.augment,
                               "model_hw": (32, 48), "resize": "stretch"}
    whole = list(batches(store, **options))
    slices = [list(batches(store, **options, part=(rank, 2), num_workers=rank)) for rank in range(2)]
    for number, batch in enumerate(whole):
        parts = [mine[number] for mine in slices]
        assert batch.ids == parts[0].ids + parts[1].ids
        assert (batch.frames_NHWC == [*parts[0].frames_NHWC, *parts[1].frames_NHWC]).all()


def test_a_batch_that_cannot_be_split_names_sizes_that_can() -> None:
    check_split(9, 3)
    with pytest.raises(ConfigError, match=r"batch_size = 8 cannot be split evenly over 3 processes; .* for instance 6 or 9"):
        check_split(8, 3)


def test_the_launchers_environment() -> None:
    assert ranks_of({"WORLD_SIZE": "4", "RANK": "1"}) == SINGLE  # another tool's: no torchrun
    full = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert ranks_of(full) == Ranks(rank=3, count=4, local_rank=1, local_count=2)
    with pytest.raises(ConfigError, match="environment is incomplete"):
        ranks_of({**full, "RANK": "x"})


class NormAct(nn.BatchNorm2d):
    """A norm with its activation inside, as timm has it."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return super().forward(x_NCHW).relu()


class OwnNorm(nn.Module):
    """A norm by hand, related to none of PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(4))


@pytest.mark.parametrize(("norm", "kind"), [
    (NormAct(4), "NormAct"),
    (nn.BatchNorm1d(4), "BatchNorm1d"),
    (nn.BatchNorm3d(4), "BatchNorm3d"),
    (nn.SyncBatchNorm(4), "SyncBatchNorm"),
    (nn.InstanceNorm2d(4, track_running_stats=True), "InstanceNorm2d"),
    (nn.BatchNorm2d(4, track_running_stats=False), "BatchNorm2d with track_running_stats=False"),
    (OwnNorm(), "OwnNorm"),
])
def test_a_norm_that_would_drift_is_refused_where_several_train(norm: nn.Module, kind: str) -> None:
    net = nn.ModuleDict({"plain": nn.BatchNorm2d(4), "odd": nn.Sequential(norm)})
    with pytest.raises(ConfigError, match=rf"the network's norm 'odd\.0' is a {kind}: over 2 processes only .* in one process") as error:
        synchronise_norms(net, Ranks(count=2))
    assert "\n" not in str(error.value)
    assert not any("forward" in vars(module) for module in net.modules())  # refused before anything was bound
    synchronise_norms(net, SINGLE)


def test_norms_without_statistics_of_the_batch_are_left_alone() -> None:
    net = nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4))
    synchronise_norms(net, Ranks(count=2))
    assert ["forward" in vars(module) for module in net] == [True, False, False, False]


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed; it comes with pip install 'edgeseg[keras]'")
def test_a_keras_network_trains_in_one_process() -> None:
    from test_models_keras import network

    net = network()
    for one in (net, nn.Sequential(net.model)):  # wrapped by us, or inside a module of the user's
        with pytest.raises(ConfigError, match="of a Keras network are not kept in step over 3 processes; train it in one process"):
            check_norms(one, Ranks(count=3))
        check_norms(one, SINGLE)


def test_one_process_alone_needs_no_group() -> None:
    net = nn.BatchNorm2d(2)
    synchronise_norms(net, SINGLE)
    assert "forward" not in vars(net)
    assert SINGLE.told(net) is net
    assert pick_device(dataclasses.replace(tiny_config(Path()).train, device="cpu"), local_count=8).type == "cpu"
