"""Int8 of a run's bundles: the rescue ladder on held-back training frames, then the sealed bundle, int8 or mixed.

Two steps a format: `rescue-FORMAT` climbs (`climbing`) and keeps the model files with the table of rungs, `quantize-FORMAT` seals
them. The name of a bundle is known only after the climb: RUN-FORMAT-int8, or -mixed where layers beside the class layers stay float.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import BundleInfo, ModelFiles, open_bundle, seal_bundle
from edgeseg.core.errors import ConfigError
from edgeseg.core.files import atomic_folder, read_json, sha256_json, write_json
from edgeseg.core.manifest import Parent
from edgeseg.data.store import read_sample
from edgeseg.workflow.bundle.bundling import QUANTIZE_TOOLS, SealedBundle, export_model, own_answer, work_folder
from edgeseg.workflow.compress.calibrating import choose_of_run
from edgeseg.workflow.compress.climbing import PRECISIONS, Climb, Climbed, FineTuned, climb
from edgeseg.workflow.compress.judging import judge_by_agreement, judge_by_labels, judged_on, limits_of
from edgeseg.workflow.compress.ladder_words import kept_lines
from edgeseg.workflow.compress.qat import quantization_aware, tuning_values, why_not
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.learn.reference import model_inputs
from edgeseg.workflow.steps import StepResult, tools
from quantization.ladder import Judge, as_bundle

_MADE: Final = "made.json"


@dataclass(frozen=True)
class Chosen:
    """Which training frames calibrate and which judge, as indices into the train split."""

    calibrate: tuple[int, ...]
    held_back: tuple[int, ...]
    facts: Mapping[str, Any]
    """`calibration` of the manifest's scheme."""
    held_back_facts: Mapping[str, Any]


def quantize(ctx: RunContext, data: RunData, parent: SealedBundle, final: StepResult | None, chosen: Chosen) -> SealedBundle:
    """Give the int8 (or mixed) bundle of an fp32 one; `final` = the checkpoint it is of, from which rung c trains (`None` = not at all)."""
    format_ = parent.bundle.manifest.format
    rescued = _rescue(ctx, data, parent, final, chosen)
    model, ladder = read_made(rescued.output)
    shaped = {"float": parent.bundle.manifest.config_sha256, "calibration": dict(chosen.facts), **_wanted(ctx, parent, final)}
    sealed = _seal(ctx, parent, rescued, model, config_sha256=sha256_json(shaped))
    for line in kept_lines(format_, ladder):
        ctx.ui.say(line)
    return sealed


def choose_frames(ctx: RunContext, data: RunData) -> Chosen:
    """Choose training frames, and hold some back."""
    ids, choice = [sample.id for sample in data.dataset.splits["train"]], choose_of_run(ctx, data)
    origin = {"dataset": data.dataset.name, "dataset_sha256": data.dataset.sha256, "split": "train"}
    calibration, held_back = ({**origin, **_hashed([ids[i] for i in indices])} for indices in (choice.calibrate, choice.held_back))
    return Chosen(choice.calibrate, choice.held_back, {**calibration, **choice.facts}, held_back)


