"""The layout `voc`: PASCAL VOC, JPEGImages/ beside SegmentationClass/, splits in ImageSets/Segmentation/*.txt.

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (development kit, section 2.4). Masks hold class indices as palette or gray PNG, 255 is
void; masks in colours are read by the palette. SegmentationObject/ numbers the objects; an object has the class of most of its pixels.

Who names the classes: class_names.txt, labels.txt or labelmap.txt (CVAT); else `[data] classes`; else, where masks have a palette, the
20 classes of VOC; masks of gray values alone leave them unnamed.
"""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError, DataError
from edgeseg.core.images import IGNORE_INDEX, IMAGE_SUFFIXES, ClassMap, open_image
from edgeseg.core.instances import InstanceLabel
from edgeseg.data.base import SPLITS, Palette, Problem, Sample, Scan, counted, default_palette, relative, unsafe_name
from edgeseg.data.choice import MAX_CLASSES, Choice, choose
from edgeseg.data.labels import ColourMask
from edgeseg.data.objects import ObjectMask, instance_label
from edgeseg.data.splits import complete_splits

VOC_CLASSES: Final = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
_VOID_COLOUR: Final = (224, 224, 192)
"""Entry 255 of VOC's colour map."""
_COLOURS: Final = ("RGB", "RGBA")
_LOOKED_AT: Final = 3
"""Masks whose mode is taken for that of all."""
_NAME_FILES: Final = ("class_names.txt", "labels.txt", "labelmap.txt")


@dataclass(frozen=True)
class VocLabel:
    """Reads a mask of SegmentationClass, and the objects beside it."""

    palette: Palette
    choice: Choice | None
    label: Path
    objects: Path | None

    def __call__(self, path: Path) -> ClassMap:
        """Class map uint8 [H, W], 255 = void."""
        label = ColourMask(self.palette, _VOID_COLOUR)(path)
        return label if self.choice is None else self.choice.table()[label]

    def instances(self) -> InstanceLabel:
        """Give the objects in the order of their numbers; those of classes that were not chosen are left out.

        Raises:
            DataError: SegmentationObject and SegmentationClass do not fit together.
        """
        label = self(self.label)
        numbers = _numbers(self.objects) if self.objects is not None else np.zeros_like(label, dtype=np.int64)
        if self.objects is not None and numbers.shape != label.shape:
            raise DataError(f"SegmentationObject/{self.objects.name}: {numbers.shape[1]}x{numbers.shape[0]}, SegmentationClass has "
                            f"{label.shape[1]}x{label.shape[0]}; both need the same size")
        objects = []
        for number in np.unique(numbers).tolist():
            mask = numbers == number
            classes = np.bincount(label[mask], minlength=256)[:IGNORE_INDEX]
            if number not in (0, IGNORE_INDEX) and classes.any():
                objects.append(ObjectMask(mask, int(classes.argmax())))
        height, width = label.shape
        return instance_label((height, width), objects)


