"""Prune one trained network by torch-pruning's default and by edgeseg, fine-tune all alike, and measure them in turns.

    python -m benchmarks.pruning PROJECT/edgeseg.toml [--gain 2 3] [--epochs 10] [--precision int8] [--steps 3] [--json FILE]
    python -m benchmarks.pruning --field FOLDER ...        (writes the synthetic field there and trains on it first)

The project's training has to be done (edgeseg train) or is done now. For each gain G: torch-pruning's default and `[prune]` by MACs are
told to keep 1/G of the MACs, `[prune]` by latency 1/G of the latency, as a user would. One row each: MACs saved, latency saved
(interleaved with the unpruned network, 95 % interval), the second over the first, and mIoU on the evaluation split after the same
epochs of fine-tuning with the same teacher. One thread.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from edgeseg.core.config import Config
from edgeseg.core.files import read_json, sha256_json, write_json
from edgeseg.core.lazy import require
from edgeseg.core.metrics import score
from edgeseg.data.synthetic import write_field
from edgeseg.models import Network, channel_shapes, count_macs
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.evaluate import evaluate, torch_predictor
from edgeseg.workflow.compress.network_latency import NetworkTimer
from edgeseg.workflow.compress.pruning import prune
from edgeseg.workflow.context import RunContext, open_run
from edgeseg.workflow.learn.learning import FineTuning, RunData, contract_of, fit_checkpoint, prepare_data, train
from edgeseg.workflow.learn.teaching import learning_values
from edgeseg.workflow.steps import StepResult, Steps, tools
from edgeseg.workflow.ui import Silent
from targets.machine import describe_machine

FIELD: Final = """name = "field"
[data]
dir = "data"
size = [192, 256]
[train]
epochs = 40
batch_size = 8
lr = 4e-3
ema = 0.98
"""
_BISECTIONS: Final = 12


def torch_pruning_default(net: nn.Module, macs_share: float, hw: tuple[int, int]) -> nn.Module:
    """What its README does: group magnitude, every layer the same ratio, class layers ignored; the ratio that leaves the MACs asked for."""
    tp = require("torch_pruning", extra="train")
    low, high, best = 0.0, 0.98, None
    total = count_macs(net, hw)
    for _ in range(_BISECTIONS):
        ratio = (low + high) / 2
        candidate = copy.deepcopy(net).eval()
        assert isinstance(candidate, Network)
        pruner = tp.pruner.BasePruner(
            candidate, torch.zeros(1, 3, 96, 96), importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=ratio,
            ignored_layers=[candidate.get_submodule(name) for name in candidate.class_layers], forward_fn=lambda m, x: m.graph_outputs(x),
        )
        pruner.step()
        if count_macs(candidate, hw) <= macs_share * total:
            best, high = candidate, ratio
        else:
            low = ratio
    assert best is not None, "so few MACs cannot be left"
    return best


class Bench:
    """One trained network, and what is done to it."""

    def __init__(self, ctx: RunContext, data: RunData, trained: StepResult, timer: NetworkTimer, arguments: argparse.Namespace) -> None:
        self.ctx, self.data, self.trained, self.arguments = ctx, data, trained, arguments
        self.whole = load_checkpoint(trained.output)[0]
        self.macs = count_macs(self.whole, ctx.config.data.size)
        self.timer = timer
        self.rows: list[dict[str, Any]] = []

    def miou(self, net: nn.Module) -> float:
        """On the evaluation split, in torch."""
        contract, store = contract_of(self.ctx.config), self.data.store(self.data.eval_split)
        confusions = evaluate(torch_predictor(net, contract), store, contract, len(self.data.dataset.classes))
        return float(score(confusions.sum(axis=0)).miou)

    def row(self, name: str, gain: float, net: nn.Module, facts: dict[str, Any]) -> None:
        """Measure a fine-tuned network and print its row."""
        macs_gain = self.macs / count_macs(net, self.ctx.config.data.size)
        whole, pruned = self.timer.bundle("whole", self.whole), self.timer.bundle(f"n{len(self.rows)}", net)
        ratio = self.timer.compare(whole, pruned, quick=self.arguments.quick)
        row = {"method": name, "asked": gain, "macs_gain": macs_gain, "latency_gain": ratio.ratio, "low": ratio.low, "high": ratio.high,
               "conversion": ratio.ratio / macs_gain, "miou": self.miou(net), **facts}
        self.rows.append(row)
        print(f"{name:28} x{gain:<4g} MACs /{macs_gain:5.2f}  latency /{ratio.ratio:5.2f} ({ratio.low:.2f} to {ratio.high:.2f})  "
              f"latency over MACs {row['conversion']:.2f}  mIoU {row['miou']:.4f}", flush=True)

    def fine_tuned(self, net: nn.Module, name: str) -> nn.Module:
        """Train as `[prune]` does after its last cut; found again by the next run of this command."""
        section = self.ctx.config.prune
        channels = {layer: list(shape.values()) for layer, shape in channel_shapes(net).items()}
        key = {"trained": self.trained.sha256, "channels": channels, "prune": dataclasses.asdict(section), "train": learning_values(
            self.ctx.config.train, self.trained.sha256)}

        def make(output: Path) -> None:
            tuning = FineTuning(epochs=section.epochs, lr=section.lr, report={})
            work = self.arguments.work / f"{name}-{sha256_json(key)[:8]}.work"
            fit_checkpoint(self.ctx, self.data, net, work=work, output=output, label=name, tuning=tuning, teacher=self.whole)

        step = Steps(self.arguments.work, Silent()).do(name, kind="prune", key=key, output=self.arguments.work / name, make=make)
        return load_checkpoint(step.output)[0]

    def pruned(self, name: str, **values: Any) -> tuple[nn.Module, dict[str, Any]]:  # noqa: ANN401 - keys of [prune]
        """Let the run's own step prune and fine-tune, in a folder of its own."""
        config = dataclasses.replace(self.ctx.config, prune=dataclasses.replace(self.ctx.config.prune, **values))
        folder = self.arguments.work / f"{name}-{sha256_json(values)[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        ctx = dataclasses.replace(self.ctx, config=config, folder=folder, steps=Steps(folder, Silent()))
        final = prune(ctx, self.data, self.trained)
        return load_checkpoint(final.output)[0], {"latency": read_json(final.output / "prune.json").get("latency")}


