"""The layout `coco`: JSON files of polygons and RLE, or of panoptic PNGs, beside folders of images.

Classes are `background`, then the categories in the order of their ids; a category that is itself called background becomes class 0. Where
annotations overlap the smaller is on top, crowds are 255, an image without annotation is all background. Of panoptic labels, 0 is 255.

Which files: `[data] annotations`, else those in annotations/ (or beside the images) that differ only in the name of the split, as
instances_train2017.json and instances_val2017.json do; of several such sets the one that covers most splits, instances before panoptic.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError, DataError
from edgeseg.core.images import IGNORE_INDEX, ClassMap, open_image
from edgeseg.core.instances import InstanceLabel
from edgeseg.data.base import SPLITS, Problem, Sample, Scan, counted, relative, unsafe_name
from edgeseg.data.choice import BACKGROUND, Choice, choose, is_background
from edgeseg.data.coco_file import CocoFile, CocoImage, read_coco_file
from edgeseg.data.coco_masks import CocoLabel
from edgeseg.data.objects import ObjectMask, instance_label
from edgeseg.data.splits import SPLIT_NAMES, complete_splits

_SPLIT_WORD: Final = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?![a-z])")
_NO_MASKS: Final = ("captions", "person_keypoints", "image_info", "images_info", "stuff_")
"""How files of COCO begin that hold other things than objects to segment."""
_INDEX_NAMES: Final = ("*annotations*.json", "instances*.json", "panoptic*.json", "*coco*.json")
_PROBED: Final = 50
"""Images looked for in each folder to find the folder an annotation file belongs to."""


@dataclass(frozen=True)
class PanopticLabel:
    """Reads a panoptic PNG: a segment's id is R + 256 G + 65536 B (https://cocodataset.org/#format-data); 0 = unlabelled."""

    png: Path
    segments: tuple[tuple[int, int, bool, bool], ...]
    """Segment id, class index, crowd, thing; by rising id."""

    def __call__(self, path: Path) -> ClassMap:
        """Class map uint8 [H, W]; unlabelled pixels and crowds are 255."""
        values = [IGNORE_INDEX if crowd and index else index for _, index, crowd, _ in self.segments]
        return np.array([IGNORE_INDEX, *values], dtype=np.uint8)[self._numbers()]

    def instances(self) -> InstanceLabel:
        """Give the segments that are things."""
        numbers = self._numbers()
        things = [(number, index, crowd) for number, (_, index, crowd, thing) in enumerate(self.segments, start=1) if thing]
        height, width = numbers.shape
        return instance_label((height, width), [ObjectMask(numbers == number, index, crowd) for number, index, crowd in things])

    def _numbers(self) -> NDArray[np.int64]:
        """Segment of each pixel, numbered from 1; 0 = unlabelled."""
        image = open_image(self.png, name=self.png.name)
        if image.mode not in ("RGB", "RGBA"):
            raise DataError(f"{self.png.name}: a panoptic PNG holds segment ids in R, G and B; this one has mode {image.mode}")
        ids_HW = np.asarray(image)[:, :, :3].astype(np.int64) @ np.array([1, 256, 65536])
        known = np.array([0, *(row[0] for row in self.segments)])
        numbers: NDArray[np.int64] = np.minimum(np.searchsorted(known, ids_HW), len(known) - 1)
        wrong = ids_HW[known[numbers] != ids_HW]
        if wrong.size:
            raise DataError(f"{self.png.name}: segment {int(wrong[0])} ({wrong.size} pixels) is not among the {len(self.segments)} that "
                            "the annotation file lists for this image")
        return numbers


