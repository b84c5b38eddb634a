"""What the float checkpoint of an instance model finds on the evaluation split: what every bundle is compared with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeseg.core.files import atomic_folder, read_json, write_json
from edgeseg.core.images import Frame
from edgeseg.core.instances import Instances, read_instances, write_instances
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract, InstanceReference
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.steps import StepResult, tools


@dataclass(frozen=True)
class FloatInstances:
    """The float checkpoint on the evaluation split."""

    step: StepResult
    reference: InstanceReference
    contract: Contract
    """Every bundle obeys it."""
    box_ap: float
    box_ap50: float
    num_objects: int

    def answers(self) -> list[Instances]:
        """Per frame, what it found, at model size."""
        return [read_instances(path) for path in sorted(self.step.output.glob("found/*.npz"))]


def evaluate_float_instances(ctx: RunContext, data: RunData, checkpoint: StepResult, contract: Contract) -> FloatInstances:
    """Run the checkpoint in torch on the evaluation split: answers at model size, AP at frame size.

    Raises:
        DataError: the split holds no labelled object.
        MissingExtraError: torch or pycocotools is not installed.
    """
    key = {
        "version": 1,
        "checkpoint": checkpoint.sha256,
        "dataset": data.dataset.sha256,
        "split": data.eval_split,
        "contract": contract.key,
        "tools": tools("torch", "numpy", "pillow", "pycocotools"),
    }

    def make(output: Path) -> None:
        with atomic_folder(output) as folder:
            write_json(folder / "score.json", _evaluate(ctx, data, checkpoint, contract, folder / "found"))

    step = ctx.steps.do("float-reference", kind="export", key=key, output=ctx.folder / "reference", make=make)
    saved = read_json(step.output / "score.json")
    reference = InstanceReference(
        dataset=data.dataset.name,
        dataset_sha256=data.dataset.sha256,
        split=saved["split"],
        num_frames=saved["num_frames"],
        ap=saved["ap"],
        ap50=saved["ap50"],
        class_ap=tuple(saved["class_ap"]),
    )
    return FloatInstances(step, reference, contract, saved["box_ap"], saved["box_ap50"], saved["num_objects"])


def _evaluate(ctx: RunContext, data: RunData, checkpoint: StepResult, contract: Contract, found_in: Path) -> dict[str, Any]:
    require("torch", extra="train")
    from edgeseg.training.checkpoint import load_checkpoint
    from edgeseg.training.instance_evaluate import evaluate_instances, instance_predictor

    net, _ = load_checkpoint(checkpoint.output)
    store = data.learnt_from(data.eval_split, "instance")
    predict = instance_predictor(net, len(data.dataset.classes), device="cpu")
    done = 0

    def recording(frame: Frame) -> Instances:  # evaluate_instances() asks for one frame after another
        nonlocal done
        found = predict(frame)
        write_instances(found_in / f"{done:06}.npz", found)
        done += 1
        return found

    score = evaluate_instances(
        recording, store, contract, on_frame=lambda i, n: ctx.ui.progress("evaluating the float network", i, n)
    )
    return {"split": data.eval_split, "num_frames": len(store), **asdict(score)}
