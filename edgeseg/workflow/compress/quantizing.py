"""`edgeseg quantize BUNDLE`: int8 of one fp32 bundle, wherever it came from, with its accuracy before and after.

It climbs the rungs of the rescue ladder that need no training: calibrators, judged by labels where there are any and else by the answers of
the float bundle, and with labels float layers as well (`edgeseg.workflow.compress.climbing`).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, check_target, open_bundle, seal_bundle
from edgeseg.core.config import GoalsSection, load_config
from edgeseg.core.errors import ConfigError, require_path
from edgeseg.core.images import to_frame, to_model
from edgeseg.core.instances import as_class_map
from edgeseg.core.manifest import Parent
from edgeseg.core.metrics import Confusion, SegmentationScore, agreement, confusion_matrix
from edgeseg.workflow.bundle.pictures import Pictures, TrainingFrames, accuracy, at_model_size, open_pictures
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.compress.climbing import PRECISIONS, RUNGS, Climb, climb
from edgeseg.workflow.compress.judging import Limits, judge_by_agreement, judge_by_labels, judged_on, limits_of
from edgeseg.workflow.compress.ladder_words import kept_lines
from edgeseg.workflow.ui import Ui
from targets.boards import plan
from targets.runtimes import open_session

_MIOU_DROP: Final = 0.01
"""What int8 may lose where no edgeseg.toml says so."""


@dataclass(frozen=True)
class _Change:
    """What quantization did on the evaluation frames."""

    num_frames: int
    agreement: float
    """Share of pixels at model size that stayed."""
    before: SegmentationScore | None
    after: SegmentationScore | None
    """`None` without labels."""


def quantize_bundle(folder: Path, *, data: Path | None, out: Path | None, num_frames: int, force: bool, ui: Ui) -> Outcome:
    """Calibrate on the training frames of `data`, write the bundle to `out`, compare it with the float one.

    It goes to BUNDLE-int8, or BUNDLE-mixed where layers stayed float, if there is no `out`. `[quantize] rescue` and `[goals]` are those of
    the edgeseg.toml in `data`, but that nothing is trained here.

    Raises:
        ConfigError: no data, `out` (without it, either of the two) exists, or the bundle is not fp32.
        BundleError, DataError, InputMissingError: the bundle or the data is not as it should be.
    """
    from edgeseg.workflow.bundle.bundling import own_answer
    from quantization import QUANTIZERS

    parent = open_bundle(require_path(folder, what="bundle"))
    manifest = parent.manifest
    named = folder if folder.name.strip(".") else folder.resolve()
    stem = named.name.removesuffix("-fp32")
    targets = {precision: out or named.with_name(f"{stem}-{precision}") for precision in PRECISIONS}
    sealed_at = {precision: check_target(target, folder, force=force) for precision, target in targets.items()}
    if manifest.contract.task != "semantic":
        raise ConfigError(f"{folder} finds objects one by one; its int8 is made by its run, which measures them: edgeseg quantize CONFIG")
    if manifest.format not in QUANTIZERS:
        raise ConfigError(f"{folder} is a bundle of format {manifest.format}; int8 is made of {', '.join(QUANTIZERS)}")
    if manifest.precision != "fp32":
        raise ConfigError(f"{folder} is {manifest.precision} already; only an fp32 bundle can be quantized")
    pictures = open_pictures(data, manifest.classes)
    for note in pictures.notes:
        ui.say(f"note: {note}")
    training = pictures.for_int8(manifest.contract, num_frames, progress=lambda done, total: ui.progress("looking at frames", done, total))
    for note in training.notes:
        ui.say(f"calibration: {note}")
    info = BundleInfo(
        name=manifest.name.removesuffix("-fp32") + "-int8", contract=manifest.contract, classes=manifest.classes, palette=manifest.palette,
        reference=manifest.reference, parents=(Parent(kind="bundle", sha256=manifest.sha256),), config_sha256=manifest.config_sha256,
    )
    ui.say(f"calibrating {manifest.format} int8 on {len(training.frames)} frames of {pictures.name}")
    config = load_config(data) if data is not None and data.is_file() else None
    goals, last = (GoalsSection(), "mixed") if config is None else (config.goals, config.quantize.rescue)
    with tempfile.TemporaryDirectory(prefix="edgeseg-quantize-") as work:
        model, ladder = _climb(parent, training, goals, last, Path(work), ui)
        scheme = {**manifest.scheme, **model.scheme, "calibration": training.calibration, **({"ladder": ladder} if ladder else {})}
        golden = [frame for frame, _ in parent.golden_pairs()]
        info = replace(info, name=info.name.removesuffix("-int8") + f"-{model.precision}")
        made = seal_bundle(sealed_at[model.precision], replace(model, scheme=scheme), info, golden_frames=golden, answer=own_answer)
    return _outcome(parent, made, _compare(parent, made, pictures, ui), pictures, targets[model.precision])


def _climb(
    parent: Bundle, training: TrainingFrames, goals: GoalsSection, last: str, work: Path, ui: Ui
) -> tuple[ModelFiles, dict[str, Any]]:
    """Climb as far as the data and the rung `last` allow; the model, and the ladder for the manifest (empty = `off`)."""
    limits, manifest = limits_of(goals), parent.manifest
    if not limits.asked:
        limits = Limits(miou_drop=_MIOU_DROP)
    labelled = [(frame, label) for _, frame, label in training.items if label is not None]
    if labelled:
        judge = judge_by_labels(parent, labelled, limits)
    else:
        frames = [part for _, frame, _ in training.items for part in at_model_size(frame, manifest.contract)]
        judge = judge_by_agreement(parent, frames)
    (work / "trials").mkdir()
    (work / "kept").mkdir()
    request = Climb(
        parent=parent, frames=training.frames, judge=judge, last=min(last, "mixed" if labelled else "post_training", key=RUNGS.index),
        work=work / "trials",
        limits=limits, on_trial=lambda done, total: ui.progress("trials", done, total),
    )
    climbed = climb(request, work / "kept")
    if not climbed.rungs:
        return climbed.model, {}
    ladder = {
        "judged_on": judged_on(training.held_back, training.calibration), "goals": limits.facts(), "last_rung": request.last,
        "reached": climbed.reached, "of_one_bundle": True, "rungs": list(climbed.rungs),
    }
    for line in kept_lines(manifest.format, ladder):
        ui.say(line)
    return climbed.model, ladder


def _compare(parent: Bundle, made: Bundle, pictures: Pictures, ui: Ui) -> _Change:
    """Both bundles on the evaluation frames, in this host's runtime."""
    manifest = parent.manifest
    contract, num_classes = manifest.contract, len(manifest.classes)
    sessions = []
    for bundle in (parent, made):
        how = plan("host", bundle.manifest.format, bundle.manifest.precision)
        sessions.append(open_session(bundle, how.runtime, how.options))
    totals: list[Confusion | None] = [None, None]
    shares = []
    count, items = pictures.evaluation()
    for done, (_, frame_HWC, label_HW) in enumerate(items, start=1):
        placement = contract.place((frame_HWC.shape[0], frame_HWC.shape[1]))
        parts = to_model(frame_HWC, placement)
        answers = [[as_class_map(session.run(part)) for part in parts] for session in sessions]
        shares += [agreement(*pair) for pair in zip(*answers, strict=True)]
        if label_HW is not None:
            for which, maps in enumerate(answers):
                one, total = confusion_matrix(to_frame(maps, placement), label_HW, num_classes=num_classes), totals[which]
                totals[which] = one if total is None else total + one
        ui.progress("comparing", done, count)
    for session in sessions:
        session.close()
    before, after = (None if total is None else accuracy(total, pictures) for total in totals)
    return _Change(count, float(np.mean(shares)), before, after)


