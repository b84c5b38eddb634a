"""Fine-tuning for int8: the network learns while it rounds as its bundles will, with its float self as teacher."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.config import Config
from edgeseg.core.errors import ConfigError
from edgeseg.core.files import atomic_folder, sha256_json
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.workflow.bundle.pictures import spread
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import FineTuning, RunData, contract_of, fit_checkpoint, pin_torch
from edgeseg.workflow.learn.reference import model_inputs
from edgeseg.workflow.learn.teaching import learning_values
from edgeseg.workflow.steps import StepResult, tools

if TYPE_CHECKING:
    from torch import Tensor, nn

    from quantization.qat import FakeQuantized

_FRAMES: Final = 16
"""Training frames that ranges start from; the first of them is the probe."""


def quantization_aware(ctx: RunContext, data: RunData, final: StepResult) -> StepResult:
    """Fine-tune the checkpoint `final` for int8; output: a checkpoint (weights in float, as learnt) with its ranges beside it.

    The ranges are for `quantization.carry`. The float network of `final` is the teacher.

    Raises:
        ConfigError: its norms cannot be folded and unfolded, or nothing of it would be rounded.
        TrainingError: see `edgeseg.training.loop.fit`.
    """
    config, contract = _config(ctx.config), contract_of(ctx.config)
    key = {
        "version": 1,
        "checkpoint": final.sha256,
        "dataset": data.dataset.sha256,
        **tuning_values(ctx.config, final),
        "contract": contract.key,
        "tools": tools("torch", "numpy", "pillow"),
    }

    def make(output: Path) -> None:
        require("torch", extra="train")
        from edgeseg.training.checkpoint import load_checkpoint

        pin_torch(config.train.seed, ctx.trainings_here)
        net, _ = load_checkpoint(final.output)
        frames = model_inputs(data, "train", contract, list(spread(len(data.dataset.splits["train"]), _FRAMES)))[:_FRAMES]
        rounding = _prepared(net, frames)
        work = ctx.work / f"qat-{sha256_json(key)[:12]}"
        fitted = work.with_name(f"{work.name}-fitted")
        if not fitted.exists():
            section = ctx.config.quantize
            tuning = FineTuning(epochs=section.qat_epochs, lr=section.qat_lr, again=f"rm -r {work}", keep_start=True)
            learning = replace(ctx, config=config)
            fit_checkpoint(learning, data, rounding, work=work, output=fitted, label="training for int8", tuning=tuning, teacher=net)
        _write(output, fitted, net, rounding, frames[0])
        shutil.rmtree(fitted)

    return ctx.steps.do("qat", kind="quantize", key=key, output=ctx.folder / "checkpoints" / "qat", make=make)


def why_not(final: StepResult) -> str:
    """Why the checkpoint `final` cannot be fine-tuned for int8, as far as that shows before; empty = nothing is known against it."""
    require("torch", extra="train")
    from edgeseg.training.checkpoint import load_checkpoint
    from quantization.qat import check_unfolds

    try:
        check_unfolds(load_checkpoint(final.output)[0])
    except ConfigError as error:
        return str(error)
    return ""


def tuning_values(config: Config, final: StepResult) -> dict[str, Any]:
    """Values of a run's config that the fine-tuning of `final` depends on: those of distillation too, with or without `[train] teacher`."""
    section, used = config.quantize, _config(config)
    return {
        "qat": {"epochs": section.qat_epochs, "lr": section.qat_lr, "frames": _FRAMES},
        "augment": asdict(used.augment), "train": learning_values(used.train, final.sha256),
    }


def _config(config: Config) -> Config:
    """In float32, since bf16 rounds as coarsely as int8; not compiled, since what rounds is no graph; the teacher is given."""
    return replace(config, train=replace(config.train, precision="fp32", compile="off", teacher=""))


def _prepared(net: nn.Module, frames: list[Frame]) -> FakeQuantized:
    from edgeseg.models import fold
    from quantization.qat import FakeQuantized, check_unfolds, settle

    check_unfolds(net)
    inputs = [_input(frame) for frame in frames]
    rounding = FakeQuantized(fold(net), inputs[0])
    settle(rounding, inputs)
    return rounding


def _write(output: Path, fitted: Path, net: nn.Module, rounding: FakeQuantized, probe: Frame) -> None:
    """Put the weights of `fitted` back into the network as it was built, with what is known of the ranges."""
    from safetensors.torch import load_file

    from edgeseg.training.checkpoint import WEIGHTS_NAME, open_checkpoint, save_checkpoint
    from quantization.carry import learnt, save_ranges
    from quantization.qat import unfold, watched

    meta = open_checkpoint(fitted).meta
    rounding.load_state_dict(load_file(fitted / WEIGHTS_NAME))
    values = [(slot, x.numpy()) for slot, x in watched(rounding, _input(probe))]
    with atomic_folder(output) as folder:
        saved = save_checkpoint(folder / "float", unfold(net, rounding.net), meta)
        for path in saved.folder.iterdir():
            path.rename(folder / path.name)
        saved.folder.rmdir()
        save_ranges(folder, learnt(rounding.slot_names(), rounding.ranges(), probe, values))
        shutil.copy(fitted / "history.json", folder)


def _input(frame: Frame) -> Tensor:
    import numpy as np
    import torch

    from edgeseg.models import normalise

    return normalise(torch.from_numpy(np.array(frame)).unsqueeze(0))
