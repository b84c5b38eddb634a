"""Is a bundle as accurate as the model that was trained? Judged on labelled frames, against torch's own answers, and on golden frames.

This file holds what semantic models need and what both tasks share; `targets.verify_instances` has the rest.

A class absent from the labels is "not evaluated" (`None`), never 0 or 1, and takes no part in a drop. A drop is only given
where the reference was measured on the same frames. mIoU and its drops are judged by the bad side of their 95 % interval
(`edgeseg.core.bootstrap`); `targets.judging` has the judges.

Legend: N = frames, C = classes, H/W = rows/columns of the frame, h/w = rows/columns at model size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bootstrap import Intervals, intervals, same_labels
from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BundleError, DataError
from edgeseg.core.images import ClassMap, Frame, to_frame, to_model
from edgeseg.core.instance_metrics import Matches, match
from edgeseg.core.instances import as_class_map, as_instances
from edgeseg.core.manifest import InstanceReference, Reference
from edgeseg.core.metrics import Confusion, agreement, boundary_f1, confusion_matrix, mean_boundary_f1, mean_of, score
from targets.runtimes.base import Session

GOLDEN_AGREEMENT: Final = 0.999
"""Least share of golden pixels that must come out as when the bundle was sealed. The same runtime on the same machine gives 1; float
arithmetic of another processor may move single pixels that were near a tie."""
GOLDEN_AGREEMENT_INSTANCES: Final = 0.95
"""Least share of golden objects likewise. There are some dozens of them, and a near tie (which of two boxes is kept) moves one."""

LabelledFrame = tuple[str, Frame, ClassMap]
"""Name, frame and label, both at frame size."""


@dataclass(frozen=True, kw_only=True)
class FrameScore:
    """How one frame came out."""

    name: str
    miou: float | None
    """Mean over the classes in this frame's label; `None` where nothing in it is labelled."""
    agreement: float | None
    """Share of its pixels that equal the reference answers; `None` without them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VerifyResult:
    """What `verify` found. Fractions in 0..1."""

    bundle: str
    bundle_sha256: str
    format: str
    precision: str
    classes: tuple[str, ...]
    num_frames: int
    miou: float
    iou: tuple[float | None, ...]
    pixel_accuracy: float
    dice: tuple[float | None, ...]
    mean_dice: float
    boundary_f1: tuple[float | None, ...]
    """F1 of outlines, class by class (`edgeseg.core.metrics.boundary_f1`)."""
    mean_boundary_f1: float
    reference_miou: float | None
    """mIoU of the float checkpoint on these frames; `None` where it was not measured on them."""
    miou_drop: float | None
    class_drop: tuple[float | None, ...]
    """Reference minus this, class by class; negative = better than the reference."""
    worst_class_drop: float | None
    agreement: float | None
    """Share of pixels at model size that equal the reference answers."""
    golden_agreement: float
    frames: tuple[FrameScore, ...]
    confusions_NCC: NDArray[np.int64]
    """One confusion matrix a frame, rows = label; at frame size."""
    intervals: Intervals
    """Of mIoU and IoU; of the drops too where the reference's confusion matrices of the same frames were given."""

    @property
    def golden_passed(self) -> bool:
        """The bundle still answers as it did when it was sealed."""
        return self.golden_agreement >= GOLDEN_AGREEMENT

    @property
    def not_evaluated(self) -> tuple[str, ...]:
        """Classes that do not occur in the labels."""
        return tuple(name for name, value in zip(self.classes, self.iou, strict=True) if value is None)

    def to_json(self) -> dict[str, Any]:
        """Give all but the confusion matrices of single frames; their sum is there."""
        values = {name: getattr(self, name) for name in (
            "bundle", "bundle_sha256", "format", "precision", "num_frames", "miou", "mean_dice", "mean_boundary_f1", "pixel_accuracy",
            "reference_miou", "miou_drop", "worst_class_drop", "agreement", "golden_agreement", "golden_passed",
        )}
        return {
            **values, "iou": dict(zip(self.classes, self.iou, strict=True)),
            "dice": dict(zip(self.classes, self.dice, strict=True)),
            "boundary_f1": dict(zip(self.classes, self.boundary_f1, strict=True)),
            "class_drop": dict(zip(self.classes, self.class_drop, strict=True)), "intervals": self.intervals.to_json(self.classes),
            "not_evaluated": list(self.not_evaluated), "confusion": self.confusions_NCC.sum(axis=0).tolist(),
            "frames": [{"name": f.name, "miou": f.miou, "agreement": f.agreement} for f in self.frames],
        }


