"""What the masks of a folder hold, found out by looking at some of them, and the samples that follow from it.

Black and white is assumed where every mask looked at is 0 and 255 (or is gray and lossy) and at most two classes are named: read as class
indices, such masks would hold one class and pixels to ignore, from which nothing can be learned. `[data] masks` overrides.
"""

from __future__ import annotations

import re
import warnings as python_warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from PIL import Image

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError, DataError
from edgeseg.core.images import ClassMap
from edgeseg.data.base import Palette, Problem, Sample, counted, relative
from edgeseg.data.choice import BACKGROUND, Choice, choose, is_background
from edgeseg.data.labels import LOSSY_SUFFIXES, BinaryMask, ColourMask, ObjectFiles, looks_binary
from edgeseg.data.store import explain_strange, strange_values

_LOOKED_AT: Final = 16
"""Masks that have to agree, evenly over the folder; all-black ones say nothing and do not count."""
_OBJECT: Final = "object"
_HEX: Final = re.compile(r"#[0-9a-fA-F]{6}\Z")


@dataclass(frozen=True)
class Pair:
    """An image and its mask, or the folder of its masks with one file an object."""

    id: str
    split: str
    image: Path
    mask: Path
    objects: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Index:
    """What dataset.json says."""

    classes: tuple[str, ...] = ()
    palette: Palette = ()
    ignored: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class MasksRead:
    """Samples with their readers, and what was found out; fields as in `edgeseg.data.base.Scan`."""

    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    palette: Palette = ()
    names_applied: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChosenMask:
    """Reads a mask, then gives its classes the indices that `[data] classes` asks for."""

    read: Callable[[Path], ClassMap]
    choice: Choice

    def __call__(self, path: Path) -> ClassMap:
        """Class map uint8 [H, W].

        Raises:
            DataError: as `read` does, or a value outside the classes of the data set (it could pass for one that was chosen).
        """
        label = self.read(path)
        num_known = len(self.choice.index_of)
        if strange := strange_values(label, num_known):
            raise DataError(f"{path.name}: {explain_strange(strange, num_known)}")
        return self.choice.table()[label]


def read_masks(pairs: Sequence[Pair], index: Index, section: DataSection, problems: list[Problem], *, root: Path) -> MasksRead:
    """Give each pair its reader.

    Where dataset.json names classes, `[data] classes` chooses among them by name; else it names the indices, in its order. `[data] palette`
    has the order of `[data] classes`, where both are given.

    Raises:
        ConfigError: `[data] palette` or `ignore_colour` is no colour, or `classes` names what is not there.
    """
    if any(pair.objects for pair in pairs):
        return _read_objects(pairs, index, section, problems, root=root)
    choice = choose(section.classes, index.classes) if index.classes else None
    named = index.classes or section.classes
    if section.masks == "binary" or (section.masks == "auto" and not section.palette and len(named) in (0, 2) and _binary(pairs)):
        reader = BinaryMask(cut_anything=section.masks == "binary")
        samples = tuple(replace(_plain(one), read_label=reader, reading="binary") for one in pairs)
        lossy = sum(one.mask.suffix.lower() in LOSSY_SUFFIXES for one in pairs)
        note = "masks are black and white, cut at the middle: up to 127 is class 0, from 128 class 1"
        note += f" ({lossy} of {len(pairs)} are stored with loss, their edges are a guess)" if lossy else ""
        return _chosen(MasksRead(samples, index.classes or (BACKGROUND, _OBJECT), index.palette, notes=(note,)), choice)
    if section.palette and section.classes and choice is not None:
        # The masks are read in the order of `[data] classes`; what remains to do is to add a background that is not named there.
        named = section.classes
        choice = Choice(choice.classes, tuple(choice.classes.index(name) for name in named), choice.note)
    palette = tuple(_colour(text, "palette") for text in section.palette) or index.palette
    ignored = _colour(section.ignore_colour, "ignore_colour") if section.ignore_colour else index.ignored
    if section.palette and named and len(palette) != len(named):
        raise ConfigError(f"[data] palette has {len(palette)} colours for {len(named)} classes; give one each")
    if section.palette and len(set(palette)) != len(palette):
        raise ConfigError("[data] palette: a colour stands there twice; give each class its own")
    looked = [_in_colours(one.mask) for one in _spread(pairs)]
    if palette and (not named or len(palette) == len(named)) and (section.palette or 2 * sum(looked) > len(looked)):
        colours = ColourMask(palette, ignored)
        samples = tuple(replace(_plain(one), read_label=colours, reading=f"palette {palette} ignored {ignored}") for one in pairs)
        note = f"masks are in colours, read by the palette of {len(palette)} classes"
        return _chosen(MasksRead(samples, index.classes, palette, notes=(note,)), choice)
    return _chosen(MasksRead(tuple(_plain(one) for one in pairs), index.classes, palette), choice)


