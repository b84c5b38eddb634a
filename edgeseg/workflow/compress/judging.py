"""What an int8 model's answers are worth, on training frames that calibration does not see: the judges of the rescue ladder.

Never on val, which chose the checkpoint, nor on test, which must stay unseen until the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bootstrap import intervals
from edgeseg.core.bundle import Bundle
from edgeseg.core.config import GoalsSection
from edgeseg.core.errors import DataError
from edgeseg.core.images import ClassMap, Frame, to_frame, to_model
from edgeseg.core.instance_metrics import match
from edgeseg.core.instances import Answer, as_class_map, as_instances
from edgeseg.core.metrics import agreement, confusion_matrix, score
from edgeseg.workflow.bundle.pictures import spread
from quantization.ladder import Judge, Judged
from targets.boards import plan
from targets.runtimes import open_session

MOST_HELD_BACK: Final = 48
"""Frames held back, at most: each trial answers them all."""
_ENOUGH: Final = 8
"""With fewer frames outside the calibration, frames are taken out of it."""
_HELD_BACK_EVERY: Final = 4
_FEWEST: Final = 8
"""With fewer calibration frames, the same ones serve for both."""
_FEWEST_OF_A_CLASS: Final = 4
"""The worst class is one that occurs in so many of the frames held back: the IoU of a class in one frame is luck."""
VERDICTS: Final = ("reached", "not decided", "missed")
"""Of a trial, the best first. Too few frames make an interval wide: that is no miss, and no rung of the ladder narrows it."""
_MIOU_DROP: Final = 0.01
"""One point, where no limit is asked for."""
_SMALLEST: Final = 1e-4
_SAME: Final = 0.02
"""Share of pixels that may change where there are no labels."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What int8 may lose; `None` = that was not asked for."""

    miou_drop: float | None = None
    class_drop: float | None = None

    @property
    def asked(self) -> bool:
        """Whether any was asked for."""
        return self.miou_drop is not None or self.class_drop is not None

    def cost(self, miou_drop: float, worst_drop: float | None) -> float:
        """At most 1 where all that was asked for is kept; by how much the worst of it is missed or kept. Not asked: a point of mIoU."""
        limit = self.miou_drop if self.asked else _MIOU_DROP
        costs = [] if limit is None else [miou_drop / max(limit, _SMALLEST)]
        if self.class_drop is not None and worst_drop is not None:
            costs.append(worst_drop / max(self.class_drop, _SMALLEST))
        return max(costs, default=0.0)

    def verdict(self, judged: Judged) -> str:
        """One of `VERDICTS`: `reached` at the bad end of the interval too, `not decided` = as measured only, else `missed`."""
        if judged.reached:
            return "reached"
        if judged.miou_drop is None:  # without labels there is no interval
            return "missed"
        return "not decided" if self.cost(judged.miou_drop, judged.worst_drop) <= 1 else "missed"

    def facts(self) -> dict[str, float | None]:
        """For the manifest and for step keys."""
        return {"miou_drop": self.miou_drop, "class_drop": self.class_drop}


def limits_of(goals: GoalsSection) -> Limits:
    """Limits of a run's goals."""
    return Limits(miou_drop=goals.miou_drop, class_drop=goals.class_drop)


def hold_back(ids: Sequence[str], chosen: Sequence[int]) -> tuple[list[int], list[int]]:
    """Of the training frames `ids`, of which `chosen` were to calibrate: (those that do, those held back to judge by).

    Frames outside the calibration are held back, spread evenly; where there are too few of them every fourth is taken out of it, and with
    fewer than 8 all of them are both.
    """
    taken = set(chosen)
    others = [index for index in sorted(range(len(ids)), key=lambda index: ids[index]) if index not in taken]
    if len(others) >= _ENOUGH:
        return list(chosen), [others[place] for place in spread(len(others), MOST_HELD_BACK)]
    if len(chosen) < _FEWEST:
        return list(chosen), list(chosen)
    held = list(chosen)[::_HELD_BACK_EVERY][:MOST_HELD_BACK]
    return [index for index in chosen if index not in set(held)], held


