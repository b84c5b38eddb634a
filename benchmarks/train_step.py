"""Time a training step with its data already there against the same step fed by the real loader: what the loader costs.

    python -m benchmarks.train_step [--config edgeseg.toml] [--set train.batch_size=16 ...] [--steps 40] [--rounds 5] [--out result.json]

Without `--config` it trains on synthetic frames. Both kinds of step take turns, round by round, so that a machine that gets slower
slows both. Runs on a CPU as well, where the loader shares the processor with the step.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from edgeseg.core.config import Config, load_config
from edgeseg.core.files import write_json
from edgeseg.data.dataset import load_dataset
from edgeseg.data.store import FrameStore
from edgeseg.data.synthetic import write_field
from edgeseg.models import build
from edgeseg.training.device import pick_device, pick_precision
from edgeseg.training.step import Stepper
from edgeseg.training.task import Named, SemanticTask, TaskContext
from edgeseg.workflow.learn.learning import contract_of

NUM_SYNTHETIC = 48


def prepare(config: Config, num_steps: int) -> tuple[SemanticTask, Stepper]:
    """Give the task of a config and what steps through it."""
    data = load_dataset(config.data, seed=config.train.seed)
    stores = tuple(
        FrameStore(data.splits[split], num_classes=len(data.classes), memory_limit_mb=config.data.memory_limit_mb)
        for split in ("train", "val")
    )
    device = pick_device(config.train)
    context = TaskContext(
        data=data, config=config, stores=(stores[0], stores[1]), device=device, precision=pick_precision(config.train, device),
        contract=contract_of(config),
    )
    task = SemanticTask(context)
    net = build(config.model, len(data.classes), seed=config.train.seed)
    stepper = Stepper(net, task, context, num_steps=num_steps)
    stepper.net.train()
    return task, stepper


def endless(task: SemanticTask) -> Iterator[Named]:
    """Give batches of epoch after epoch, as the loop asks for them."""
    for epoch in itertools.count():
        yield from task.batches(epoch).stream


def timed(stepper: Stepper, stream: Iterator[Named], steps: int) -> float:
    """Milliseconds a step."""
    started = time.perf_counter()
    for number in range(steps):
        stepper.step(next(stream), step=number, lr=1e-4)
    stepper.finish_epoch()
    if stepper.device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started) / steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=40, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        if given.config is None:
            write_field(Path(folder) / "data", seed=0, counts={"train": NUM_SYNTHETIC, "val": 2, "test": 1}, size_hw=(360, 480))
            (Path(folder) / "edgeseg.toml").write_text('[data]\ndir = "data"\n')
        config = load_config(given.config or Path(folder) / "edgeseg.toml", tuple(given.set))
        task, stepper = prepare(config, num_steps=1000)
        stream, constant = endless(task), itertools.repeat(next(task.batches(0).stream))
        timed(stepper, constant, 5)
        timed(stepper, stream, 5)
        rounds = [(timed(stepper, constant, given.steps), timed(stepper, stream, given.steps)) for _ in range(given.rounds)]
    constant_ms, loader_ms = (statistics.median(one[i] for one in rounds) for i in range(2))
    ratio = statistics.median(loader / alone for alone, loader in rounds)
    result = {
        "model": config.model.name, "width": config.model.width, "batch_size": config.train.batch_size,
        "crop_hw": list(task.context.crop_hw),
        "device": torch.cuda.get_device_name() if stepper.device.type == "cuda" else f"cpu, {given.threads} threads",
        "precision": task.context.precision, "compile": stepper.compiled, "frames_on_gpu": task.on_device is not None,
        "torch": torch.__version__, "steps": given.steps, "rounds": given.rounds,
        "constant_ms": round(constant_ms, 3), "loader_ms": round(loader_ms, 3), "ratio": round(ratio, 4),
    }
    print("\n".join(f"{key:14} {value}" for key, value in result.items()))
    print(f"a step takes {constant_ms:.2f} ms on constant data and {loader_ms:.2f} ms with the loader: {100 * (ratio - 1):+.1f} %")
    if given.out is not None:
        write_json(given.out, result)


if __name__ == "__main__":
    main()