def _hashed(ids: list[str]) -> dict[str, Any]:
    return {"num_frames": len(ids), "ids_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}


def _rescue(ctx: RunContext, data: RunData, parent: SealedBundle, final: StepResult | None, chosen: Chosen) -> StepResult:
    manifest, limits = parent.bundle.manifest, limits_of(ctx.config.goals)
    goals, wanted = limits.facts(), _wanted(ctx, parent, final)
    last = wanted["last"]
    key = {
        "version": 5, "parent": parent.step.sha256, "calibration": dict(chosen.facts), "held_back": dict(chosen.held_back_facts),
        **wanted, "tools": tools(*QUANTIZE_TOOLS[manifest.format]),
    }

    def make(output: Path) -> None:
        frames = model_inputs(data, "train", manifest.contract, list(chosen.calibrate))
        with tempfile.TemporaryDirectory(dir=work_folder(ctx), prefix=".quantize-", suffix=".tmp") as work, atomic_folder(output) as folder:
            request = Climb(
                parent=parent.bundle, frames=frames, judge=_judge(data, parent, chosen, ctx) if last != "off" else _never, last=last,
                limits=limits, work=Path(work),
                on_trial=lambda done, total: ctx.ui.progress(f"int8 {manifest.format}, trials", done, total),
                fine_tune=_tuner(ctx, data, parent, final, Path(work)) if last == "qat" and final is not None else None,
            )
            climbed = climb(request, folder)
            ladder = {
                "judged_on": judged_on(chosen.held_back_facts, chosen.facts), "goals": goals, "last_rung": last,
                "reached": climbed.reached, "rungs": list(climbed.rungs),
            }
            write_made(folder, climbed, {"calibration": dict(chosen.facts), **({"ladder": ladder} if last != "off" else {})})

    return ctx.steps.do(f"rescue-{manifest.format}", kind="quantize", key=key, output=ctx.folder / "quantized" / manifest.format, make=make)


def _wanted(ctx: RunContext, parent: SealedBundle, final: StepResult | None) -> dict[str, Any]:
    """What the ladder is to reach, and how far it may climb for it: all that shapes an int8 model beside its parent and its frames."""
    limits, last = limits_of(ctx.config.goals), ctx.config.quantize.rescue
    if last == "qat" and final is None:
        last = "mixed"
    if last != "off" and (parent.bundle.manifest.contract.task != "semantic" or not limits.asked):  # the best calibrator is enough
        last = "post_training"
    training = tuning_values(ctx.config, final) if last == "qat" and final is not None else {}
    return {"goals": limits.facts(), "last": last, "qat": training}


def _judge(data: RunData, parent: SealedBundle, chosen: Chosen, ctx: RunContext) -> Judge:
    samples, manifest = data.dataset.splits["train"], parent.bundle.manifest
    if manifest.contract.task != "semantic":
        return judge_by_agreement(parent.bundle, model_inputs(data, "train", manifest.contract, list(chosen.held_back)))
    items = (read_sample(samples[index], num_classes=len(manifest.classes)) for index in chosen.held_back)
    return judge_by_labels(parent.bundle, items, limits_of(ctx.config.goals))


def _never(_: object) -> Any:  # noqa: ANN401
    raise AssertionError("rescue is off: nothing is judged")


def _tuner(ctx: RunContext, data: RunData, parent: SealedBundle, final: StepResult, work: Path) -> Callable[[], FineTuned]:
    """Rung c: fine-tune, export, and carry the ranges to the tensors of this format."""
    refused = why_not(final)  # known before anything is climbed
    if refused:
        ctx.ui.say(f"note: {parent.bundle.manifest.format}: fine-tuning for int8 is not possible: {refused}")

    def fine_tune() -> FineTuned:
        from quantization.carry import carry, load_ranges

        if refused:
            raise ConfigError(refused)
        step, manifest = quantization_aware(ctx, data, final), parent.bundle.manifest
        folder = work / "fine-tuned"
        folder.mkdir()
        bundle = as_bundle(parent.bundle, export_model(step.output, manifest.contract, manifest.format, folder))
        carried = carry(load_ranges(step.output), bundle)
        return FineTuned(bundle=bundle, ranges=carried.ranges, facts=carried.facts(), parent_sha256=step.sha256)

    return fine_tune


def write_made(folder: Path, climbed: Climbed, scheme: Mapping[str, Any]) -> None:
    """Write what was made beside its files."""
    model = climbed.model
    write_json(folder / _MADE, {
        "files": list(model.files), "entry": model.entry, "format": model.format, "precision": model.precision,
        "scheme": {**model.scheme, **scheme}, "tools": dict(model.tools), "checkpoint_sha256": climbed.parent_sha256,
    })


def read_made(folder: Path) -> tuple[ModelFiles, dict[str, Any]]:
    """Read what `write_made` wrote, and the ladder (empty = rescue was off)."""
    made = read_json(folder / _MADE)
    model = ModelFiles(
        folder=folder, files=tuple(made["files"]), entry=made["entry"], format=made["format"], precision=made["precision"],
        scheme=made["scheme"], tools=made["tools"],
    )
    return model, made["scheme"].get("ladder", {})


def _seal(ctx: RunContext, parent: SealedBundle, rescued: StepResult, model: ModelFiles, *, config_sha256: str) -> SealedBundle:
    manifest = parent.bundle.manifest
    stem = manifest.name.removesuffix("-fp32")
    tuned = read_json(rescued.output / _MADE)["checkpoint_sha256"]
    parents = (Parent(kind="bundle", sha256=manifest.sha256),) + ((Parent(kind="checkpoint", sha256=tuned),) if tuned else ())
    info = BundleInfo(
        name=f"{stem}-{model.precision}", contract=manifest.contract, classes=manifest.classes, palette=manifest.palette,
        reference=manifest.reference, parents=parents, config_sha256=config_sha256,
    )

    def make(output: Path) -> None:
        seal_bundle(output, model, info, golden_frames=parent.bundle.golden_frames(), answer=own_answer)

    bundles = ctx.folder / "bundles"
    key = {
        "version": 4, "parent": parent.step.sha256, "rescued": rescued.sha256, "config": config_sha256,
        "tools": tools(*QUANTIZE_TOOLS[model.format]),
    }
    step = ctx.steps.do(f"quantize-{model.format}", kind="quantize", key=key, output=bundles / info.name, make=make)
    for precision in PRECISIONS:  # of a former climb that ended on another rung
        if precision != model.precision:
            shutil.rmtree(bundles / f"{stem}-{precision}", ignore_errors=True)
    return SealedBundle(step, open_bundle(step.output))