def _outcome(parent: Bundle, made: Bundle, change: _Change, pictures: Pictures, target: Path) -> Outcome:
    manifest = made.manifest
    size = f"{parent.size_bytes / 1e6:.2f} -> {made.size_bytes / 1e6:.2f} MB"
    lines = [
        f"{target}: {manifest.format} {manifest.precision}, {size}",
        f"{change.agreement:.4%} of the pixels of {change.num_frames} frames of {pictures.name} as in float",
    ]
    facts: dict[str, Any] = {
        "bundle": str(target), "bundle_sha256": manifest.sha256, "format": manifest.format, "size_bytes": made.size_bytes,
        "size_bytes_float": parent.size_bytes, "agreement_with_float": change.agreement, "num_frames": change.num_frames,
        "precision": manifest.precision, "calibration": manifest.scheme["calibration"], "ladder": manifest.scheme.get("ladder"),
        "miou_float": None, "miou": None, "iou_float": None, "iou": None,
    }
    if change.before is not None and change.after is not None:
        before, after = change.before, change.after
        facts |= {"miou_float": before.miou, "miou": after.miou, "iou_float": list(before.iou), "iou": list(after.iou)}
        change_shown = f"{manifest.precision} {after.miou:.4f} ({after.miou - before.miou:+.4f})"
        lines.append(f"mIoU on {pictures.eval_split}: float {before.miou:.4f}, {change_shown}")
        for name, was, is_now in zip(manifest.classes, before.iou, after.iou, strict=True):
            shown = "not evaluated (no pixel of it in the split)" if was is None or is_now is None else f"{was:.4f} -> {is_now:.4f}"
            lines.append(f"  {name}: {shown}")
    return Outcome(tuple(lines), facts)
