"""Which training frames calibrate and which are held back to judge by: looked at, and none that val or test show as well.

A frame of the train split that has the pixels of a val or test frame, or looks nearly the same (`edgeseg.data.suspicions`), is refused:
int8 would be fitted to what it is measured on. So it neither calibrates nor judges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.errors import DataError
from edgeseg.core.files import read_json, write_json
from edgeseg.core.images import IGNORE_INDEX, ClassMap, Frame, read_frame
from edgeseg.core.instances import InstanceLabel
from edgeseg.data.instance_store import read_instances
from edgeseg.data.store import read_sample
from edgeseg.data.suspicions import look_alikes, thumbnail
from edgeseg.workflow.bundle.pictures import spread
from edgeseg.workflow.compress.judging import hold_back
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.steps import tools
from quantization.calibration import Look, choose_calibration, choose_covering, covered, look_at

ENOUGH: Final = 16
"""Fewer calibration frames than these are warned of. It is a rule of thumb: docs/calibration.md has a network that does with one."""
MOST_LOOKED_AT: Final = 2048
"""Training frames that are looked at, spread evenly over larger splits."""

Read = Callable[[int], tuple[Frame, Sequence[int]]]
"""Index of a training frame -> the frame and the classes its label holds (none without a label)."""


@dataclass(frozen=True, kw_only=True)
class CalibrationChoice:
    """Indices into the training frames, what they cover, and what to tell the user."""

    calibrate: tuple[int, ...]
    held_back: tuple[int, ...]
    facts: dict[str, Any]
    """Way, what is covered, how many were refused: for the manifest."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Give all as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> CalibrationChoice:
        """Read back what `to_json` gave."""
        return cls(calibrate=tuple(raw["calibrate"]), held_back=tuple(raw["held_back"]), facts=raw["facts"], notes=tuple(raw["notes"]))


def choose(
    ids: Sequence[str], read: Read, others: Iterable[Frame], *, count: int, way: str, seed: int, classes: Sequence[str],
    num_others: int = 0, judged: bool = True, progress: Callable[[int, int], None] = lambda done, total: None,
) -> CalibrationChoice:
    """Choose `count` of the training frames `ids` by `way` (`cover` or `spread`), and hold others back where `judged`.

    `others` = the frames of val and test, `num_others` of them: progress is of the frames of both. Frames held back are chosen to
    cover the classes too, from those that do not calibrate.

    Raises:
        DataError: no training frames, or all of them are like one of `others`.
    """
    order = sorted(range(len(ids)), key=lambda index: ids[index])
    candidates = [order[place] for place in spread(len(order), MOST_LOOKED_AT)]
    thumbnails, pixels, looks = [], [], []
    for done, index in enumerate(candidates, start=1):
        frame, found = read(index)
        thumbnails.append(thumbnail(frame))
        pixels.append(_pixels(frame))
        looks.append(look_at(frame, found))
        progress(done, len(candidates) + num_others)
    refused = _refused(thumbnails, pixels, others, lambda done: progress(len(candidates) + done, len(candidates) + num_others))
    if refused and len(refused) == len(candidates):
        raise DataError(
            f"each of the {len(refused)} training frames looks like one of val or test, and int8 must not be calibrated on those; type: "
            "edgeseg data check DIR, or set quantize.int8=false"
        )
    free = [place for place in range(len(candidates)) if place not in refused]
    names, seen = [ids[candidates[place]] for place in free], [looks[place] for place in free]
    chosen = choose_covering(names, seen, count) if way == "cover" else choose_calibration(names, count, seed=seed)
    calibrate, held = hold_back(names, chosen) if judged else (chosen, [])
    if way == "cover" and held and not set(held) & set(chosen):
        held = hold_back_covering(names, seen, calibrate, len(held))
    facts = {"way": way, "refused": len(refused), "looked_at": len(candidates), "covers": covered(seen, calibrate, classes)}
    return CalibrationChoice(
        calibrate=tuple(candidates[free[place]] for place in calibrate), held_back=tuple(candidates[free[place]] for place in held),
        facts=facts, notes=tuple(_notes(facts, len(calibrate), more=count < min(ENOUGH, len(free)))),
    )


