"""Which classes are learned: a choice by `[data] classes` among the names that a data set has."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.errors import ConfigError, DataError
from edgeseg.core.images import IGNORE_INDEX
from edgeseg.data.base import Palette, counted

BACKGROUND: Final = "background"
MAX_CLASSES: Final = 255
"""What fits a class map, in which 255 means ignore."""


class UnknownClassError(ConfigError):
    """A class was asked for that the data set, which names its classes, does not have."""

    def __init__(self, message: str, known: tuple[str, ...]) -> None:
        super().__init__(message)
        self.known = known
        """What the data set has."""


@dataclass(frozen=True)
class Choice:
    """Classes in index order, and the index each class of the data set gets among them."""

    classes: tuple[str, ...]
    index_of: tuple[int, ...]
    """Per class of the data set: index in `classes`; 255 = ignored."""
    note: str = ""

    @property
    def changes(self) -> bool:
        """Whether any index changes."""
        return self.index_of != tuple(range(len(self.index_of)))

    def table(self) -> NDArray[np.uint8]:
        """Look-up table of 256 entries from the data set's indices; what lies outside its classes stays as it is."""
        table = np.arange(256, dtype=np.uint8)
        table[: len(self.index_of)] = self.index_of
        return table

    def palette(self, known: Palette) -> Palette:
        """Colours of the classes chosen, from those of the data set; a background it does not have is black."""
        colours = {new: known[old] for old, new in reversed(list(enumerate(self.index_of)))} if known else {}
        first = {self.classes.index(name): (0, 0, 0) for name in self.classes if is_background(name)}
        return tuple({**colours, **first}[index] for index in range(len(self.classes))) if known else ()


def is_background(name: str) -> bool:
    """Whether a class is called background, however it is dressed up (`_background_`)."""
    return name.strip("_ ").casefold() == BACKGROUND


def choose(wanted: tuple[str, ...], known: tuple[str, ...]) -> Choice:
    """Choose `wanted` among `known`, all of them where nothing is wanted.

    What is not chosen becomes background where there is one: `known` has it as class 0 (then it need not be named), or `wanted` begins
    with a class called background. Else it is ignored (255).

    Raises:
        UnknownClassError: a name that the data set does not have; the nearest one is given.
        ConfigError: a name stands there twice.
        DataError: more classes than fit a class map of 8 bits.
    """
    if len(wanted or known) > MAX_CLASSES:
        raise DataError(f"{len(wanted or known)} classes; up to {MAX_CLASSES} are possible, a background counts as one; choose some in "
                        "[data] classes")
    if not wanted or wanted == known:
        return Choice(known, tuple(range(len(known))))
    if known and is_background(known[0]) and not any(is_background(name) for name in wanted):
        wanted = (known[0], *wanted)
    if len(set(wanted)) != len(wanted):
        raise ConfigError(f"[data] classes = {list(wanted)}: a name stands there twice")
    named = {BACKGROUND if is_background(name) else name: index for index, name in enumerate(wanted)}
    rest = named.get(BACKGROUND, IGNORE_INDEX)
    for name in wanted:
        if name not in known and not is_background(name):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"the data has {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
            raise UnknownClassError(f"[data] classes: the data has no class '{name}'; {hint}", known)
    index_of = tuple(rest if is_background(name) else named.get(name, rest) for name in known)
    left = len(known) - sum(name in known for name in wanted)
    where = "background" if rest != IGNORE_INDEX else "ignored (255)"
    return Choice(wanted, index_of, f"{counted(len(wanted), 'class')} chosen; the rest of the data's ({left}) is {where}" if left else "")
