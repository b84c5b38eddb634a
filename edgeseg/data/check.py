"""`edgeseg data check`: every bad file and why, in one report. Problems have to be mended; warnings want a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.config import DataSection
from edgeseg.core.images import IGNORE_INDEX
from edgeseg.data.base import SPLITS, Problem, Sample, relative
from edgeseg.data.choice import MAX_CLASSES
from edgeseg.data.dataset import named_classes, scan_dataset
from edgeseg.data.examine import Examined, examine, problems_of
from edgeseg.data.labels import looks_soft
from edgeseg.data.orientation import turned
from edgeseg.data.store import explain_strange
from edgeseg.data.suspicions import absent, imbalance, lying, near_duplicates

_THREADS: Final = 2
Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """All that `check_dataset` found."""

    root: Path
    name: str
    layout: str
    split_rule: str
    classes: tuple[str, ...]
    num_frames: dict[str, int]
    """Frames per split."""
    frame_sizes: dict[str, int]
    """`WIDTHxHEIGHT` (upright) -> how many frames."""
    class_share: dict[str, tuple[float, ...]]
    """Per split: share of labelled pixels of each class; fractions that add up to 1 (or are all 0)."""
    class_frames: dict[str, tuple[int, ...]]
    """Per split: in how many frames each class occurs."""
    ignore_share: dict[str, float]
    """Per split: share of all pixels that are 255."""
    num_objects: dict[str, tuple[int, ...]]
    """Per split: objects of each class, crowds not counted; empty where the layout does not tell objects apart."""
    notes: tuple[str, ...]
    """In words: how the data are read (see `edgeseg.data.base.Dataset.notes`)."""
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing has to be mended."""
        return not self.problems

    def to_json(self) -> dict[str, object]:
        """Give the report as JSON values."""
        return {
            "root": str(self.root), "name": self.name, "layout": self.layout, "split_rule": self.split_rule, "ok": self.ok,
            "classes": list(self.classes), "num_frames": self.num_frames, "frame_sizes": self.frame_sizes,
            "class_share": {split: list(share) for split, share in self.class_share.items()},
            "class_frames": {split: list(count) for split, count in self.class_frames.items()},
            "ignore_share": self.ignore_share,
            "num_objects": {split: list(counts) for split, counts in self.num_objects.items()},
            "notes": list(self.notes),
            "problems": [problem.to_json() for problem in self.problems],
            "warnings": [warning.to_json() for warning in self.warnings],
        }


def check_dataset(section: DataSection, *, seed: int, progress: Callable[[int, int], None] | None = None) -> DataReport:
    """Decode every image and mask and report everything that is wrong, never just the first thing.

    Raises:
        ConfigError: `[data] dir` is not set, or an option does not fit the data.
        InputMissingError: the folder does not exist, or is in no known layout.
    """
    layout, root, scan = scan_dataset(section, seed=seed)
    problems, warnings = list(scan.problems), list(scan.warnings)
    samples = [sample for split in SPLITS for sample in scan.splits.get(split, ())]
    looks = _examine_all(root, samples, progress)
    problems += problems_of(looks)
    warnings += [warning for look in looks for warning in look.warnings]
    split_counts = {split: _stack(samples, looks, split) for split in scan.splits}
    named = named_classes(section, scan)
    classes, num_classes = named, len(named)
    if not named:
        used = _used(np.concatenate(list(split_counts.values()))) if split_counts else []
        num_classes = max(used, default=0) + 1
        classes = tuple(f"class_{index}" for index in range(num_classes))
    problems += _strange_values(root, samples, looks, num_classes)
    if not any(problem.kind == "bad-index" for problem in scan.problems):  # else what the set lacks is in the file that cannot be read
        warnings += _missing_splits(scan.splits)
        class_problems, class_warnings = judge_classes(split_counts, classes, layout=layout, named=bool(named), fixed=scan.fixed_classes)
        problems += class_problems
        warnings += class_warnings
        if not any(problem.kind == "class-gaps" for problem in class_problems):  # else values are no classes
            warnings += imbalance(split_counts, classes)
    warnings += lying(root, samples, [look.frame_hw for look in looks])
    warnings += turned(root, samples, [look.agreement for look in looks])
    warnings += near_duplicates(root, samples, [look.thumbnail for look in looks])
    twin_problems, twin_warnings = _twins(root, samples, looks)
    sizes = Counter(f"{look.frame_hw[1]}x{look.frame_hw[0]}" for look in looks if look.frame_hw is not None)
    totals = {split: counts.sum(axis=0) for split, counts in split_counts.items()}
    return DataReport(
        root=root, name=scan.name, layout=layout, split_rule=scan.split_rule, classes=classes,
        num_frames={split: len(scan.splits[split]) for split in SPLITS if split in scan.splits},
        frame_sizes=dict(sizes.most_common()),
        class_share={s: tuple((t[:num_classes] / max(1, t[:num_classes].sum())).tolist()) for s, t in totals.items()},
        class_frames={s: tuple(int(n) for n in (counts[:, :num_classes] > 0).sum(axis=0)) for s, counts in split_counts.items()},
        ignore_share={s: float(t[IGNORE_INDEX] / max(1, t.sum())) for s, t in totals.items()},
        num_objects=_objects(samples, looks, num_classes), notes=scan.notes,
        problems=(*problems, *twin_problems), warnings=(*warnings, *twin_warnings),
    )


def _examine_all(root: Path, samples: Sequence[Sample], progress: Callable[[int, int], None] | None) -> list[Examined]:
    looks: list[Examined] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(samples), 8):  # a bounded number of decoded frames at a time
            looks += pool.map(lambda sample: examine(root, sample), samples[start : start + 8])
            if progress is not None:
                progress(len(looks), len(samples))
    return looks


