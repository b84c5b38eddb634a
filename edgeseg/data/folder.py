"""The layout `folder`: `images/<split>/` beside `masks/<split>/`, or `images/` beside `masks/` without splits.

An image and its mask have the same path below their split, apart from the suffix. A mask is 8-bit gray or palette, one class
index a pixel, 255 = ignore. `dataset.json`, where there is one, may give `name`, `classes` and `palette`; other keys are let be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgeseg.core.config import DataSection
from edgeseg.core.errors import DataError
from edgeseg.core.files import read_json
from edgeseg.core.images import IMAGE_SUFFIXES
from edgeseg.data.base import SPLITS, Palette, Problem, Sample, Scan

SPLIT_NAMES: Final[dict[str, str]] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}
_JUNK: Final = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class FolderLayout:
    """`images/` + `masks/`, with or without splits."""

    about: str = "images/<split>/ + masks/<split>/ (or without splits), class-index masks, optional dataset.json"

    def claims(self, root: Path) -> bool:
        """Say whether there are folders `images` and `masks`."""
        return (root / "images").is_dir() and (root / "masks").is_dir()

    def scan(self, root: Path, section: DataSection, *, seed: int) -> Scan:
        """Pair images with masks; make the splits that are missing, seeded, and say so in `split_rule`."""
        problems: list[Problem] = []
        warnings: list[Problem] = []
        folders = {kind: _split_folders(root, kind, problems) for kind in ("images", "masks")}
        names = sorted(set(folders["images"]) | set(folders["masks"]), key=SPLITS.index) if any(folders.values()) else [""]
        splits: dict[str, tuple[Sample, ...]] = {}
        for split in names:
            splits[split] = _pair(root, split, folders["images"].get(split, root / "images" / split),
                                  folders["masks"].get(split, root / "masks" / split), problems, warnings)
        if names != [""]:
            warnings += _strays(root)
        rule = f"folders {', '.join(split for split in names if split)}"
        if names == [""]:
            splits, rule = draw_splits(splits[""], section, seed=seed)
        elif not splits.get("val") and splits.get("train"):
            splits["val"], splits["train"], drawn = _draw(splits["train"], section.val_share, "val", seed)
            rule = f"{rule}; val: {drawn} of train"
        name, classes, palette = _read_index(root, problems)
        return Scan(name=name, classes=classes, palette=palette, split_rule=rule, problems=tuple(problems), warnings=tuple(warnings),
                    splits={split: samples for split, samples in splits.items() if samples})


def draw_splits(samples: Sequence[Sample], section: DataSection, *, seed: int) -> tuple[dict[str, tuple[Sample, ...]], str]:
    """Draw train, val and (where `test_share` > 0) test by the rank of SHA-256(seed:id), which moves few frames when some are added."""
    rest = tuple(samples)
    splits: dict[str, tuple[Sample, ...]] = {}
    rules = []
    total = len(rest)
    for split, share in (("test", section.test_share), ("val", section.val_share)):
        if share > 0 and len(rest) > 1:
            splits[split], rest, drawn = _draw(rest, share * total / len(rest), split, seed)
            rules.append(f"{split}: {drawn}")
    splits["train"] = tuple(replace(sample, split="train") for sample in rest)
    rule = f"no splits in the folder; drawn with seed {seed}: {'; '.join(rules) or 'nothing, too few frames'}; train: {len(rest)} frames"
    return {split: splits[split] for split in SPLITS if split in splits}, rule


def _draw(samples: Sequence[Sample], share: float, split: str, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...], str]:
    """Take `share` of the samples (at least one, never all) for `split`; give taken, rest and the rule in words."""
    count = min(max(1, round(len(samples) * share)), len(samples) - 1)
    ranked = sorted(samples, key=lambda sample: hashlib.sha256(f"{seed}:{sample.id}".encode()).digest())
    chosen = {sample.id for sample in ranked[:count]}
    taken = tuple(replace(sample, split=split) for sample in samples if sample.id in chosen)
    rest = tuple(sample for sample in samples if sample.id not in chosen)
    return taken, rest, f"{count} frames by rank of SHA-256('{seed}:id')"


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
            warnings.append(Problem(file=path.relative_to(root).as_posix(), kind="not-read",
                                    message=f"not an image ({', '.join(sorted(IMAGE_SUFFIXES))}); it is not read"))
    return found


def _pair(root: Path, split: str, images: Path, masks: Path, problems: list[Problem], warnings: list[Problem]) -> tuple[Sample, ...]:
    by_kind: list[dict[str, Path]] = []
    for folder in (images, masks):
        stems: dict[str, Path] = {}
        for path in _files(root, folder, warnings):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in stems:
                problems.append(Problem(file=path.relative_to(root).as_posix(), kind="same-stem",
                                        message=f"same name as {stems[stem].name}, only the suffix differs; keep one of them"))
            else:
                stems[stem] = path
        by_kind.append(stems)
    frames, labels = by_kind
    for have, lack, kind, count in ((images, masks, "missing-label", len(frames)), (masks, images, "missing-image", len(labels))):
        if count and not lack.is_dir():  # a split that was never labelled: one problem, not one a file
            there, absent = have.relative_to(root).as_posix(), lack.relative_to(root).as_posix()
            message = f"holds {count} files, but there is no {absent}/; add it, or move {there}/ away"
            problems.append(Problem(file=there, kind=kind, message=message))
            return ()
    for stem in sorted(frames.keys() - labels.keys()):
        problems.append(_lonely(root, frames[stem], "missing-label", "mask", masks, stem, labels))
    for stem in sorted(labels.keys() - frames.keys()):
        problems.append(_lonely(root, labels[stem], "missing-image", "image", images, stem, frames))
    if not frames and not labels:
        problems.append(Problem(file=images.relative_to(root).as_posix(), kind="empty",
                                message=f"no images in {images.relative_to(root)} and no masks in {masks.relative_to(root)}"))
    prefix = f"{split}/" if split else ""
    both = sorted(frames.keys() & labels.keys())
    return tuple(Sample(id=prefix + stem, split=split, image=frames[stem], label=labels[stem]) for stem in both)


def _lonely(root: Path, path: Path, kind: str, partner: str, where: Path, stem: str, others: dict[str, Path]) -> Problem:
    place = where.relative_to(root).as_posix()
    message = f"no {partner} {place}/{stem}.*"
    near = [name for name in others if name.casefold() == stem.casefold() or name.startswith(f"{stem}_") or stem.startswith(f"{name}_")]
    if near:
        message += f"; {others[near[0]].name} may be meant: both need the same name apart from the suffix"
    return Problem(file=path.relative_to(root).as_posix(), kind=kind, message=message)


def _read_index(root: Path, problems: list[Problem]) -> tuple[str, tuple[str, ...], Palette]:
    """`name`, `classes`, `palette` of dataset.json, each empty where it does not say."""
    path = root / "dataset.json"
    name = root.resolve().name
    if not path.exists():
        return name, (), ()
    try:
        raw = read_json(path)
        if not isinstance(raw, dict):
            raise DataError("not an object")
        classes, palette = raw.get("classes", []), raw.get("palette", [])
        if not isinstance(classes, list) or not all(isinstance(c, str) and c for c in classes) or len(set(classes)) != len(classes):
            raise DataError("classes is not a list of different names")
        if not isinstance(palette, list) or not all(_is_colour(c) for c in palette):
            raise DataError("palette is not a list of [red, green, blue], 0..255 each")
        if palette and len(palette) != len(classes):
            raise DataError(f"palette has {len(palette)} colours for {len(classes)} classes")
        text = raw.get("name", name)
        return (text if isinstance(text, str) and text else name), tuple(classes), tuple((c[0], c[1], c[2]) for c in palette)
    except (DataError, ValueError) as error:
        problems.append(Problem(file="dataset.json", kind="bad-index", message=f"{error}; correct it or remove the file"))
        return name, (), ()


def _is_colour(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
