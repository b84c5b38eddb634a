"""The layout `folder`: `images/<split>/` beside `masks/<split>/`, `<split>/images/` beside `<split>/masks/`, or both without splits.

An image and its mask have the same path below their split, apart from the suffix. What masks hold is found out by looking at some of
them (`edgeseg.data.folder_masks`): class indices, black and white, colours of a palette. Instead of a mask there may be a folder of the
same name with one mask file an object, sorted into folders by class if there are several; or `<name>/images/` with one image beside
`<name>/masks/`.
`dataset.json`, where there is one, may give `name`, `classes`, `palette` and `ignore_colour`; other keys are let be.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeseg.core.config import DataSection
from edgeseg.core.errors import DataError
from edgeseg.core.files import read_json
from edgeseg.core.images import IMAGE_SUFFIXES
from edgeseg.data.base import SPLITS, Problem, Scan, counted, relative
from edgeseg.data.folder_masks import Index, Pair, read_masks
from edgeseg.data.splits import SPLIT_NAMES, complete_splits

_JUNK: Final = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class FolderLayout:
    """`images/` + `masks/`, with or without splits."""

    about: str = "images/<split>/ + masks/<split>/ (or without splits): class indices, black and white, colours, or a file an object"

    def claims(self, root: Path) -> bool:
        """Say whether there are folders `images` and `masks`, here or in the folders of splits, or a pair of them for each image."""
        if _has_both(root) or any(_has_both(path) for path in _split_first(root).values()):
            return True
        own = [path for path in _subfolders(root)[:2] if _has_both(path) and len(list((path / "images").iterdir())) == 1]
        return len(own) == 2

    def scan(self, root: Path, section: DataSection, *, seed: int) -> Scan:
        """Pair images with masks; make the splits that are missing, seeded, and say so in `split_rule`.

        Raises:
            ConfigError: `[data] palette`, `ignore_colour` or `classes` does not fit.
        """
        problems: list[Problem] = []
        warnings: list[Problem] = []
        pairs: list[Pair] = []
        places = _places(root, problems)
        for split, (images, masks) in places.items():
            pairs += _pair(root, split, images, masks, problems, warnings) if images != masks else _pair_each(root, split, images, problems)
        if _has_both(root) and "" not in places:
            warnings += _strays(root)
        name, index = _read_index(root, problems)
        read = read_masks(pairs, index, section, problems, root=root)
        by_split = {split: tuple(sample for sample in read.samples if sample.split == split) for split in places}
        splits, drawn = complete_splits(by_split, section, seed=seed)
        rule = drawn if "" in places else "; ".join(filter(None, (f"folders {', '.join(places)}", drawn)))
        return Scan(name=name, classes=read.classes, names_applied=read.names_applied, palette=read.palette, split_rule=rule,
                    problems=tuple(problems), warnings=tuple(warnings), notes=read.notes, splits=splits)


def _has_both(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def _subfolders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _split_first(root: Path) -> dict[str, Path]:
    """Folders of splits right below the root, by their canonical name."""
    return {SPLIT_NAMES[path.name.lower()]: path for path in _subfolders(root) if path.name.lower() in SPLIT_NAMES}


def _places(root: Path, problems: list[Problem]) -> dict[str, tuple[Path, Path]]:
    """Folders of images and of masks by split ("" = none); twice the same folder where each image has folders of its own."""
    if _has_both(root):
        folders = {kind: _split_folders(root, kind, problems) for kind in ("images", "masks")}
        names = sorted(set(folders["images"]) | set(folders["masks"]), key=SPLITS.index) if any(folders.values()) else [""]
        return {split: (folders["images"].get(split, root / "images" / split), folders["masks"].get(split, root / "masks" / split))
                for split in names}
    first = _split_first(root)
    if not first:
        return {"": (root, root)}
    order = [split for split in SPLITS if split in first]
    return {split: (first[split] / "images", first[split] / "masks") if _has_both(first[split]) else (first[split],) * 2 for split in order}


def _split_folders(root: Path, kind: str, problems: list[Problem]) -> dict[str, Path]:
    """Known split folders below `images` or `masks`, by their canonical name."""
    found: dict[str, Path] = {}
    for path in sorted((root / kind).iterdir()):
        split = SPLIT_NAMES.get(path.name.lower()) if path.is_dir() else None
        if split in found:
            problems.append(Problem(file=f"{kind}/{path.name}", kind="split-twice",
                                    message=f"{path.name} and {found[split].name} are both the {split} split; keep one folder"))
        elif split is not None:
            found[split] = path
    return found


def _strays(root: Path) -> list[Problem]:
    """What lies beside the split folders and is therefore not read."""
    found = []
    for kind in ("images", "masks"):
        for path in sorted((root / kind).iterdir()):
            known = path.is_dir() and path.name.lower() in SPLIT_NAMES
            if not known and not path.name.startswith(".") and path.name.lower() not in _JUNK:
                found.append(Problem(file=f"{kind}/{path.name}", kind="not-read", message="lies beside the split folders and is not read"))
    return found


def _files(root: Path, folder: Path, warnings: list[Problem]) -> list[Path]:
    """Image files below `folder` in sorted order; others are noted."""
    found = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.name.startswith(".") or path.name.lower() in _JUNK or path.is_dir():
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.append(path)
        else:
            warnings.append(Problem(file=relative(root, path), kind="not-read",
                                    message=f"not an image ({', '.join(sorted(IMAGE_SUFFIXES))}); it is not read"))
    return found


def _pair(root: Path, split: str, images: Path, masks: Path, problems: list[Problem], warnings: list[Problem]) -> list[Pair]:
    by_kind: list[dict[str, Path]] = []
    for folder in (images, masks):
        stems: dict[str, Path] = {}
        for path in _files(root, folder, warnings):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in stems:
                problems.append(Problem(file=relative(root, path), kind="same-stem",
                                        message=f"same name as {stems[stem].name}, only the suffix differs; keep one of them"))
            else:
                stems[stem] = path
        by_kind.append(stems)
    frames, labels = by_kind
    for have, lack, kind, count in ((images, masks, "missing-label", len(frames)), (masks, images, "missing-image", len(labels))):
        if count and not lack.is_dir():  # a split that was never labelled: one problem, not one a file
            there, absent = relative(root, have), relative(root, lack)
            message = f"holds {counted(count, 'file')}, but there is no {absent}/; add it, or move {there}/ away"
            problems.append(Problem(file=there, kind=kind, message=message))
            return []
    objects = _objects(frames, labels)
    for stem in sorted(frames.keys() - labels.keys() - objects.keys()):
        problems.append(_lonely(root, frames[stem], "missing-label", "mask", masks, stem, labels))
    for stem in sorted(labels.keys() - frames.keys() - {stem for stems in objects.values() for stem in stems}):
        problems.append(_lonely(root, labels[stem], "missing-image", "image", images, stem, frames))
    if not frames and not labels:
        problems.append(Problem(file=relative(root, images), kind="empty",
                                message=f"no images in {relative(root, images)} and no masks in {relative(root, masks)}"))
    prefix = f"{split}/" if split else ""
    pairs = [Pair(prefix + stem, split, frames[stem], labels[stem]) for stem in frames.keys() & labels.keys()]
    pairs += [Pair(prefix + stem, split, frames[stem], masks / stem, tuple(labels[key] for key in keys)) for stem, keys in objects.items()]
    return sorted(pairs, key=lambda pair: pair.id)


def _objects(frames: dict[str, Path], labels: dict[str, Path]) -> dict[str, list[str]]:
    """Masks that lie in a folder called like an image without a mask of its own, by that image."""
    objects: dict[str, list[str]] = defaultdict(list)
    for stem in sorted(labels.keys() - frames.keys()):
        owner = next((parent.as_posix() for parent in Path(stem).parents if parent.as_posix() in frames), None)
        if owner is not None and owner not in labels:
            objects[owner].append(stem)
    return dict(objects)


def _pair_each(root: Path, split: str, folder: Path, problems: list[Problem]) -> list[Pair]:
    """Pairs of `<name>/images/` (one image) and `<name>/masks/` (one file an object)."""
    pairs = []
    for path in _subfolders(folder):
        images, masks = _files(root, path / "images", []), _files(root, path / "masks", [])
        if len(images) != 1 or not masks:
            problems.append(Problem(file=relative(root, path), kind="missing-label" if images else "missing-image",
                                    message=f"holds {counted(len(images), 'image')} and {counted(len(masks), 'mask')}; expected one image "
                                            "and a mask an object"))
        else:
            prefix = f"{split}/" if split else ""
            pairs.append(Pair(prefix + path.name, split, images[0], path / "masks", tuple(masks)))
    return pairs


def _lonely(root: Path, path: Path, kind: str, partner: str, where: Path, stem: str, others: dict[str, Path]) -> Problem:
    place = relative(root, where)
    message = f"no {partner} {place}/{stem}.*"
    near = [name for name in others if name.casefold() == stem.casefold() or name.startswith(f"{stem}_") or stem.startswith(f"{name}_")]
    if near:
        message += f"; {others[near[0]].name} may be meant: both need the same name apart from the suffix"
    return Problem(file=relative(root, path), kind=kind, message=message)


def _read_index(root: Path, problems: list[Problem]) -> tuple[str, Index]:
    """`name`, and what dataset.json says of classes and colours; empty where it does not say."""
    path = root / "dataset.json"
    name = root.resolve().name
    if not path.exists():
        return name, Index()
    try:
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise DataError("not an object")
        classes, palette, ignored = raw.get("classes", []), raw.get("palette", []), raw.get("ignore_colour")
        if not isinstance(classes, list) or not all(isinstance(c, str) and c for c in classes) or len(set(classes)) != len(classes):
            raise DataError("classes is not a list of different names")
        if not isinstance(palette, list) or not all(_is_colour(c) for c in palette):
            raise DataError("palette is not a list of [red, green, blue], 0..255 each")
        if palette and len(palette) != len(classes):
            raise DataError(f"palette has {len(palette)} colours for {len(classes)} classes")
        if ignored is not None and not _is_colour(ignored):
            raise DataError("ignore_colour is not [red, green, blue], 0..255 each")
        text = raw.get("name", name)
        colours = tuple((c[0], c[1], c[2]) for c in palette)
        index = Index(tuple(classes), colours, (ignored[0], ignored[1], ignored[2]) if ignored is not None else None)
        return (text if isinstance(text, str) and text else name), index
    except (DataError, ValueError) as error:
        problems.append(Problem(file="dataset.json", kind="bad-index", message=f"{error}; correct it or remove the file"))
        return name, Index()


def _is_colour(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
