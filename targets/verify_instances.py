"""Is an instance bundle as accurate as the model that was trained? COCO's AP on labelled frames, and object by object against torch.

AP is of masks pasted to frame size; a class without a labelled object is "not evaluated" (`None`). Answers are compared with torch's at
model size (`edgeseg.core.instance_metrics.match`): an fp32 bundle must give the same objects with the same scores to 0.01; of a bundle
that is not fp32 the scores may differ.

Legend: H/W = rows/columns of the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.config import GoalsSection
from edgeseg.core.errors import DataError
from edgeseg.core.images import Frame, to_model
from edgeseg.core.instance_metrics import SAME_SCORE, ApCounter, InstanceScore, Matches, match
from edgeseg.core.instances import InstanceLabel, Instances, as_instances
from edgeseg.core.manifest import InstanceReference
from edgeseg.core.paste import to_frame_boxes
from targets.judging import Finding, judge_accuracy
from targets.runtimes.base import Session
from targets.verify import check_golden, comparable, golden_limit

LabelledObjects = tuple[str, Frame, InstanceLabel]
"""Name, frame, and its labelled objects at frame size."""

NO_MIOU: Final = "instances: objects overlap and are scored one by one; see ap and ap50"
"""Why there is no mIoU."""


@dataclass(frozen=True, kw_only=True)
class FrameMatch:
    """How one frame compares with torch; `None` where neither found an object, or there is nothing to compare with."""

    name: str
    agreement: float | None


@dataclass(frozen=True, kw_only=True)
class InstanceVerifyResult:
    """What `verify_instances` found. Fractions in 0..1."""

    bundle: str
    bundle_sha256: str
    format: str
    precision: str
    classes: tuple[str, ...]
    num_frames: int
    score: InstanceScore
    reference_ap: float | None
    """AP of the float checkpoint on these frames; `None` where it was not measured on them."""
    ap_drop: float | None
    class_drop: tuple[float | None, ...]
    """Reference AP minus this, class by class; negative = better than the reference."""
    worst_class_drop: float | None
    agreement: float | None
    """Share of objects that are in the bundle's answers and in torch's; `None` without those, or where neither found any."""
    golden_agreement: float
    frames: tuple[FrameMatch, ...]

    @property
    def golden_passed(self) -> bool:
        """The bundle still answers as it did when it was sealed."""
        return self.golden_agreement >= golden_limit("instance")

    def to_json(self) -> dict[str, Any]:
        """Give all of it; the keys of a semantic result are there too, `None` where they say nothing about objects."""
        values = {name: getattr(self, name) for name in (
            "bundle", "bundle_sha256", "format", "precision", "num_frames", "reference_ap", "ap_drop", "worst_class_drop", "agreement",
            "golden_agreement", "golden_passed",
        )}
        absent = [name for name, ap in zip(self.classes[1:], self.score.class_ap[1:], strict=True) if ap is None]
        return {
            **values, "task": "instance", **asdict(self.score), "class_ap": dict(zip(self.classes, self.score.class_ap, strict=True)),
            "class_drop": dict(zip(self.classes, self.class_drop, strict=True)), "not_evaluated": absent,
            "miou": None, "no_miou": NO_MIOU, "reference_miou": None, "miou_drop": None, "pixel_accuracy": None,
            "intervals": None,
            "iou": dict.fromkeys(self.classes), "frames": [asdict(frame) for frame in self.frames],
        }


def verify_instances(
    session: Session, bundle: Bundle, labelled: Iterable[LabelledObjects], *, reference: Iterable[Instances] | None = None,
    dataset_sha256: str | None = None, split: str | None = None, on_frame: Callable[[int], None] = lambda done: None,
) -> InstanceVerifyResult:
    """Answer every labelled frame and compare with labels, reference answers and golden frames. Streams: one frame at a time.

    Args:
        session: the opened bundle.
        bundle: the same, for contract, classes, reference and golden frames.
        labelled: frames and labelled objects at frame size.
        reference: torch's answers at model size in the same order, one a frame.
        dataset_sha256: hash of the data set `labelled` is from; the drop is only given if the manifest's reference is from it too.
        split: likewise.
        on_frame: called with the number of frames done.

    Raises:
        DataError: no frames, no labelled object, or fewer reference answers than frames.
        MissingExtraError: pycocotools is not installed.
    """
    manifest, contract = bundle.manifest, bundle.manifest.contract
    tolerance = SAME_SCORE if manifest.precision == "fp32" else None
    counter, frames, total = ApCounter(len(manifest.classes)), [], Matches(same=0, total=0)
    expected = iter(reference) if reference is not None else None
    for name, frame_HWC, label in labelled:
        frame_hw = (frame_HWC.shape[0], frame_HWC.shape[1])
        placement = contract.place(frame_hw)
        found = as_instances(session.run(to_model(frame_HWC, placement)[0]))
        matches = match(_next(expected, name), found, score_tolerance=tolerance) if expected is not None else Matches(same=0, total=0)
        total += matches
        counter.add(to_frame_boxes(found, placement), label, frame_hw)
        frames.append(FrameMatch(name=name, agreement=matches.share))
        on_frame(len(frames))
    if not frames:
        raise DataError("no labelled frames to verify with; give a data set with images and objects")
    try:
        score = counter.score()
    except ValueError as error:
        raise DataError(f"{len(frames)} frames hold no labelled object (but for crowds); nothing can be evaluated") from error
    before = comparable(manifest.reference, len(frames), dataset_sha256, split)
    assert before is None or isinstance(before, InstanceReference), "the manifest was checked: an instance bundle has such a reference"
    class_drop = tuple(
        was - now if was is not None and now is not None else None
        for was, now in zip(before.class_ap if before else (None,) * len(manifest.classes), score.class_ap, strict=True)
    )
    return InstanceVerifyResult(
        bundle=manifest.name, bundle_sha256=manifest.sha256, format=manifest.format, precision=manifest.precision, classes=manifest.classes,
        num_frames=len(frames), score=score, reference_ap=before.ap if before else None, ap_drop=before.ap - score.ap if before else None,
        class_drop=class_drop, worst_class_drop=max((drop for drop in class_drop if drop is not None), default=None),
        agreement=total.share, golden_agreement=check_golden(bundle, session), frames=tuple(frames),
    )


def judge_instances(result: InstanceVerifyResult, goals: GoalsSection) -> tuple[Finding, ...]:
    """Judge the accuracy goals that were set, and always the golden frames; see `judge_accuracy`."""
    return judge_accuracy(
        precision=result.precision, golden_agreement=result.golden_agreement, agreement=result.agreement, miou=None, miou_drop=None,
        worst_class_drop=result.worst_class_drop, goals=goals, task="instance", ap=result.score.ap, ap50=result.score.ap50,
        ap_drop=result.ap_drop,
    )


def _next(expected: Iterator[Instances], name: str) -> Instances:
    try:
        return next(expected)
    except StopIteration:
        raise DataError(f"{name}: no reference answer for it; give one a frame, in the same order") from None