def _chosen(read: MasksRead, choice: Choice | None) -> MasksRead:
    """Apply what `[data] classes` chooses. Where that is what the data set has anyway, samples stay as they are, and so does its hash."""
    if choice is None:
        return read
    if choice.classes == read.classes and not choice.changes:
        return replace(read, names_applied=True)
    samples = tuple(replace(one, read_label=ChosenMask(one.read_label, choice), reading=f"{one.reading} classes {choice.index_of}".strip())
                    for one in read.samples)
    return replace(read, samples=samples, classes=choice.classes, palette=choice.palette(read.palette), names_applied=True,
                   notes=(*read.notes, choice.note) if choice.note else read.notes)


def _plain(pair: Pair) -> Sample:
    return Sample(id=pair.id, split=pair.split, image=pair.image, label=pair.mask)


def _read_objects(pairs: Sequence[Pair], index: Index, section: DataSection, problems: list[Problem], *, root: Path) -> MasksRead:
    """One mask file an object; folders between the image's own and the files are classes."""
    plain = [pair for pair in pairs if not pair.objects]
    problems += [Problem(file=relative(root, one.mask), kind="mixed-masks",
                         message="one mask for the whole image, where others have one file an object; use one of the two") for one in plain]
    rows = [(pair, [(path, path.parent.relative_to(pair.mask).as_posix()) for path in pair.objects]) for pair in pairs if pair.objects]
    folders = sorted({folder for _, files in rows for _, folder in files} - {"."})
    known = index.classes or (BACKGROUND, *(folder for folder in folders if not is_background(folder)))
    choice: Choice | None = None
    classes: tuple[str, ...] = (BACKGROUND, _OBJECT)
    if not folders and not index.classes:
        number = {".": 1}
    else:
        strange = [folder for folder in folders if folder not in known and not is_background(folder)]
        problems += [Problem(file="dataset.json", kind="bad-index", message=f"names no class '{name}', and there are masks in folders of "
                             "that name; add it or rename them") for name in strange]
        # The first class is what no mask covers, whatever it is called.
        wanted = tuple(BACKGROUND if name == known[0] else name for name in section.classes)
        choice = choose(wanted, (BACKGROUND, *known[1:]))
        classes = tuple(known[0] if is_background(name) else name for name in choice.classes)
        number = {name: choice.index_of[place] for place, name in enumerate(known)}
        if not folders:  # every object is of the second class
            number = {".": choice.index_of[min(1, len(known) - 1)]}
        if classes[0] != known[0]:
            raise ConfigError(f"[data] classes: '{known[0]}' is what no mask covers and has to come first, or be left out")
    samples = []
    for pair, files in rows:
        loose = next((path for path, folder in files if folder not in number), None)
        if loose is not None and "." not in number and loose.parent == pair.mask:
            problems.append(Problem(file=relative(root, loose), kind="mixed-masks",
                                    message="lies beside folders that name classes; put it into one of them"))
        reader = ObjectFiles(tuple((path, number.get(folder, 0)) for path, folder in files))
        samples.append(Sample(id=pair.id, split=pair.split, image=pair.image, label=pair.mask, read_label=reader,
                              read_instances=reader.instances, label_files=pair.objects,
                              reading=f"objects {[(path.name, index) for path, index in reader.files]}"))
    count = sum(len(files) for _, files in rows)
    note = f"{counted(count, 'mask')} of one object each; where they overlap the smaller is on top"
    palette = index.palette if choice is None else choice.palette(index.palette)
    return MasksRead(tuple(samples), classes, palette, names_applied=choice is not None,
                     notes=(note, choice.note) if choice is not None and choice.note else (note,))


def _spread(pairs: Sequence[Pair]) -> list[Pair]:
    count = min(len(pairs), _LOOKED_AT)
    return [pairs[i * len(pairs) // count] for i in range(count)]


def _binary(pairs: Sequence[Pair]) -> bool:
    """Whether the first masks that are not all black, taken evenly, are black and white."""
    step = max(1, len(pairs) // _LOOKED_AT)
    decided = 0
    for start in range(step):
        for one in pairs[start::step]:
            answer = looks_binary(one.mask)
            if answer is False:
                return False
            decided += answer is True
            if decided == _LOOKED_AT:
                return True
    return decided > 0


def _in_colours(path: Path) -> bool:
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return image.mode in ("RGB", "RGBA")
    except Exception:  # Pillow raises a dozen types for damaged files; reading it says what is wrong
        return False


def _colour(text: str, key: str) -> tuple[int, int, int]:
    if not _HEX.match(text):
        raise ConfigError(f"[data] {key}: '{text}' is no colour; write #rrggbb, for example #ff8000")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
