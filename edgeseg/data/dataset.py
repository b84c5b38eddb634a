"""Find the samples, classes and splits of a folder: `load_dataset`, and the registry of layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError, DataError, InputMissingError
from edgeseg.core.files import sha256_file, sha256_json
from edgeseg.core.images import IGNORE_INDEX, IMAGE_SUFFIXES
from edgeseg.data.base import SPLITS, Dataset, Layout, Palette, Problem, Sample, Scan, counted, default_palette
from edgeseg.data.choice import MAX_CLASSES
from edgeseg.data.cityscapes import CityscapesLayout
from edgeseg.data.coco import CocoLayout
from edgeseg.data.folder import FolderLayout
from edgeseg.data.voc import VocLayout

__all__ = ["DATASETS", "Dataset", "Sample", "dataset_classes", "load_dataset", "named_classes", "photographs", "placeholders", "refuse",
           "scan_dataset"]

DATASETS: Final[dict[str, Layout]] = {
    "folder": FolderLayout(),
    "voc": VocLayout(),
    "coco": CocoLayout(),
    "cityscapes": CityscapesLayout(),
}
_LABEL_FOLDERS: Final = frozenset({"masks", "SegmentationClass", "SegmentationObject", "gtFine", "gtCoarse"})
"""Folders of labels that may lie anywhere below a folder which is in no known layout itself."""


def scan_dataset(section: DataSection, *, seed: int) -> tuple[str, Path, Scan]:
    """Find the layout of `[data] dir` (or take `[data] layout`) and list it; no image is decoded.

    Raises:
        ConfigError: `[data] dir` is not set, several layouts could be meant, or an option does not fit the data.
        InputMissingError: the folder does not exist, or is in no known layout.
    """
    if not section.dir:
        raise ConfigError("[data] dir is not set; type: edgeseg init --data DIR")
    root = Path(section.dir)
    if not root.is_dir():
        raise InputMissingError(f"{root} is not a folder; set [data] dir to the folder that holds the labelled images")
    named = "coco" if section.annotations and section.layout == "auto" else section.layout
    name = named if named != "auto" else _recognise(root)
    if not DATASETS[name].claims(root) and not (name == "coco" and section.annotations):
        raise InputMissingError(f"{root} holds {_listing(root)}; that is not the layout {name} ({DATASETS[name].about})")
    return name, root, DATASETS[name].scan(root, section, seed=seed)


_TOGETHER: Final = (("JPEGImages", "SegmentationClass", "voc"), ("leftImg8bit", "gtFine", "cityscapes"))
"""Folders that make a layout only together."""


def _recognise(root: Path) -> str:
    """Name of the one layout that claims the folder."""
    names = [name for name, layout in DATASETS.items() if layout.claims(root)]
    if len(names) > 1:
        raise ConfigError(f"{root} looks like the layouts {' and '.join(names)}; choose one: --layout {names[0]}, or [data] layout")
    if names:
        return names[0]
    inner = sorted(path for path in root.iterdir() if path.is_dir())
    below = next((f"; {path} is one: give that folder" for path in inner if any(one.claims(path) for one in DATASETS.values())), "")
    for *pair, name in _TOGETHER:
        have, lack = sorted(pair, key=lambda one: not (root / one).is_dir())
        if (root / have).is_dir():
            raise InputMissingError(f"{root} holds {_listing(root)}; the layout {name} needs {lack}/ beside {have}/: add it")
    raise InputMissingError(f"{root} holds {_listing(root)}; expected images/ and masks/ (with or without train/, val/, test/ below), "
                            f"or the layout {', '.join(name for name in DATASETS if name != 'folder')}{below}")


def _listing(root: Path) -> str:
    inside = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
    return ", ".join(inside[:6]) + (f" and {len(inside) - 6} more" if len(inside) > 6 else "") if inside else "nothing"


def load_dataset(section: DataSection, *, seed: int, need: tuple[str, ...] = ("train", "val")) -> Dataset:
    """Find pairs, classes and splits, and hash every file. Images are not decoded (masks are, where nobody names the classes).

    `seed` only matters where splits have to be drawn. `need` = splits that must hold frames.

    Raises:
        ConfigError: `[data] dir` is not set, or `[data] classes` does not fit.
        InputMissingError: no such folder, or no images in it.
        DataError: names the first inconsistency and how many more there are.
    """
    layout, root, scan = scan_dataset(section, seed=seed)
    if not any(scan.splits.values()) and all(problem.kind == "empty" for problem in scan.problems):
        raise InputMissingError(f"{root}: no images found; put labelled images there, or set [data] dir to where they are")
    refuse(root, scan.problems)
    for split in need:
        if not scan.splits.get(split):
            raise DataError(f"{root}: no {split} frames ({scan.split_rule}); add images and labels for {split}, or leave splits out")
    classes, palette = dataset_classes(section, scan)
    splits = {split: scan.splits[split] for split in SPLITS if split in scan.splits}
    return Dataset(root=root, name=scan.name, layout=layout, classes=classes, palette=palette, splits=splits,
                   sha256=_hash(classes, splits), split_rule=scan.split_rule, notes=scan.notes)


def refuse(root: Path, problems: tuple[Problem, ...]) -> None:
    """Raise `DataError` naming the first problem, if there is one."""
    if problems:
        first = problems[0]
        more = f" (and {counted(len(problems) - 1, 'more problem')})" if len(problems) > 1 else ""
        raise DataError(f"{first.file}: {first.message}{more}; type: edgeseg data check {root}")


def named_classes(section: DataSection, scan: Scan) -> tuple[str, ...]:
    """Names by `[data] classes`, else by the data set; empty where neither says."""
    return scan.classes if scan.names_applied else section.classes or scan.classes


def placeholders(num_classes: int) -> tuple[str, ...]:
    """`class_0`, `class_1` ...: what classes are called that nobody names."""
    return tuple(f"class_{index}" for index in range(num_classes))


def photographs(folder: Path) -> list[Path]:
    """Images of a folder, sorted, never its labels: those of its samples where a layout claims it, else all outside folders of labels.

    Raises:
        ConfigError: several layouts claim the folder.
    """
    if any(layout.claims(folder) for layout in DATASETS.values()):
        _, _, scan = scan_dataset(DataSection(dir=str(folder)), seed=0)
        return sorted({sample.image for samples in scan.splits.values() for sample in samples})
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
                  and _LABEL_FOLDERS.isdisjoint(path.relative_to(folder).parts))


def dataset_classes(section: DataSection, scan: Scan) -> tuple[tuple[str, ...], Palette]:
    """Names and colours: from `[data] classes`, else from the data set, else `class_0`.. up to the highest index in the masks.

    Raises:
        ConfigError: `[data] classes` repeats a name.
        DataError: fewer than 2 or more than 255 classes.
    """
    classes = named_classes(section, scan)
    if len(set(classes)) != len(classes):
        raise ConfigError(f"[data] classes = {list(classes)}: a name stands there twice")
    if not classes:
        highest = _highest_index([sample for samples in scan.splits.values() for sample in samples])
        if highest < 1:
            raise DataError("the masks hold one class only (index 0, and 255 = ignore); "
                            "a binary mask needs 0 = background and 1 = object, not 0 and 255")
        classes = placeholders(highest + 1)
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise DataError(f"{len(classes)} classes ({', '.join(classes[:5])}); 2 to {MAX_CLASSES} are possible, a background counts as one")
    return classes, scan.palette if len(scan.palette) == len(classes) else default_palette(len(classes))


def _highest_index(samples: list[Sample]) -> int:
    highest = -1
    for sample in samples:
        label = sample.read_label(sample.label)
        known = label[label != IGNORE_INDEX]
        highest = max(highest, int(np.max(known, initial=0)))
    return highest


def _hash(classes: tuple[str, ...], splits: dict[str, tuple[Sample, ...]]) -> str:
    hashes: dict[Path, str] = {}
    for samples in splits.values():
        for path in (path for sample in samples for path in sample.files):
            if path not in hashes:
                hashes[path] = sha256_file(path)

    def row(sample: Sample) -> list[str]:
        return [sample.id, *(hashes[path] for path in sample.files), *([sample.reading] if sample.reading else [])]

    rows = {split: [row(sample) for sample in samples] for split, samples in splits.items()}
    return sha256_json({"classes": list(classes), "splits": rows})