def _numbers(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Object number of each pixel; colours count as numbers of their own, black and the colour of void as 0."""
    image = open_image(path, name=f"SegmentationObject/{path.name}")
    array = np.asarray(image.convert("RGB") if image.mode in ("RGB", "RGBA") else image).astype(np.int64)
    if array.ndim == 2:
        return array
    packed = array @ np.array([65536, 256, 1])
    packed[packed == int(np.array(_VOID_COLOUR) @ np.array([65536, 256, 1]))] = 0
    return np.unique(packed, return_inverse=True)[1].reshape(packed.shape) + int(packed.min() != 0)


@dataclass(frozen=True)
class VocLayout:
    """A folder VOC2012 (or one that holds it) with JPEGImages and SegmentationClass."""

    about: str = "PASCAL VOC: JPEGImages + SegmentationClass (+ SegmentationObject), ImageSets/Segmentation/*.txt"

    def claims(self, root: Path) -> bool:
        """Say whether there is a folder SegmentationClass beside JPEGImages, here or in VOCdevkit/VOC*."""
        return bool(_bases(root))

    def scan(self, root: Path, section: DataSection, *, seed: int) -> Scan:
        """Read the lists of the splits and pair images with masks.

        Raises:
            ConfigError: several years in one folder, or `[data] classes` names an unknown class.
        """
        bases = _bases(root)
        if len(bases) > 1:
            raise ConfigError(f"{root} holds several VOC data sets: {', '.join(relative(root, base) for base in bases)}; give one of them")
        base = bases[0]
        problems: list[Problem] = []
        images = _by_stem(root, base / "JPEGImages", problems)
        masks = _by_stem(root, base / "SegmentationClass", problems)
        known, palette, notes = _classes(root, base, masks, section.classes)
        choice = choose(section.classes, known) if known else None
        mapped = choice if choice is not None and choice.changes else None
        label_palette = palette or default_palette(256)[:IGNORE_INDEX]
        lists, rule = _read_lists(root, base, problems)
        lists, rule, left_out = _drop_unlabelled(lists, rule, masks)
        notes += left_out
        if any(_mode(masks[stem]) in _COLOURS for stem in sorted(masks)[:_LOOKED_AT]):
            source = "the palette of labelmap.txt" if palette else "PASCAL VOC's colour map"
            void = ",".join(map(str, _VOID_COLOUR))
            notes.append(f"masks are pictures in colours: each pixel is the class that {source} gives its colour, {void} is void; a colour "
                         "of none is an error")
        if not lists:
            bare = len(images.keys() - masks.keys())
            notes += [f"not read: {counted(bare, 'image')} without a mask"] if bare else []
            lists, rule = {"": dict.fromkeys(sorted(masks), "")}, ""
        objects = {path.stem: path for path in _files(base / "SegmentationObject")}
        splits = {}
        for split, names in lists.items():
            samples = []
            for stem, where in names.items():
                if _there(root, stem, where, images, masks, base, problems):
                    label = VocLabel(label_palette, mapped, masks[stem], objects.get(stem))
                    samples.append(Sample(
                        id=f"{split}/{stem}" if split else stem, split=split, image=images[stem], label=masks[stem], read_label=label,
                        read_instances=label.instances if stem in objects else None, reading=_reading(label, palette),
                        label_files=(masks[stem], *((objects[stem],) if stem in objects else ())),
                    ))
            splits[split] = tuple(samples)
        splits, drawn = complete_splits(splits, section, seed=seed)
        notes += [choice.note] if choice is not None and choice.note else []
        return Scan(
            name=root.resolve().name, splits=splits, split_rule="; ".join(filter(None, (rule, drawn))),
            classes=choice.classes if choice is not None else (), names_applied=choice is not None, fixed_classes=choice is not None,
            palette=choice.palette(label_palette[: len(known)]) if choice is not None else (),
            problems=tuple(problems), notes=tuple(notes),
        )


def _reading(label: VocLabel, palette: Palette) -> str:
    chosen = f" classes {label.choice.index_of}" if label.choice is not None else ""
    return f"voc{f' palette {palette}' if palette else ''}{chosen}"


def _bases(root: Path) -> list[Path]:
    places = [root, *sorted(root.glob("VOC*")), *sorted(root.glob("VOCdevkit/VOC*"))]
    return [place for place in places if (place / "SegmentationClass").is_dir() and (place / "JPEGImages").is_dir()]


def _files(folder: Path) -> list[Path]:
    """Image files of a folder, by name; none where it does not exist."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))


def _by_stem(root: Path, folder: Path, problems: list[Problem]) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in _files(folder):
        if path.stem in stems:
            problems.append(Problem(file=relative(root, path), kind="same-stem",
                                    message=f"same name as {stems[path.stem].name}, only the suffix differs; keep one of them"))
        stems.setdefault(path.stem, path)
    return stems


def _read_lists(root: Path, base: Path, problems: list[Problem]) -> tuple[dict[str, dict[str, str]], str]:
    """Names by split, each with the place it stands at in words; train and val, else trainval ("" = to be drawn), and test."""
    lists: dict[str, dict[str, str]] = {}
    used = []
    folder = base / "ImageSets" / "Segmentation"
    have = [name for name in ("train", "val", "trainval", "test") if (folder / f"{name}.txt").is_file()]
    if "trainval" in have:
        have = [name for name in have if name != "trainval"] if "train" in have else [name for name in have if name != "val"]
    seen: dict[str, str] = {}
    for name in have:
        path = folder / f"{name}.txt"
        used.append(relative(root, path))
        names = lists.setdefault("train" if name == "trainval" else name, {})
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            problems.append(Problem(file=relative(root, path), kind="bad-index", message="not UTF-8 text; save the list as UTF-8"))
            continue
        for number, line in enumerate(lines, start=1):
            stem, where = line.strip(), f"{relative(root, path)} line {number}"
            if not stem:
                continue
            if wrong := unsafe_name(stem):
                problems.append(Problem(file=relative(root, path), kind="unsafe-path", message=f"line {number}: '{stem[:60]}' {wrong}"))
            elif stem in seen:
                problems.append(Problem(file=relative(root, path), kind="duplicate-id",
                                        message=f"line {number}: '{stem}' stands in {seen[stem]} already; keep it once"))
            else:
                names[stem] = seen[stem] = where
        if name != "test" and not any(line.strip() for line in lines):
            problems.append(Problem(file=relative(root, path), kind="bad-index",
                                    message="the list names no image; write one name a line, or remove it"))
    return lists, f"lists {', '.join(used)}" if used else ""


def _drop_unlabelled(
    lists: dict[str, dict[str, str]], rule: str, masks: Mapping[str, Path]
) -> tuple[dict[str, dict[str, str]], str, list[str]]:
    """Leave out a test list of which nothing is labelled: VOC keeps those masks to itself."""
    test = lists.get("test", {})
    if test and not any(name in masks for name in test):
        note = f"test.txt names {counted(len(test), 'image')}, none of which has a mask: test is left out"
        return {split: lists[split] for split in SPLITS if split in lists and split != "test"}, f"{rule}; without test", [note]
    return {split: lists[split] for split in SPLITS if split in lists}, rule, []


def _there(
    root: Path, stem: str, where: str, images: Mapping[str, Path], masks: Mapping[str, Path], base: Path, problems: list[Problem]
) -> bool:
    file = where.split(" line ")[0] if where else relative(root, masks[stem])
    said = f"line {where.rsplit(' ', 1)[1]} names '{stem}', and there is" if where else "there is"
    partners = (("missing-image", images, "JPEGImages"), ("missing-label", masks, "SegmentationClass"))
    missing = [(kind, folder) for kind, have, folder in partners if stem not in have]
    problems += [Problem(file=file, kind=kind, message=f"{said} no {relative(root, base / folder)}/{stem}.*") for kind, folder in missing]
    return not missing


def _classes(root: Path, base: Path, masks: Mapping[str, Path], wanted: tuple[str, ...]) -> tuple[tuple[str, ...], Palette, list[str]]:
    """Classes of the data set (none where nobody names them), colours where a file gives them, and notes."""
    for folder in dict.fromkeys((base, base.parent, root)):
        for name in _NAME_FILES:
            path = folder / name
            if path.is_relative_to(root) and path.is_file():
                classes, palette = _read_names(path)
                return classes, palette, [f"classes are named by {relative(root, path)}"]
    if any(_mode(masks[stem]) == "P" for stem in sorted(masks)[:_LOOKED_AT]):
        if not wanted or set(wanted) <= set(VOC_CLASSES):
            return VOC_CLASSES, (), ["nobody names the classes, and masks have a palette: the 20 classes of PASCAL VOC are assumed "
                                     "([data] classes or class_names.txt says otherwise)"]
        return (), (), []
    return (), (), []


def _read_names(path: Path) -> tuple[tuple[str, ...], Palette]:
    """A name a line; in labelmap.txt `name:R,G,B:parts:actions`. A line __ignore__ (labelme) is no class."""
    classes, colours = [], []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name}: not UTF-8 text; save it as UTF-8") from error
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#") or text == "__ignore__":
            continue
        name, _, rest = text.partition(":") if path.name == "labelmap.txt" else (text, "", "")
        classes.append(name)
        parts = rest.split(":")[0].split(",")
        if rest and len(parts) == 3 and all(part.strip().isdigit() and int(part) < 256 for part in parts):
            colours.append((int(parts[0]), int(parts[1]), int(parts[2])))
    if len(set(classes)) != len(classes) or not 0 < len(classes) <= MAX_CLASSES:
        raise DataError(f"{path.name}: expected one name a line, each once, {MAX_CLASSES} at most")
    return tuple(classes), tuple(colours) if len(colours) == len(classes) else ()


def _mode(path: Path) -> str:
    """What a mask's pixels are, as Pillow names it: `P` = palette, `RGB` = colours; empty where it cannot be read."""
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            with Image.open(path) as image:
                return str(image.mode)
    except Exception:  # Pillow raises a dozen types for damaged files; reading it says what is wrong
        return ""