def choose_of_run(ctx: RunContext, data: RunData) -> CalibrationChoice:
    """Choose by `[quantize] calibration` among the training frames of a run; a step of its own, since every frame is looked at."""
    section, dataset, task = ctx.config.quantize, data.dataset, ctx.config.model.task
    samples, others = dataset.splits["train"], [sample for name in ("val", "test") for sample in dataset.splits.get(name, ())]

    def read(index: int) -> tuple[Frame, Sequence[int]]:
        if task == "instance":
            frame, objects = read_instances(samples[index], num_classes=len(dataset.classes))
            return frame, classes_of(objects)
        frame, label = data.opened["train"][index] if "train" in data.opened else read_sample(
            samples[index], num_classes=len(dataset.classes)
        )
        return frame, classes_of(label)

    def make(output: Path) -> None:
        choice = choose(
            [sample.id for sample in samples], read, (read_frame(sample.image) for sample in others), count=section.calibration_frames,
            way=section.calibration, seed=ctx.config.train.seed, classes=dataset.classes, num_others=len(others),
            judged=section.rescue != "off", progress=lambda done, total: ctx.ui.progress("looking at frames", done, total),
        )
        write_json(output, choice.to_json())

    key = {
        "version": 1, "dataset": dataset.sha256, "task": task, "count": section.calibration_frames, "way": section.calibration,
        "seed": ctx.config.train.seed, "judged": section.rescue != "off", "tools": tools("numpy", "pillow"),
    }
    step = ctx.steps.do("calibration", kind="quantize", key=key, output=ctx.folder / "quantized" / "calibration.json", make=make)
    choice = CalibrationChoice.from_json(read_json(step.output))
    for note in choice.notes:
        ctx.ui.say(f"calibration: {note}")
    return choice


def hold_back_covering(ids: Sequence[str], looks: Sequence[Look], calibrate: Sequence[int], count: int) -> list[int]:
    """Choose `count` frames to judge by from those that do not calibrate, so that they cover classes and light as `cover` does."""
    taken = set(calibrate)
    rest = [index for index in range(len(ids)) if index not in taken]
    return [rest[place] for place in choose_covering([ids[index] for index in rest], [looks[index] for index in rest], count)]


def _refused(
    thumbnails: Sequence[NDArray[np.uint8]], pixels: Sequence[bytes], others: Iterable[Frame], on_frame: Callable[[int], None]
) -> set[int]:
    """Places of the training frames that are, or look like, one of `others`."""
    shown: list[NDArray[np.uint8]] = []
    known: set[bytes] = set()
    for done, frame in enumerate(others, start=1):
        shown.append(thumbnail(frame))
        known.add(_pixels(frame))
        on_frame(done)
    both = [*shown, *thumbnails]
    pairs = look_alikes(list(range(len(shown))), list(range(len(shown), len(both))), both)
    return {place - len(shown) for _, place in pairs} | {place for place, digest in enumerate(pixels) if digest in known}


def _pixels(frame_HWC: Frame) -> bytes:
    return hashlib.sha256(repr(frame_HWC.shape).encode() + frame_HWC.tobytes()).digest()


def _notes(facts: dict[str, Any], count: int, *, more: bool) -> list[str]:
    """What to tell of a choice of `count` frames; `more` = there are more, which were not asked for."""
    notes = []
    if facts["refused"]:
        notes.append(f"{facts['refused']} training frames look like one of val or test and do not calibrate")
    if count < ENOUGH:
        do = f"ask for {ENOUGH} or more (quantize.calibration_frames)" if more else "add training frames"
        number = f"{count} frame{'' if count == 1 else 's'}"
        notes.append(f"warning: int8 is calibrated on {number}, fewer than {ENOUGH}: what they show is chance; {do}")
    there, chosen = facts["covers"]["of"]["class_frames"], facts["covers"]["chosen"]["class_frames"]
    missing = [name for name, frames in there.items() if frames and not chosen.get(name)]
    if missing:
        notes.append(f"warning: no calibration frame shows {', '.join(missing)}; set quantize.calibration = \"cover\", or take more frames")
    return notes


def covers_words(facts: dict[str, Any]) -> str:
    """What a choice covers, in one line; empty for bundles made before it was looked at."""
    if "covers" not in facts:
        return ""
    chosen, there = facts["covers"]["chosen"], facts["covers"]["of"]
    parts = []
    if there["class_frames"]:
        frames = {name: chosen["class_frames"].get(name, 0) for name, count in there["class_frames"].items() if count}
        least = min(frames, key=lambda name: frames[name])
        shown = sum(map(bool, frames.values()))
        parts.append(f"{shown} of {len(frames)} classes, {least} in {frames[least]} of its {there['class_frames'][least]} frames")
    low, high = chosen["brightness"]
    parts.append(f"mean brightness {low:g} to {high:g} of {there['brightness'][0]:g} to {there['brightness'][1]:g}")
    if facts["refused"]:
        parts.append(f"{facts['refused']} refused as look-alikes of val or test")
    return f"chosen to {facts['way']}: " + ", ".join(parts)


def classes_of(label: ClassMap | InstanceLabel) -> tuple[int, ...]:
    """Classes that a label holds, but for what is ignored."""
    values = label.classes_N if isinstance(label, InstanceLabel) else label.reshape(-1)
    found = np.flatnonzero(np.bincount(values, minlength=1))
    return tuple(int(value) for value in found if value != IGNORE_INDEX)
