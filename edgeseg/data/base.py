"""The nouns of the data room: a sample, a data set, a problem, and what a layout has to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Protocol

from edgeseg.core.config import DataSection
from edgeseg.core.images import IMAGE_SUFFIXES, ClassMap, read_class_map
from edgeseg.core.instances import InstanceLabel

SPLITS: Final[tuple[str, ...]] = ("train", "val", "test")

Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled image. `id` is unique in its data set and does not depend on where the folder lies."""

    id: str
    split: str
    image: Path
    label: Path
    """File (or, with one mask file an object, folder) that holds the label, perhaps with those of other images."""
    read_label: Callable[[Path], ClassMap] = read_class_map
    """Turns `label` into class indices at the upright frame's size; a layout whose labels are not index masks puts its own reader
    here. Called from several threads."""
    read_instances: Callable[[], InstanceLabel] | None = field(default=None, compare=False)
    """Gives the objects one by one, where the layout tells them apart."""
    label_files: tuple[Path, ...] = ()
    """Files that the label is read from; empty = `label` alone."""
    reading: str = ""
    """How the label is read, where the files do not say (a threshold, a palette): part of the data set's hash."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file the sample is read from: the image, then those of the label."""
        return (self.image, *(self.label_files or (self.label,)))

    @property
    def own_label(self) -> bool:
        """Whether `label` is an image of its own; not a folder, nor an annotation file of many images."""
        return self.label.suffix.lower() in IMAGE_SUFFIXES

    @property
    def shown(self) -> Path:
        """File by which a message about the label names the sample: the label where it is its own, else the image."""
        return self.label if self.own_label else self.image


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Samples by split, with the classes their labels use. Nothing is decoded yet."""

    root: Path
    name: str
    layout: str
    classes: tuple[str, ...]
    palette: Palette
    splits: dict[str, tuple[Sample, ...]]
    """`train` and `val` always, `test` where there is one."""
    sha256: str
    """Hash over classes, membership of splits, the bytes of every image and label, and how labels are read."""
    split_rule: str
    """In words: where the splits come from."""
    notes: tuple[str, ...] = ()
    """In words: what was decided about the data (a threshold, classes left out) and the user ought to hear."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with one file (or, for `file` = ".", with the folder)."""

    file: str
    """Relative to the data set's folder, POSIX form."""
    kind: str
    """A short, stable word: `missing-label`, `size-mismatch`, ..."""
    message: str
    """What was got and what would do."""

    def to_json(self) -> dict[str, str]:
        """Give the problem as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a layout found by listing names and reading its own index files; no image is decoded."""

    name: str
    splits: dict[str, tuple[Sample, ...]]
    split_rule: str
    classes: tuple[str, ...] = ()
    """Empty where the data set does not name them."""
    names_applied: bool = False
    """Whether `classes` is already what `[data] classes` asks for (a choice among the names the data set has)."""
    fixed_classes: bool = False
    """Whether the classes are a list of the layout's that no data set needs to show in full (VOC, COCO, Cityscapes)."""
    palette: Palette = ()
    problems: tuple[Problem, ...] = ()
    """Each of them stops training."""
    warnings: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """See `Dataset.notes`."""


def counted(count: int, noun: str) -> str:
    """Put a number before a noun: `1 frame`, `2 frames`, `3 classes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def relative(root: Path, path: Path) -> str:
    """Path below `root` in POSIX form, as `Problem.file` wants it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def unsafe_name(name: str) -> str:
    """Say why a file name from a label must not be followed; empty where it stays below its folder."""
    try:
        lengths = [len(part.encode()) for part in name.split("/")]
    except UnicodeEncodeError:
        return "is no file name"
    if not name or "\0" in name or max(lengths) > 255 or sum(lengths) > 2000:
        return "is no file name"
    if name.startswith("/") or Path(name).is_absolute():
        return "is an absolute path; names are relative to the image folder"
    if ".." in name.replace("\\", "/").split("/"):
        return "leaves the image folder; names are relative to it and have no '..'"
    return ""


class Layout(Protocol):
    """A way to lay labelled images out on disk. Adding one = one file here and one line in `dataset.DATASETS`."""

    @property
    def about(self) -> str:
        """One line that describes the layout."""
        ...

    def claims(self, root: Path) -> bool:
        """Say whether `root` looks like this layout, from names alone."""
        ...

    def scan(self, root: Path, section: DataSection, *, seed: int) -> Scan:
        """List the samples; every inconsistency becomes a `Problem`, so that one report names them all."""
        ...


def default_palette(num_classes: int) -> Palette:
    """Distinct colours, class 0 black: the colour map of PASCAL VOC (bits of the index spread over R, G, B)."""
    colours = []
    for index in range(num_classes):
        red = green = blue = 0
        for bit in range(8):
            red |= (index >> (3 * bit) & 1) << (7 - bit)
            green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
            blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
        colours.append((red & 255, green & 255, blue & 255))
    return tuple(colours)
