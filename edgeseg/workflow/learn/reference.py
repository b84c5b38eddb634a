"""What the float checkpoint answers on the evaluation split: the numbers and class maps every bundle is compared with."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.files import atomic_folder, read_json, write_json
from edgeseg.core.images import ClassMap, Frame, to_frame, to_model
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract, Reference
from edgeseg.core.metrics import boundary_f1, mean_boundary_f1, mean_of, score
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.steps import StepResult, tools


@dataclass(frozen=True)
class FloatReference:
    """The float checkpoint on the evaluation split."""

    step: StepResult
    reference: Reference
    contract: Contract
    """With its decision; every bundle obeys it."""
    pixel_accuracy: float
    mean_dice: float
    dice: tuple[float | None, ...]
    mean_boundary_f1: float
    boundary_f1: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Pixels, rows = label, at frame size."""

    def confusions(self) -> NDArray[np.int64]:
        """Its confusion matrices frame by frame, int64 [N, C, C], rows = label; at frame size."""
        return read_confusions(self.step.output)

    def class_maps(self) -> list[list[ClassMap]]:
        """Per frame, its answers at model size (several where the policy is `tile`)."""
        return read_class_maps(self.step.output / "class_maps.npz")


def read_confusions(folder: Path) -> NDArray[np.int64]:
    """Read the confusion matrices that `evaluate_float` left in `folder`: int64 [N, C, C]."""
    return np.asarray(read_json(folder / "score.json")["confusions"], dtype=np.int64)


def read_class_maps(path: Path) -> list[list[ClassMap]]:
    """Read what `_write_class_maps` wrote: a list a frame of uint8 [h, w]."""
    with np.load(path, allow_pickle=False) as archive:
        return [list(archive[f"f{i:06}"]) for i in range(len(archive.files))]


def _write_class_maps(path: Path, class_maps: list[list[ClassMap]]) -> None:
    """Write an .npz whose bytes depend on the arrays alone (numpy's own savez stamps the time of day)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for i, maps in enumerate(class_maps):
            with archive.open(zipfile.ZipInfo(f"f{i:06}.npy"), "w") as stream:
                np.lib.format.write_array(stream, np.stack(maps), allow_pickle=False)


def evaluate_float(ctx: RunContext, data: RunData, checkpoint: StepResult, contract: Contract) -> FloatReference:
    """Run the checkpoint in torch on the evaluation split, at model size for the answers and at frame size for the score."""
    store = data.store(data.eval_split)
    key = {
        "version": 2,
        "checkpoint": checkpoint.sha256,
        "dataset": data.dataset.sha256,
        "split": data.eval_split,
        "contract": contract.key,
        "tools": tools("torch", "numpy", "pillow"),
    }

    def make(output: Path) -> None:
        require("torch", extra="train")
        from edgeseg.training.checkpoint import load_checkpoint
        from edgeseg.training.evaluate import evaluate, torch_predictor

        net, _ = load_checkpoint(checkpoint.output)
        predict = torch_predictor(net, contract, device="cpu")
        class_maps: list[list[ClassMap]] = []

        def recording(frame: Frame) -> ClassMap:
            answer = predict(frame)
            flat.append(answer)
            return answer

        def on_frame(done: int, total: int) -> None:  # evaluate() asks for one frame's inputs after another
            class_maps.append(flat.copy())
            flat.clear()
            ctx.ui.progress("evaluating the float network", done, total)

        flat: list[ClassMap] = []
        confusions = evaluate(recording, store, contract, len(data.dataset.classes), on_frame=on_frame)
        result = score(confusions.sum(axis=0))
        outlines = []
        for i, maps in enumerate(class_maps):
            label = store[i][1]
            placement = contract.place((label.shape[0], label.shape[1]))
            outlines.append(boundary_f1(to_frame(maps, placement), label, num_classes=len(data.dataset.classes)))
        class_boundary_f1 = mean_boundary_f1(outlines)
        with atomic_folder(output) as folder:
            _write_class_maps(folder / "class_maps.npz", class_maps)
            write_json(
                folder / "score.json",
                {
                    "split": data.eval_split,
                    "num_frames": len(store),
                    "miou": result.miou,
                    "iou": list(result.iou),
                    "pixel_accuracy": result.pixel_accuracy,
                    "mean_dice": result.mean_dice,
                    "dice": list(result.dice),
                    "mean_boundary_f1": mean_of(class_boundary_f1),
                    "boundary_f1": list(class_boundary_f1),
                    "confusions": confusions.tolist(),
                },
            )

    step = ctx.steps.do("float-reference", kind="export", key=key, output=ctx.folder / "reference", make=make)
    saved = read_json(step.output / "score.json")
    reference = Reference(
        dataset=data.dataset.name,
        dataset_sha256=data.dataset.sha256,
        split=saved["split"],
        num_frames=saved["num_frames"],
        miou=saved["miou"],
        iou=tuple(saved["iou"]),
    )
    return FloatReference(
        step,
        reference,
        contract,
        pixel_accuracy=saved["pixel_accuracy"],
        mean_dice=saved["mean_dice"],
        dice=tuple(saved["dice"]),
        mean_boundary_f1=saved["mean_boundary_f1"],
        boundary_f1=tuple(saved["boundary_f1"]),
        confusion=tuple(tuple(row) for row in np.sum(saved["confusions"], axis=0).tolist()),
    )


def model_inputs(data: RunData, split: str, contract: Contract, indices: list[int]) -> list[Frame]:
    """Frames of a split at model size, one entry a model input."""
    inputs: list[Frame] = []
    for i in indices:
        frame = data.frame(split, i)
        inputs += to_model(frame, contract.place((frame.shape[0], frame.shape[1])))
    return inputs
