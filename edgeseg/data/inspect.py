"""`edgeseg init`: look at a folder, say what is there, suggest a `[data]` section. A sample of the masks is read, not all."""

from __future__ import annotations

import statistics
import warnings as python_warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from edgeseg.core.config import DataSection
from edgeseg.core.images import IGNORE_INDEX
from edgeseg.data.base import SPLITS, Sample, counted
from edgeseg.data.check import judge_classes
from edgeseg.data.dataset import named_classes, scan_dataset
from edgeseg.data.examine import examine, problems_of

_LOOKED_AT: Final = 24
"""Masks read per split; sizes are taken from the headers of all images."""
_LONG_SIDE: Final = 512
_MULTIPLE: Final = 8


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is in a folder, and the `[data]` section that fits it."""

    root: Path
    name: str
    layout: str
    split_rule: str
    num_frames: dict[str, int]
    classes: tuple[str, ...]
    classes_named: bool
    """Whether the data set names its classes; else they are `class_0`, ... by the values seen."""
    values_seen: tuple[int, ...]
    """Mask values in the masks that were read, 255 included."""
    frame_sizes: dict[str, int]
    """`WIDTHxHEIGHT` as stored -> how many images."""
    section: DataSection
    """Suggested; `dir` is the folder as given."""
    warnings: tuple[str, ...]
    """In words, the gravest first."""
    notes: tuple[str, ...]
    """In words: how the data are read."""
    num_problems: int
    """What has to be mended before a training, of what was looked at; `edgeseg data check` looks at everything."""
    has_objects: bool
    """Whether labels tell objects apart."""

    def to_json(self) -> dict[str, object]:
        """Give the findings as JSON values."""
        return {
            "root": str(self.root), "name": self.name, "layout": self.layout, "split_rule": self.split_rule, "num_frames": self.num_frames,
            "classes": list(self.classes), "classes_named": self.classes_named, "values_seen": list(self.values_seen),
            "frame_sizes": self.frame_sizes, "size": list(self.section.size), "resize": self.section.resize,
            "warnings": list(self.warnings), "notes": list(self.notes), "num_problems": self.num_problems,
            "has_objects": self.has_objects,
        }


def inspect_folder(folder: Path, *, seed: int = 0, section: DataSection | None = None) -> Findings:
    """Look at `folder`; nothing is written. `section` says how to read it (layout, masks, classes ...), where that is known.

    Raises:
        ConfigError: several layouts, or several sets of annotation files, could be meant.
        InputMissingError: the folder does not exist, or is in no known layout.
    """
    section = replace(section or DataSection(), dir=str(folder))
    layout, root, scan = scan_dataset(section, seed=seed)
    samples = [sample for split in SPLITS for sample in scan.splits.get(split, ())]
    sizes = Counter(size for sample in samples if (size := _stored_hw(sample.image)) is not None)
    looks = {split: [examine(root, sample) for sample in _spread(scan.splits[split])] for split in scan.splits}
    rows = {split: [look.counts for look in found if look.counts is not None] for split, found in looks.items()}
    counts = {split: np.stack(stack) for split, stack in rows.items() if stack}
    seen = sorted({int(value) for stack in counts.values() for value in np.flatnonzero(stack.sum(axis=0))})
    highest = max((value for value in seen if value != IGNORE_INDEX), default=0)
    named = named_classes(section, scan)
    classes = named or tuple(f"class_{index}" for index in range(highest + 1))
    unread = any(problem.kind == "bad-index" for problem in scan.problems)  # what the set lacks is in the file that cannot be read
    judged = [] if unread else judge_classes(counts, classes, layout=layout, named=bool(named), fixed=scan.fixed_classes)[0]
    troubles = [*scan.problems, *problems_of([look for found in looks.values() for look in found])]
    troubles += [problem for problem in judged if problem.kind != "class-absent"]  # only some masks were read
    said = [f"{problem.file}: {problem.message}" for problem in troubles[:5]]
    if len(troubles) > 5:
        said.append(f"{counted(len(troubles) - 5, 'more problem')}; type: edgeseg data check {folder}")
    outside = bool(named) and highest >= len(named)
    if outside:
        said.append(f"masks use the value {highest}, but {len(named)} classes are named (0..{len(named) - 1})")
    if not named and highest > 0:
        said.append("nobody names the classes; they are numbered here: give them names in [data] classes")
    size, resize, words = _suggest_size(sizes)
    said += words
    missing = [split for split in ("train", "val") if not unread and not scan.splits.get(split)]
    said += [f"no {split} frames" for split in missing]
    if "test" not in scan.splits:
        said.append('no test split: [data] eval_split is "val", so the numbers are those the best checkpoint was chosen by (optimistic)')
    few = len(scan.splits.get("train", ()))
    if 0 < few < 20:
        said.append(f"only {counted(few, 'training frame')}; expect a weak network")
    size = section.size if section.size != DataSection().size else size
    suggested = replace(section, size=size, resize=resize, classes=section.classes if named or highest < 1 else classes,
                        eval_split="test" if "test" in scan.splits else "val")
    return Findings(
        root=root, name=scan.name, layout=layout, split_rule=scan.split_rule, classes=classes, classes_named=bool(named),
        num_frames={split: len(scan.splits[split]) for split in SPLITS if split in scan.splits}, values_seen=tuple(seen),
        num_problems=len(troubles) + outside, has_objects=any(sample.read_instances is not None for sample in samples),
        frame_sizes={f"{w}x{h}": count for (h, w), count in sizes.most_common()}, section=suggested, warnings=tuple(said), notes=scan.notes,
    )


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """At most `_LOOKED_AT` samples, evenly over the list."""
    count = min(len(samples), _LOOKED_AT)
    return [samples[i * len(samples) // count] for i in range(count)]


def _stored_hw(path: Path) -> tuple[int, int] | None:
    """Upright size from the header; `None` where it cannot be read (`examine` says why)."""
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            with Image.open(path) as image:
                turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
                return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # Pillow raises a dozen types for damaged files
        return None


def _suggest_size(sizes: Counter[tuple[int, int]]) -> tuple[tuple[int, int], str, list[str]]:
    """Model size (multiples of 8, long side at most 512, never larger than the frames), resize policy, and what to know about it."""
    if not sizes:
        return DataSection().size, DataSection().resize, []
    everything = list(sizes.elements())
    height, width = (int(statistics.median(side)) for side in zip(*everything, strict=True))
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = (max(32, int(height * scale) // _MULTIPLE * _MULTIPLE), max(32, int(width * scale) // _MULTIPLE * _MULTIPLE))
    words = []
    aspects = [w / h for h, w in everything]
    resize = "stretch" if max(aspects) <= 1.15 * min(aspects) else "letterbox"
    if len(sizes) > 1:
        words.append(f"{len(sizes)} frame sizes, {_show(min(sizes))} to {_show(max(sizes))}; all are brought to {_show(size)} by {resize}")
    if scale < 0.5:
        words.append(f"frames of {_show((height, width))} shrink to {_show(size)}, where objects under {round(4 / scale)} pixels vanish; "
                     'raise [data] size, or set resize = "tile"')
    return size, resize, words


def _show(hw: tuple[int, int]) -> str:
    return f"{hw[1]}x{hw[0]}"