@dataclass(frozen=True)
class CocoLayout:
    """Annotation files of COCO and the images they name."""

    about: str = "COCO: JSON of polygons, RLE and crowds, or panoptic PNG + JSON, beside folders of images"

    def claims(self, root: Path) -> bool:
        """Say whether there are JSON files in annotations/, or some named like annotations in the folder or a split's folder."""
        return bool(_index_files(root))

    def scan(self, root: Path, section: DataSection, *, seed: int) -> Scan:
        """Read the annotation files and look for every image they name.

        Raises:
            ConfigError: several sets of files could be meant, `[data] annotations` names none, or `[data] classes` an unknown class.
        """
        paths, rule, notes = _choose_files(root, section.annotations)
        files = {split: read_coco_file(path, name=relative(root, path)) for split, path in paths.items()}
        problems = [problem for file in files.values() for problem in file.problems]
        problems += _differing_categories(root, files)
        sound = next((file for file in files.values() if file.categories), None)  # a file cut in half lists none
        names = {category.id: category.name for category in (sound.categories if sound else ())}
        background = next((key for key, name in names.items() if is_background(name)), None)
        others = [key for key in names if key != background]
        choice = choose(section.classes, (BACKGROUND if background is None else names[background], *(names[key] for key in others)))
        index_of = {key: choice.index_of[place] for place, key in enumerate(others, start=1)}
        if background is not None:
            index_of[background] = choice.index_of[0]
        splits: dict[str, tuple[Sample, ...]] = {}
        for split, file in files.items():
            folder = _image_folder(root, file)
            notes += [] if not file.images else [f"images of {relative(root, file.path)} are taken from {relative(root, folder)}/"]
            splits[split] = _samples(root, split, file, folder, index_of, choice, problems)
        splits, drawn = complete_splits(splits, section, seed=seed)
        bare = sum(not image.annotations and not image.segments for file in files.values() for image in file.images)
        if bare and not any(file.problems for file in files.values()):  # else annotations were left out
            notes.append(f"{counted(bare, 'image')} without annotation: all background")
        notes += [choice.note] if choice.note else []
        return Scan(name=root.resolve().name, splits=splits, split_rule="; ".join(filter(None, (rule, drawn))), classes=choice.classes,
                    names_applied=True, fixed_classes=True, problems=tuple(problems), notes=tuple(notes))


def _index_files(root: Path) -> list[Path]:
    """JSON files that may be annotations, from names alone."""
    found = set((root / "annotations").glob("*.json"))
    places = [root, *(path for path in root.iterdir() if path.is_dir() and path.name.lower() in SPLIT_NAMES)]
    for place in places:
        found.update(path for pattern in _INDEX_NAMES for path in place.glob(pattern))
    return sorted(path for path in found if path.is_file() and not path.name.startswith((*_NO_MASKS, ".")))


def _split_of(name: str) -> str:
    """Split that a file name speaks of; empty where it speaks of none."""
    word = _SPLIT_WORD.search(name.lower())
    return SPLIT_NAMES[word[1]] if word else ""


def _choose_files(root: Path, named: Sequence[str]) -> tuple[dict[str, Path], str, list[str]]:
    """Annotation file by split ("" = splits are to be drawn), the rule in words, and notes."""
    if named:
        return _named_files(root, named), f"[data] annotations: {', '.join(named)}", []
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    every = [relative(root, path) for path in _index_files(root)]
    for name in every:
        groups[_SPLIT_WORD.sub("*", name.lower(), count=1)].setdefault(_split_of(name), name)

    def rank(files: dict[str, str]) -> tuple[int, bool]:
        return len(files.keys() - {""}), not all(_is_panoptic(root / name) for name in files.values())

    highest = max(map(rank, groups.values()))
    best = [list(files.values()) for files in groups.values() if rank(files) == highest]
    if len(best) > 1:
        shown = " or ".join(", ".join(names) for names in best)
        raise ConfigError(f"{root}: several sets of annotation files could be meant: {shown}; name those to use: "
                          f'[data] annotations = ["{best[0][0]}"]')
    used = sorted(best[0], key=lambda name: ("", *SPLITS).index(_split_of(name)))
    left = [name for name in every if name not in used]
    more = ", ..." if len(left) > 6 else ""
    notes = [f"annotation files not read: {', '.join(left[:6])}{more} ([data] annotations chooses)"] if left else []
    return {_split_of(name): root / name for name in used}, f"annotation files {', '.join(used)}", notes