def verify(
    session: Session, bundle: Bundle, labelled: Iterable[LabelledFrame], *,
    reference_maps: Iterable[ClassMap | Sequence[ClassMap]] | None = None, reference_NCC: NDArray[np.int64] | None = None,
    dataset_sha256: str | None = None, split: str | None = None, on_frame: Callable[[int], None] = lambda done: None,
) -> VerifyResult:
    """Answer every labelled frame and compare with label, reference answers and golden frames. Streams: one frame at a time.

    Args:
        session: the opened bundle.
        bundle: the same, for contract, classes, reference and golden frames.
        labelled: frames and labels at frame size.
        reference_maps: torch's class maps at model size in the same order, one a frame or (for tiles) a sequence a frame.
        reference_NCC: the float network's confusion matrices of the same frames in the same order; without them drops have no interval.
        dataset_sha256: hash of the data set `labelled` is from; the drop is only given if the manifest's reference is from it too.
        split: likewise.
        on_frame: called with the number of frames done.

    Raises:
        DataError: no frames, no labelled pixel, fewer reference answers than frames, or a `reference_NCC` of other labels.
        BundleError: the model answered a class that the manifest does not have.
    """
    contract, num_classes = bundle.manifest.contract, len(bundle.manifest.classes)
    confusions: list[Confusion] = []
    scores: list[FrameScore] = []
    matched: list[float] = []
    outlines: list[tuple[float | None, ...]] = []
    expected = iter(reference_maps) if reference_maps is not None else None
    for name, frame_HWC, label_HW in labelled:
        placement = contract.place((frame_HWC.shape[0], frame_HWC.shape[1]))
        answers = [as_class_map(session.run(model_frame)) for model_frame in to_model(frame_HWC, placement)]
        shares = [agreement(*pair) for pair in zip(answers, _maps(expected, name, answers), strict=True)] if expected is not None else []
        matched.extend(shares)
        answer_HW = to_frame(answers, placement)
        confusion = _confusion(answer_HW, label_HW, num_classes, bundle, name)
        confusions.append(confusion)
        outlines.append(boundary_f1(answer_HW, label_HW, num_classes=num_classes))
        scores.append(FrameScore(
            name=name, miou=score(confusion).miou if confusion.any() else None, agreement=float(np.mean(shares)) if shares else None,
        ))
        on_frame(len(scores))
    if not scores:
        raise DataError("no labelled frames to verify with; give a data set with images and masks")
    confusions_NCC = np.stack(confusions)
    try:
        total = score(confusions_NCC.sum(axis=0))
    except ValueError as error:
        raise DataError(f"{len(scores)} frames hold no labelled pixel (all 255 = ignore); nothing can be evaluated") from error
    class_boundary_f1 = mean_boundary_f1(outlines)
    reference = comparable(bundle.manifest.reference, len(scores), dataset_sha256, split)
    assert not isinstance(reference, InstanceReference), "the manifest was checked: a semantic bundle has a semantic reference"
    class_drop = tuple(
        before - after if before is not None and after is not None else None
        for before, after in zip(reference.iou if reference else (None,) * num_classes, total.iou, strict=True)
    )
    before_NCC = reference_NCC if reference else None
    if before_NCC is not None and not same_labels(before_NCC, confusions_NCC):
        raise DataError("the float network was measured on other labels than these; measure it again: edgeseg run")
    return VerifyResult(
        bundle=bundle.manifest.name, bundle_sha256=bundle.manifest.sha256, format=bundle.manifest.format,
        precision=bundle.manifest.precision, classes=bundle.manifest.classes, num_frames=len(scores), miou=total.miou, iou=total.iou,
        pixel_accuracy=total.pixel_accuracy, dice=total.dice, mean_dice=total.mean_dice, boundary_f1=class_boundary_f1,
        mean_boundary_f1=mean_of(class_boundary_f1), reference_miou=reference.miou if reference else None,
        miou_drop=reference.miou - total.miou if reference else None, class_drop=class_drop,
        worst_class_drop=max((drop for drop in class_drop if drop is not None), default=None),
        agreement=float(np.mean(matched)) if matched else None, golden_agreement=check_golden(bundle, session),
        frames=tuple(scores), confusions_NCC=confusions_NCC, intervals=intervals(confusions_NCC, before_NCC),
    )


def golden_limit(task: str) -> float:
    """Share of golden pixels, or golden objects, at which a bundle passes."""
    return GOLDEN_AGREEMENT_INSTANCES if task == "instance" else GOLDEN_AGREEMENT


def check_golden(bundle: Bundle, session: Session) -> float:
    """Share of pixels (instances: of objects) of the golden frames that come out as when the bundle was sealed; see `golden_limit`.

    Raises:
        BundleError: the bundle has no golden frames.
    """
    pairs = bundle.golden_pairs()
    if not pairs:
        raise BundleError(f"{bundle.folder} holds no golden frames; export the bundle again")
    if bundle.manifest.contract.task == "instance":
        total = sum((match(as_instances(sealed), as_instances(session.run(frame))) for frame, sealed in pairs), Matches(same=0, total=0))
        return 1.0 if total.share is None else total.share  # no object then, none now
    return float(np.mean([agreement(as_class_map(session.run(frame)), as_class_map(sealed)) for frame, sealed in pairs]))


def _maps(expected: Iterator[ClassMap | Sequence[ClassMap]], name: str, answers: list[ClassMap]) -> list[ClassMap]:
    """Reference answers of the next frame, one for each of `answers`."""
    try:
        maps = next(expected)
    except StopIteration:
        raise DataError(f"{name}: no reference answer for it; give one a frame, in the same order") from None
    listed = list(maps) if not isinstance(maps, np.ndarray) or maps.ndim == 3 else [maps]
    if [m.shape for m in listed] != [m.shape for m in answers]:
        raise DataError(
            f"{name}: reference answers of {[m.shape for m in listed]} for {[m.shape for m in answers]}; make them with the same contract"
        )
    return listed


def _confusion(answer_HW: ClassMap, label_HW: ClassMap, num_classes: int, bundle: Bundle, name: str) -> Confusion:
    highest = int(answer_HW.max(initial=0))
    if highest >= num_classes:
        raise BundleError(
            f"{bundle.folder.name} answered class {highest} on {name}; the manifest has {num_classes} classes; export it again"
        )
    try:
        return confusion_matrix(answer_HW, label_HW, num_classes=num_classes)
    except ValueError as error:
        raise DataError(f"{name}: {error}; type: edgeseg data check DIR") from error


def comparable(
    reference: Reference | InstanceReference | None, num_frames: int, dataset_sha256: str | None, split: str | None
) -> Reference | InstanceReference | None:
    """The reference, if it speaks of these very frames."""
    if reference is None or reference.num_frames != num_frames:
        return None
    if dataset_sha256 is not None and dataset_sha256 != reference.dataset_sha256:
        return None
    return None if split is not None and split != reference.split else reference
