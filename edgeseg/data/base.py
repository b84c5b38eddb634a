"""The nouns of the data room: a sample, a data set, a problem, and what a layout has to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from edgeseg.core.config import DataSection
from edgeseg.core.images import ClassMap, read_class_map

SPLITS: Final[tuple[str, ...]] = ("train", "val", "test")

Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One labelled image. `id` is unique in its data set and does not depend on where the folder lies."""

    id: str
    split: str
    image: Path
    label: Path
    read_label: Callable[[Path], ClassMap] = read_class_map
    """Turns `label` into class indices; a layout whose labels are not index masks puts its own reader here."""


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
    """Hash over classes, membership of splits, and the bytes of every image and label."""
    split_rule: str
    """In words: where the splits come from."""


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
    palette: Palette = ()
    problems: tuple[Problem, ...] = ()
    """Each of them stops training."""
    warnings: tuple[Problem, ...] = ()


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