def _named_files(root: Path, named: Sequence[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for name in named:
        if wrong := unsafe_name(name):
            raise ConfigError(f"[data] annotations: '{name}' {wrong.replace('image folder', 'data folder')}")
        if not (root / name).is_file():
            raise ConfigError(f"[data] annotations: {root / name} does not exist; names are relative to [data] dir")
        split = _split_of(name) if len(named) > 1 else ""
        if len(named) > 1 and (not split or split in files):
            why = f"'{name}' names no split" if not split else f"'{files[split].relative_to(root)}' and '{name}' are both the {split} split"
            raise ConfigError(f"[data] annotations: {why}; give one file with train, val or test in its name for each, or one file for all")
        files[split] = root / name
    return {split: files[split] for split in ("", *SPLITS) if split in files}


def _is_panoptic(path: Path) -> bool:
    return path.with_suffix("").is_dir()


def _differing_categories(root: Path, files: Mapping[str, CocoFile]) -> list[Problem]:
    sound = [file for file in files.values() if file.categories]
    problems = []
    for file in sound[1:]:
        mine, first = ({category.id: category.name for category in one.categories} for one in (file, sound[0]))
        if mine != first:
            key = min(key for key in mine.keys() | first.keys() if mine.get(key) != first.get(key))
            problems.append(Problem(
                file=relative(root, file.path), kind="differing-categories",
                message=f"category {key} is '{mine.get(key, 'absent')}', in {sound[0].path.name} it is '{first.get(key, 'absent')}'; "
                        "all splits need the same categories"))
    return problems


def _image_folder(root: Path, file: CocoFile) -> Path:
    """Folder that holds most of the first images of an annotation file."""
    rest = _SPLIT_WORD.search(file.path.stem.lower())
    named = file.path.stem[rest.start():] if rest else file.path.stem
    folders = [file.path.parent, root, root / named, root / "images" / named, root / "images", root / "JPEGImages"]
    for parent in (root, root / "images"):
        if parent.is_dir():
            folders += sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = [image.file_name for image in file.images[:_PROBED]]
    return max(dict.fromkeys(folders), key=lambda folder: sum((folder / name).is_file() for name in names))


def _samples(
    root: Path, split: str, file: CocoFile, folder: Path, index_of: Mapping[int, int], choice: Choice, problems: list[Problem]
) -> tuple[Sample, ...]:
    """One sample an image that is there; problems for the others."""
    things = {category.id for category in file.categories if category.is_thing}
    pngs = _png_folder(root, file)
    reading = "coco" + (f" classes {choice.index_of}" if choice.changes else "")

    def tell(kind: str, message: str) -> None:
        problems.append(Problem(file=relative(root, file.path), kind=kind, message=message))

    samples: dict[str, Sample] = {}
    for image in file.images:
        path, png = folder / image.file_name, pngs / image.panoptic_png
        key = (f"{split}/" if split else "") + Path(image.file_name).with_suffix("").as_posix()
        if not path.is_file():
            tell("missing-image", f"names the image '{image.file_name}', and {relative(root, folder)}/ does not hold it")
        elif key in samples:
            tell("same-stem", f"'{image.file_name}' and '{samples[key].image.name}' differ only in the suffix; rename one")
        elif file.panoptic and not png.is_file():
            tell("missing-label", f"names the panoptic PNG '{image.panoptic_png}', and {relative(root, pngs)}/ does not hold it")
        elif file.panoptic:
            rows = ((one.id, index_of.get(one.category_id, 0), one.crowd, one.category_id in things) for one in image.segments)
            panoptic = PanopticLabel(png, tuple(sorted(rows)))
            samples[key] = Sample(id=key, split=split, image=path, label=png, label_files=(png, file.path), reading=reading,
                                  read_label=panoptic, read_instances=panoptic.instances)
        else:
            label = _label(image, index_of)
            samples[key] = Sample(id=key, split=split, image=path, label=file.path, reading=reading,
                                  read_label=label, read_instances=label.instances)
    return tuple(samples[key] for key in sorted(samples))


def _label(image: CocoImage, index_of: Mapping[int, int]) -> CocoLabel:
    pairs = zip(image.annotations, image.category_ids, strict=True)
    return CocoLabel(image.height, image.width, tuple(replace(one, class_index=index_of.get(category, 0)) for one, category in pairs))


def _png_folder(root: Path, file: CocoFile) -> Path:
    """Folder of panoptic PNGs: called like its JSON file, beside it or in the data set's folder."""
    beside = file.path.with_suffix("")
    return beside if beside.is_dir() or not (root / file.path.stem).is_dir() else root / file.path.stem