def main() -> None:
    """Parse, prune, train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?")
    parser.add_argument("--field", type=Path, help="folder for the synthetic field, in place of a project")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the project's training, as it was trained")
    parser.add_argument("--gain", type=float, nargs="+", default=[2.0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3, help="cuts of the latency mode")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    parser.add_argument("--format", default="openvino")
    parser.add_argument("--only", nargs="+", choices=("default", "macs", "latency"), default=["default", "macs", "latency"])
    parser.add_argument("--full", dest="quick", action="store_false", help="long comparisons, for a machine that is idle")
    parser.add_argument("--work", type=Path, help="where networks are kept; default: beside the project")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config_path = arguments.config or _field(arguments.field)
    arguments.work = (arguments.work or config_path.parent / "benchmark-pruning").resolve()
    overrides = (*arguments.set, "targets=[\"host\"]", f"export.formats=[\"{arguments.format}\"]", "bench.threads=1",
                 f"prune.epochs={arguments.epochs}", f"prune.precision={arguments.precision}")
    with ExitStack() as opened:
        ctx = opened.enter_context(open_run(config_path, overrides, ui=Silent()))
        data = prepare_data(ctx)
        timer = opened.enter_context(NetworkTimer(ctx, data, arguments.precision))
        bench = Bench(ctx, data, train(ctx, data), timer, arguments)
        whole_miou = bench.miou(bench.whole)
        print(f"unpruned: {bench.macs / 1e9:.3f} GMAC, mIoU {whole_miou:.4f}; {bench.timer.words}, {arguments.epochs} epochs of tuning",
              flush=True)
        for gain in arguments.gain:
            for name, run in _methods(bench, gain).items():
                if name in arguments.only:
                    run()
        if arguments.json:
            write_json(arguments.json, _facts(ctx.config, bench, whole_miou))


def _methods(bench: Bench, gain: float) -> dict[str, Callable[[], None]]:
    hw, steps = bench.ctx.config.data.size, bench.arguments.steps

    def default() -> None:
        net = torch_pruning_default(bench.whole, 1 / gain, hw)
        bench.row("torch-pruning default", gain, bench.fine_tuned(net, f"default-{gain:g}"), {})

    def by_macs() -> None:
        net, facts = bench.pruned("macs", macs_share=1 / gain)
        bench.row("[prune] macs_share", gain, net, facts)

    def by_latency() -> None:
        net, facts = bench.pruned("latency", latency_share=1 / gain, steps=steps)
        bench.row("[prune] latency_share", gain, net, facts)

    return {"default": default, "macs": by_macs, "latency": by_latency}


def _field(folder: Path | None) -> Path:
    if folder is None:
        sys.exit("give a project's edgeseg.toml, or --field FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "edgeseg.toml"
    if not path.exists():
        write_field(folder / "data", seed=7, counts={"train": 160, "val": 40, "test": 60}, size_hw=(192, 256))
        path.write_text(FIELD)
    return path


def _facts(config: Config, bench: Bench, whole_miou: float) -> dict[str, Any]:
    machine = describe_machine()
    return {
        "command": " ".join(["python -m benchmarks.pruning", *(word if "/" not in word else Path(word).name for word in sys.argv[1:])]),
        "network": dataclasses.asdict(config.model.portable), "size": list(config.data.size), "seed": config.train.seed,
        "dataset": bench.data.dataset.name, "dataset_sha256": bench.data.dataset.sha256, "split": bench.data.eval_split,
        "trained_epochs": config.train.epochs, "fine_tuning_epochs": config.prune.epochs, "runtime": bench.timer.how.runtime,
        "precision": bench.timer.precision, "num_threads": bench.timer.how.options.num_threads, "macs": bench.macs, "miou": whole_miou,
        "tools": tools("torch", "torch-pruning", "openvino", "onnxruntime", "ai-edge-litert", "nncf"),
        "cpu": machine.cpu, "cores": machine.cores, "rows": bench.rows,
    }


if __name__ == "__main__":
    main()
