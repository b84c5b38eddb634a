"""How accurate one bundle is on labelled frames: class maps by mIoU, objects by AP; in lines for a person and facts for a program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle
from edgeseg.core.config import GoalsSection
from edgeseg.core.images import ClassMap, Frame
from edgeseg.core.instances import InstanceLabel
from edgeseg.core.stats import Interval
from edgeseg.workflow.ui import Ui
from targets.judging import Finding, judge
from targets.runtimes.base import Session
from targets.verify import VerifyResult, verify
from targets.verify_instances import NO_MIOU, InstanceVerifyResult, judge_instances, verify_instances

if TYPE_CHECKING:
    from edgeseg.data.dataset import Dataset, Sample


@dataclass(frozen=True)
class Labelled:
    """What to measure on."""

    dataset: Dataset
    samples: tuple[Sample, ...]
    split: str
    float_NCC: NDArray[np.int64] | None = None
    """The float network's confusion matrices of the frames the bundle's reference speaks of, where they are at hand."""


@dataclass(frozen=True)
class Accuracy:
    """What was found."""

    lines: tuple[str, ...]
    facts: dict[str, Any]
    findings: tuple[Finding, ...]


def measure_classes(bundle: Bundle, session: Session, on: Labelled, goals: GoalsSection, runtime: str, ui: Ui) -> Accuracy:
    """Verify a semantic bundle; see `targets.verify.verify` for what is raised."""
    from edgeseg.data.store import read_sample

    def labelled() -> Iterator[tuple[str, Frame, ClassMap]]:
        for sample in on.samples:
            frame, label = read_sample(sample, num_classes=len(bundle.manifest.classes))
            yield sample.id, frame, label

    result = verify(
        session,
        bundle,
        labelled(),
        reference_NCC=on.float_NCC,
        dataset_sha256=on.dataset.sha256,
        split=on.split,
        on_frame=lambda done: ui.progress("verifying", done, len(on.samples)),
    )
    return Accuracy(tuple(_class_lines(result, on, runtime)), result.to_json(), judge(result, goals))


def measure_objects(bundle: Bundle, session: Session, on: Labelled, goals: GoalsSection, runtime: str, ui: Ui) -> Accuracy:
    """Verify an instance bundle; see `targets.verify_instances.verify_instances` for what is raised."""
    from edgeseg.data.instance_store import read_instances

    def labelled() -> Iterator[tuple[str, Frame, InstanceLabel]]:
        for sample in on.samples:
            frame, label = read_instances(sample, num_classes=len(bundle.manifest.classes))
            yield sample.id, frame, label

    result = verify_instances(
        session,
        bundle,
        labelled(),
        dataset_sha256=on.dataset.sha256,
        split=on.split,
        on_frame=lambda done: ui.progress("verifying", done, len(on.samples)),
    )
    return Accuracy(tuple(_object_lines(result, on, runtime)), result.to_json(), judge_instances(result, goals))


def _class_lines(result: VerifyResult, on: Labelled, runtime: str) -> list[str]:
    where = f"{result.bundle} on {on.split} of {on.dataset.name} ({result.num_frames} frames), runtime {runtime}"
    lines = [f"{where}: mIoU {result.miou:.4f}{_between(result.intervals.miou)}"]
    lines.append(f"Dice {result.mean_dice:.4f}, boundary F1 {result.mean_boundary_f1:.4f}, pixel accuracy {result.pixel_accuracy:.4f}")
    lines += _drop_lines(result.miou_drop, on.dataset, result.intervals.miou_drop)
    for name, iou, drop, interval in zip(result.classes, result.iou, result.class_drop, result.intervals.class_drop, strict=True):
        lines.append(_class_line(name, iou, drop, "pixel", interval))
    return lines


def _object_lines(result: InstanceVerifyResult, on: Labelled, runtime: str) -> list[str]:
    score = result.score
    lines = [
        f"{result.bundle} on {on.split} of {on.dataset.name} ({result.num_frames} frames, {score.num_objects} objects), runtime {runtime}: "
        f"AP {score.ap:.4f}, AP50 {score.ap50:.4f}",
        f"boxes: AP {score.box_ap:.4f}, AP50 {score.box_ap50:.4f}",
        f"no mIoU: {NO_MIOU}",
        *_drop_lines(result.ap_drop, on.dataset, None),
    ]
    values = list(zip(result.classes, score.class_ap, result.class_drop, strict=True))[1:]  # the first is background
    return [*lines, *(_class_line(name, ap, drop, "object") for name, ap, drop in values)]


def _drop_lines(drop: float | None, dataset: Dataset, interval: Interval | None) -> list[str]:
    if drop is not None:
        how = ", without an interval" if interval is None else _between(interval)
        return [f"drop against the float checkpoint on the same frames: {drop:+.4f}{how}"]
    return ["no drop given: the float checkpoint was measured on other frames", f"these frames: {dataset.split_rule}"]


def _class_line(name: str, value: float | None, drop: float | None, unit: str, interval: Interval | None = None) -> str:
    if value is None:
        return f"  {name}: not evaluated (no {unit} of it in the split)"
    between = "" if interval is None or interval.low is None else f", {interval.low:+.4f} to {interval.high:+.4f}"
    return f"  {name}: {value:.4f}" + ("" if drop is None else f" (drop {drop:+.4f}{between})")


def _between(interval: Interval) -> str:
    return "" if interval.low is None else f" (95 %: {interval.low:.4f} to {interval.high:.4f})"