def _stack(samples: Sequence[Sample], looks: Sequence[Examined], split: str) -> Counts:
    """Pixels per readable mask of a split and value: [N, 256]."""
    rows = [look.counts for sample, look in zip(samples, looks, strict=True) if sample.split == split and look.counts is not None]
    return np.stack(rows) if rows else np.zeros((0, 256), dtype=np.int64)


def _objects(samples: Sequence[Sample], looks: Sequence[Examined], num_classes: int) -> dict[str, tuple[int, ...]]:
    totals: dict[str, Counter[int]] = {}
    for sample, look in zip(samples, looks, strict=True):
        if look.num_objects is not None:
            totals.setdefault(sample.split, Counter()).update(look.num_objects)
    return {split: tuple(totals[split][index] for index in range(num_classes)) for split in SPLITS if split in totals}


def _used(counts_N256: Counts) -> list[int]:
    """Mask values that occur, 255 aside."""
    return [int(value) for value in np.flatnonzero(counts_N256.sum(axis=0)[:IGNORE_INDEX])]


def _strange_values(root: Path, samples: Sequence[Sample], looks: Sequence[Examined], num_classes: int) -> list[Problem]:
    found = []
    for sample, look in zip(samples, looks, strict=True):
        if look.counts is None:
            continue
        strange = {v: int(look.counts[v]) for v in range(num_classes, IGNORE_INDEX) if look.counts[v]}
        if strange:
            hint = "; values smeared by JPEG, save masks as PNG" if sample.label.suffix.lower() in (".jpg", ".jpeg") else ""
            found.append(Problem(file=relative(root, sample.shown), kind="value-outside",
                                 message=explain_strange(strange, num_classes) + hint))
    return found


def _missing_splits(splits: dict[str, tuple[Sample, ...]]) -> list[Problem]:
    """Data without train or val may be there to be verified on; training itself insists on both."""
    return [Problem(file=".", kind="no-split", message=f"no {split} frames: enough for edgeseg verify, not for training")
            for split in ("train", "val") if any(splits.values()) and not splits.get(split)]


def judge_classes(
    split_counts: dict[str, Counts], classes: tuple[str, ...], *, layout: str, named: bool, fixed: bool = False
) -> tuple[list[Problem], list[Problem]]:
    """Judge the classes as a whole: binary 0/255 masks, one class only, gaps, classes absent in a split.

    A class that train does not show is a problem, unless the list of classes is `fixed` by the layout.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    everything = np.concatenate(list(split_counts.values())) if split_counts else np.zeros((0, 256), dtype=np.int64)
    binary = ', or set [data] masks = "binary"' if layout == "folder" else ""
    if not len(everything):
        return problems, warnings
    used = _used(everything)
    if len(used) < 2:
        ignored = int((everything[:, IGNORE_INDEX] > 0).sum())
        what = f"every labelled pixel has the value {used[0]}" if used else "no pixel is labelled"
        if ignored and used == [0]:
            return [Problem(file=".", kind="binary-mask",
                            message=f"masks hold only 0 and 255 ({ignored} of {len(everything)} masks have 255), and 255 means ignore; "
                                    f"save the object as 1{binary}")], warnings
        problems.append(Problem(file=".", kind="one-class", message=f"one class only: {what}; a network needs at least two"))
        return problems, warnings
    if len(classes) > MAX_CLASSES or len(classes) < 2:
        problems.append(Problem(file=".", kind="class-count", message=f"{len(classes)} classes; 2 to {MAX_CLASSES} are possible"))
    if not named and used != list(range(len(used))):
        said = f"masks use the values {_list(used)}, and nobody names the classes; "
        if layout == "folder" and looks_soft(everything.sum(axis=0)):
            said += "they look like black and white with soft edges: --set data.masks=binary cuts them at the middle; if they are classes, "
        said += "number them from 0 without gaps, or name all of them in [data] classes"
        return [*problems, Problem(file=".", kind="class-gaps", message=said)], warnings
    if fixed:
        return problems, warnings + absent(split_counts, classes)
    for split, counts in split_counts.items():
        lacking = [name for index, name in enumerate(classes) if len(counts) and not counts[:, index].any()]
        if lacking:
            effect = "it will be reported as not evaluated"
            if split == "train":
                effect = "it cannot be learnt: add frames that show it, or take it out of the classes"
            kind = Problem(file=f"masks/{split}", kind="class-absent", message=f"{_list(lacking)} does not occur in {split}; {effect}")
            (problems if split == "train" else warnings).append(kind)
    return problems, warnings


def _twins(root: Path, samples: Sequence[Sample], looks: Sequence[Examined]) -> tuple[list[Problem], list[Problem]]:
    """The same decoded pixels twice: a problem across splits, a warning within one."""
    first: dict[bytes, Sample] = {}
    problems, warnings = [], []
    for sample, look in zip(samples, looks, strict=True):
        if not look.pixels_hash:
            continue
        other = first.setdefault(look.pixels_hash, sample)
        if other is sample:
            continue
        file, twin = relative(root, sample.image), relative(root, other.image)
        if other.split != sample.split:
            problems.append(Problem(file=file, kind="same-image",
                                    message=f"the same image as {twin}: both in {other.split} and in {sample.split}; keep it in one split"))
        else:
            warnings.append(Problem(file=file, kind="duplicate", message=f"the same image as {twin}, in the same split"))
    return problems, warnings


def _list(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values[:8]) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