def judged_on(held_back: Mapping[str, Any], calibration: Mapping[str, Any]) -> dict[str, Any]:
    """`judged_on` of a ladder, from the records of both sets of frames: says so where they are the same ones (`hold_back`)."""
    same = held_back["ids_sha256"] == calibration["ids_sha256"]
    return {**held_back, **({"also_calibrates": True} if same else {})}


def judge_by_labels(parent: Bundle, items: Iterable[tuple[Frame, ClassMap]], limits: Limits) -> Judge:
    """A judge of class maps at frame size: mIoU and the worst class against those of the fp32 bundle `parent` on the same frames.

    The drop of mIoU is taken at the bad end of its 95 % interval, as `verify` does; where only that end is beyond the limit, nothing is
    decided (`Limits.verdict`). That of a class is taken as measured: on a few dozen frames the interval of a rare class says nothing.

    Raises:
        DataError: no pixel of the frames is labelled.
    """
    contract, classes = parent.manifest.contract, parent.manifest.classes
    prepared = [
        (label, placement, to_model(frame, placement)) for frame, label in items
        for placement in [contract.place((frame.shape[0], frame.shape[1]))]
    ]
    if not any((label != 255).any() for label, _, _ in prepared):
        raise DataError("no pixel of the training frames held back is labelled, so nothing can be judged; type: edgeseg data check DIR")

    def answer(bundle: Bundle) -> tuple[list[ClassMap], NDArray[np.int64]]:
        inputs = [part for _, _, parts in prepared for part in parts]
        answers = iter([as_class_map(found) for found in _answers(bundle, inputs)])
        maps = [to_frame([next(answers) for _ in parts], placement) for _, placement, parts in prepared]
        pairs = zip(maps, prepared, strict=True)
        return maps, np.stack([confusion_matrix(found, label, num_classes=len(classes)) for found, (label, _, _) in pairs])

    maps_before, before_NCC = answer(parent)
    often = (before_NCC.sum(axis=2) > 0).sum(axis=0) >= min(_FEWEST_OF_A_CLASS, len(prepared))
    was = score(before_NCC.sum(axis=0))

    def judge(bundle: Bundle) -> Judged:
        maps, after_NCC = answer(bundle)
        now = score(after_NCC.sum(axis=0))
        drops = {
            name: a - b for name, a, b, counts in zip(classes, was.iou, now.iou, often, strict=True)
            if a is not None and b is not None and counts
        }
        worst = max(drops, key=lambda name: drops[name]) if drops else ""
        drop, worst_drop = intervals(after_NCC, before_NCC).miou_drop, drops.get(worst)
        assert drop is not None, "both were counted on the same frames"
        high = drop.value if drop.high is None else drop.high
        return Judged(
            cost=limits.cost(high, worst_drop), miou=now.miou, miou_drop=drop.value, miou_drop_high=high, worst_class=worst,
            worst_drop=worst_drop, agreement=float(np.mean([agreement(a, b) for a, b in zip(maps, maps_before, strict=True)])),
        )

    return judge


def judge_by_agreement(parent: Bundle, frames: Sequence[Frame]) -> Judge:
    """A judge without labels: the share of pixels (objects) as the fp32 bundle `parent` answers, on frames at model size."""
    before = _answers(parent, frames)

    def judge(bundle: Bundle) -> Judged:
        shares = [_alike(a, b, parent.manifest.contract.task) for a, b in zip(_answers(bundle, frames), before, strict=True)]
        share = float(np.mean(shares))
        return Judged(cost=(1 - share) / _SAME, agreement=share)

    return judge


def _answers(bundle: Bundle, frames: Iterable[Frame]) -> list[Answer]:
    """What a bundle answers in this host's runtime."""
    how = plan("host", bundle.manifest.format, bundle.manifest.precision)
    session = open_session(bundle, how.runtime, how.options)
    try:
        return [_copied(session.run(frame)) for frame in frames]
    finally:
        session.close()


def _copied(answer: Answer) -> Answer:
    """An answer that outlives its session."""
    return answer.copy() if isinstance(answer, np.ndarray) else answer


def _alike(first: Answer, second: Answer, task: str) -> float:
    if task == "semantic":
        return agreement(as_class_map(first), as_class_map(second))
    share = match(as_instances(first), as_instances(second), score_tolerance=None).share
    return 1.0 if share is None else share
