"""One annotation file of COCO, checked entry by entry: whatever is wrong becomes a `Problem` that names the entry.

https://cocodataset.org/#format-data; object detection (`segmentation` an annotation) and panoptic (`segments_info` an image).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgeseg.core.images import MAX_PIXELS
from edgeseg.data.base import Problem, counted, unsafe_name
from edgeseg.data.coco_masks import Annotation, wrong_with

_TOLD_PER_KIND: Final = 10
"""Problems of one kind that are named one by one; the rest is counted."""


@dataclass(frozen=True)
class Category:
    """A category: things are counted as objects, stuff (sky, grass) is not."""

    id: int
    name: str
    is_thing: bool


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic PNG."""

    id: int
    category_id: int
    crowd: bool


@dataclass(frozen=True)
class CocoImage:
    """One entry of `images`, with what annotates it. `category_ids` belong to `annotations`, one by one."""

    id: int
    file_name: str
    height: int
    width: int
    annotations: tuple[Annotation, ...] = ()
    category_ids: tuple[int, ...] = ()
    panoptic_png: str = ""
    segments: tuple[Segment, ...] = ()


@dataclass
class CocoFile:
    """What an annotation file says, without the entries that are wrong."""

    path: Path
    panoptic: bool = False
    categories: tuple[Category, ...] = ()
    images: list[CocoImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class _Teller:
    """Collects problems of one file; of each kind the first few, then how many more."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.counts: Counter[str] = Counter()
        self.told: list[Problem] = []

    def tell(self, kind: str, message: str) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= _TOLD_PER_KIND:
            self.told.append(Problem(file=self.file, kind=kind, message=message))

    def all(self) -> list[Problem]:
        more = [(kind, count - _TOLD_PER_KIND) for kind, count in self.counts.items() if count > _TOLD_PER_KIND]
        return self.told + [Problem(file=self.file, kind=kind, message=f"{counted(count, 'more problem')} of this kind")
                            for kind, count in more]


def read_coco_file(path: Path, *, name: str) -> CocoFile:
    """Parse and check an annotation file; `name` is what problems call it. Files it points at are not looked for."""
    found, teller = CocoFile(path), _Teller(name)
    try:
        raw = json.loads(path.read_bytes())
        if not isinstance(raw, dict):
            raise ValueError("not an object")
        for key in ("images", "annotations", "categories"):
            if not isinstance(raw.get(key), list):
                raise ValueError(f"has no list '{key}'")
    except (ValueError, RecursionError) as error:
        size = path.stat().st_size
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        cut = "; the file seems to be cut off" if isinstance(error, json.JSONDecodeError) and not error.doc.rstrip().endswith("}") else ""
        teller.tell("bad-index", f"not a COCO annotation file: {said} ({size} bytes){cut}; get the file again")
        found.problems = teller.all()
        return found
    found.categories = _categories(raw["categories"], teller)
    if raw["annotations"] and not raw["categories"]:
        annotations = counted(len(raw["annotations"]), "annotation")
        teller.tell("bad-index", f"lists no categories, so its {annotations} cannot have a class; get the file again, or export it with "
                    "its categories")
    images = {image.id: image for image in _images(raw["images"], teller)}
    found.panoptic = any(isinstance(entry, dict) and "segments_info" in entry for entry in raw["annotations"][:1])
    annotate = _panoptic if found.panoptic else _annotations
    listed = _Listed(images, frozenset(category.id for category in found.categories), _ids(raw["images"]), _ids(raw["categories"]),
                     no_categories=not raw["categories"])
    found.images = annotate(raw["annotations"], listed, teller)
    found.problems = teller.all()
    return found


@dataclass(frozen=True)
class _Listed:
    """What annotations may refer to. Those of an entry that is listed but wrong are left out: that entry was told, they follow from it."""

    images: dict[int, CocoImage]
    """Without the entries that are wrong."""
    category_ids: frozenset[int]
    """Without the entries that are wrong."""
    all_image_ids: frozenset[int]
    all_category_ids: frozenset[int]
    no_categories: bool
    """Whether there is no entry at all, which was told as well."""

    def told_image(self, key: int) -> bool:
        """Whether the image is left out and that was told."""
        return key in self.all_image_ids and key not in self.images

    def told_category(self, key: int) -> bool:
        """Whether the category is left out and that was told."""
        return self.no_categories or (key in self.all_category_ids and key not in self.category_ids)


def _ids(rows: list[Any], key: str = "id") -> frozenset[int]:
    """All ids that are whole numbers, of wrong entries too."""
    return frozenset(row[key] for row in rows if isinstance(row, dict) and type(row.get(key)) is int)


def _entries(rows: list[Any], what: str, teller: _Teller, keys: Mapping[str, type]) -> Iterator[dict[str, Any]]:
    """Entries that are objects and have `keys` of the right types; the others are told."""
    for index, row in enumerate(rows):
        wrong = next((key for key, kind in keys.items() if not isinstance(row, dict) or type(row.get(key)) is not kind), None)
        if wrong is None:
            yield row
        elif not isinstance(row, dict):
            teller.tell("bad-entry", f"{what} number {index} (from 0) is not an object")
        else:
            kind = {int: "a whole number", str: "text", list: "a list"}[keys[wrong]]
            teller.tell("bad-entry", f"{what} number {index} (from 0): {wrong} is {_short(row.get(wrong))}, expected {kind}")


def _categories(rows: list[Any], teller: _Teller) -> tuple[Category, ...]:
    by_id: dict[int, Category] = {}
    names: dict[str, int] = {}
    for row in _entries(rows, "category", teller, {"id": int, "name": str}):
        if row["id"] in by_id:
            both = f"'{by_id[row['id']].name}' and '{row['name']}'"
            teller.tell("duplicate-id", f"two categories have the id {row['id']} ({both}); give each its own")
        elif not row["name"].strip():
            teller.tell("bad-entry", f"category {row['id']} has an empty name")
        else:
            by_id[row["id"]] = Category(row["id"], row["name"], bool(row.get("isthing", 1)))
            first = names.setdefault(row["name"], row["id"])
            if first != row["id"]:  # both are kept: without one, the labels would lack its objects
                teller.tell("duplicate-name", f"categories {first} and {row['id']} are both called '{row['name']}'; rename one")
    return tuple(by_id[key] for key in sorted(by_id))


def _images(rows: list[Any], teller: _Teller) -> Iterator[CocoImage]:
    seen: dict[int, str] = {}
    names: dict[str, int] = {}
    for row in _entries(rows, "image", teller, {"id": int, "file_name": str, "height": int, "width": int}):
        name = row["file_name"]
        unsafe = unsafe_name(name)
        if row["id"] in seen:
            teller.tell("duplicate-id", f"two images have the id {row['id']} ('{seen[row['id']]}' and '{name}'); give each its own")
        elif unsafe:
            teller.tell("unsafe-path", f"image {row['id']}: file_name {_short(name)} {unsafe}")
        elif name in names:
            teller.tell("duplicate-name", f"images {names[name]} and {row['id']} are both the file '{name}'")
        elif row["height"] < 1 or row["width"] < 1 or row["height"] * row["width"] > MAX_PIXELS:
            teller.tell("bad-entry", f"image {row['id']} is {row['width']}x{row['height']}; 1 to {MAX_PIXELS} pixels are possible")
        else:
            yield CocoImage(row["id"], name, row["height"], row["width"])
        seen.setdefault(row["id"], name)
        names.setdefault(name, row["id"])


def _annotations(rows: list[Any], listed: _Listed, teller: _Teller) -> list[CocoImage]:
    ids: set[int] = set()
    of_image: dict[int, list[tuple[int, Annotation]]] = {key: [] for key in listed.images}
    for row in _entries(rows, "annotation", teller, {"id": int, "image_id": int, "category_id": int}):
        key, image, category = row["id"], listed.images.get(row["image_id"]), row["category_id"]
        if key in ids:
            teller.tell("duplicate-id", f"two annotations have the id {key}; give each its own")
        elif image is None:
            if not listed.told_image(row["image_id"]):
                teller.tell("unknown-image", f"annotation {key} belongs to image {row['image_id']}, which the file does not list")
        elif category not in listed.category_ids:
            if not listed.told_category(category):
                teller.tell("unknown-category", f"annotation {key} has the category {category}, which the file does not list (it lists "
                            f"{_few(sorted(listed.category_ids))})")
        elif wrong := wrong_with(row.get("segmentation"), image.height, image.width):
            teller.tell("bad-segmentation", f"annotation {key} (image {image.file_name}) {wrong}")
        else:
            one = Annotation(key, 0, bool(row.get("iscrowd", 0)), row["segmentation"])
            of_image[image.id].append((category, one))
        ids.add(key)
    return [
        CocoImage(image.id, image.file_name, image.height, image.width,
                  tuple(one for _, one in of_image[image.id]), tuple(category for category, _ in of_image[image.id]))
        for image in listed.images.values()
    ]


def _panoptic(rows: list[Any], listed: _Listed, teller: _Teller) -> list[CocoImage]:
    annotated: dict[int, CocoImage] = {}
    for row in _entries(rows, "annotation", teller, {"image_id": int, "file_name": str, "segments_info": list}):
        image, name = listed.images.get(row["image_id"]), row["file_name"]
        if image is None:
            if not listed.told_image(row["image_id"]):
                teller.tell("unknown-image", f"annotation of '{name}' belongs to image {row['image_id']}, which the file does not list")
        elif image.id in annotated:
            teller.tell("duplicate-id", f"image {image.id} is annotated twice, by '{annotated[image.id].panoptic_png}' and '{name}'")
        elif unsafe := unsafe_name(name):
            teller.tell("unsafe-path", f"annotation of image {image.id}: file_name {_short(name)} {unsafe}")
        else:
            segments = _segments(row["segments_info"], image, listed, teller)
            annotated[image.id] = CocoImage(image.id, image.file_name, image.height, image.width, panoptic_png=name, segments=segments)
    for key in sorted(listed.images.keys() - _ids(rows, "image_id")):
        teller.tell("missing-label", f"image {listed.images[key].file_name} has no panoptic annotation")
    return [annotated[key] for key in listed.images if key in annotated]


def _segments(rows: list[Any], image: CocoImage, listed: _Listed, teller: _Teller) -> tuple[Segment, ...]:
    found: dict[int, Segment] = {}
    for row in _entries(rows, f"image {image.file_name}, segment", teller, {"id": int, "category_id": int}):
        if row["id"] in found:
            teller.tell("duplicate-id", f"image {image.file_name}: two segments have the id {row['id']}")
        elif not 0 < row["id"] < 1 << 24:
            teller.tell("bad-entry", f"image {image.file_name}: segment id {row['id']} does not fit a PNG (1 to {(1 << 24) - 1})")
        else:
            if row["category_id"] not in listed.category_ids and not listed.told_category(row["category_id"]):
                teller.tell("unknown-category", f"image {image.file_name}: segment {row['id']} has the category {row['category_id']}, "
                            f"which the file does not list (it lists {_few(sorted(listed.category_ids))})")
            found[row["id"]] = Segment(row["id"], row["category_id"], bool(row.get("iscrowd", 0)))  # else its pixels were nobody's
    return tuple(found.values())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _few(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:6])) + (f", ... {ids[-1]}" if len(ids) > 6 else "")
