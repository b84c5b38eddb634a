"""The layout `coco`: polygons, run lengths, crowds, panoptic PNGs; and everything that may be wrong with an annotation file."""

from __future__ import annotations

import copy
import json
import random
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_tools import HW, boxes_of, coco_index, frame, painted, rectangle, save, write_coco, write_json
from PIL import Image

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError, DataError, EdgesegError
from edgeseg.data.base import Dataset, Sample
from edgeseg.data.check import check_dataset
from edgeseg.data.coco_masks import rasterise, run_lengths, wrong_with
from edgeseg.data.dataset import load_dataset
from edgeseg.data.store import read_sample


def load(root: Path, *, need: tuple[str, ...] = (), **changes: Any) -> Dataset:
    return load_dataset(DataSection(dir=str(root), **changes), seed=0, need=need)


def only(data: Dataset) -> Sample:
    (sample,) = [sample for samples in data.splits.values() for sample in samples]
    return sample


def one_image(root: Path, **changes: Any) -> dict[str, Any]:
    """One image and its index, not yet written."""
    save(root / "images" / "0000.png", frame(0))
    return {**coco_index([0]), **changes}


def put(root: Path, index: object) -> Path:
    write_json(root / "annotations.json", index)
    return root


@pytest.fixture
def three(tmp_path: Path) -> Path:
    write_coco(tmp_path)
    return tmp_path


def test_polygons_become_class_maps_and_objects(three: Path) -> None:
    data = load(three, need=("train", "val"))
    assert data.classes == ("background", "leaf", "stone")
    assert data.split_rule == ("annotation files annotations/instances_train2017.json, annotations/instances_val2017.json, "
                               "annotations/instances_test2017.json")
    assert data.splits["val"][1].id == "val/0004"
    for number, sample in enumerate([sample for samples in data.splits.values() for sample in samples]):
        pixels, label = read_sample(sample, num_classes=3)
        np.testing.assert_array_equal(pixels, frame(number))
        np.testing.assert_array_equal(label, painted(number))
        assert sample.read_instances is not None
        found = sample.read_instances()
        assert found.boxes_N4.tolist() == [[float(v) for v in row[:4]] for row in boxes_of(number)]
        assert found.classes_N.tolist() == [1, 2]
        assert not found.crowd_N.any()
        assert [int(mask.sum()) for mask in found.masks_NHW] == [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1, _ in boxes_of(number)]


def test_the_smaller_lies_on_top_whatever_the_order(tmp_path: Path) -> None:
    index = one_image(tmp_path)
    index["annotations"].reverse()
    np.testing.assert_array_equal(only(load(put(tmp_path, index))).read_label(Path()), painted(0))


def test_crowds_are_ignored_and_lie_below(tmp_path: Path) -> None:
    index = one_image(tmp_path)
    everything = {"size": list(HW), "counts": [0, HW[0] * HW[1]]}
    index["annotations"].append({"id": 9, "image_id": 0, "category_id": 3, "iscrowd": 1, "segmentation": everything})
    sample = only(load(put(tmp_path, index)))
    label = sample.read_label(Path())
    np.testing.assert_array_equal(label, np.where(painted(0) == 0, 255, painted(0)))
    assert sample.read_instances is not None
    found = sample.read_instances()
    assert found.crowd_N.tolist() == [False, False, True]


def test_runs_are_decoded_as_pycocotools_does() -> None:
    from pycocotools import mask as coder

    for seed in range(40):
        rng = np.random.default_rng(seed)
        hw = tuple(rng.integers(1, 60, 2).tolist())
        mask = np.asfortranarray(rng.random(hw) < (0.02, 0.5, 0.98)[seed % 3], dtype=np.uint8)
        packed = coder.encode(mask)["counts"].decode()
        runs = run_lengths(packed)
        assert not wrong_with({"size": list(hw), "counts": packed}, *hw)
        for counts in (packed, runs):
            np.testing.assert_array_equal(rasterise({"size": list(hw), "counts": counts}, *hw), mask.astype(bool))
        polygons = [rng.uniform(-10, 70, 2 * int(rng.integers(3, 9))).tolist() for _ in range(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycocotools warns with numpy 2
            expected = coder.decode(coder.merge(coder.frPyObjects(polygons, 60, 60)))
        np.testing.assert_array_equal(rasterise(polygons, 60, 60), expected.astype(bool))


def test_an_image_without_annotation_is_background(tmp_path: Path) -> None:
    index = one_image(tmp_path, annotations=[])
    data = load(put(tmp_path, index))
    assert not only(data).read_label(Path()).any()
    assert "1 image without annotation: all background" in data.notes


def test_category_0_called_background_is_class_0(tmp_path: Path) -> None:
    index = one_image(tmp_path)
    index["categories"] = [{"id": 7, "name": "stone"}, {"id": 0, "name": "_background_"}, {"id": 3, "name": "leaf"}]
    data = load(put(tmp_path, index))
    assert data.classes == ("_background_", "leaf", "stone")
    np.testing.assert_array_equal(only(data).read_label(Path()), painted(0))


def test_category_0_that_is_a_thing_is_class_1(tmp_path: Path) -> None:
    index = one_image(tmp_path)
    index.update(coco_index([0], ids=(0, 7)))
    data = load(put(tmp_path, index))
    assert data.classes == ("background", "leaf", "stone")
    np.testing.assert_array_equal(only(data).read_label(Path()), painted(0))


def test_classes_can_be_chosen(three: Path) -> None:
    every, some = load(three), load(three, classes=("stone",))
    assert some.classes == ("background", "stone")
    assert some.sha256 != every.sha256
    sample = some.splits["train"][0]
    np.testing.assert_array_equal(sample.read_label(Path()), (painted(0) == 2).astype(np.uint8))
    assert sample.read_instances is not None
    assert sample.read_instances().classes_N.tolist() == [1]
    assert any("2 classes chosen; the rest of the data's (1) is background" in note for note in some.notes)
    turned = load(three, classes=("background", "stone", "leaf"))
    np.testing.assert_array_equal(turned.splits["train"][0].read_label(Path()), np.array([0, 2, 1])[painted(0)])
    with pytest.raises(ConfigError, match="no class 'ston'; did you mean 'stone'"):
        load(three, classes=("ston",))


def test_the_hash_follows_the_annotations(three: Path) -> None:
    before = load(three).sha256
    path = three / "annotations/instances_val2017.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["annotations"][0]["category_id"] = 7
    write_json(path, index)
    assert load(three).sha256 != before


def broken(change: str, index: dict[str, Any]) -> None:
    """Break an index in one way."""
    first = index["annotations"][0]
    if change == "runs":
        first["segmentation"] = {"size": list(HW), "counts": [100, 5]}
    elif change == "packed runs":
        first["segmentation"] = {"size": list(HW), "counts": "92"}
    elif change == "odd character":
        first["segmentation"] = {"size": list(HW), "counts": "9\x7f"}
    elif change == "endless run":
        first["segmentation"] = {"size": list(HW), "counts": "o" * 40}
    elif change == "negative run":
        first["segmentation"] = {"size": list(HW), "counts": [-1, 1 + HW[0] * HW[1]]}
    elif change == "size":
        first["segmentation"] = {"size": [2, 2], "counts": [4]}
    elif change == "two points":
        first["segmentation"] = [[1.0, 1.0, 5.0, 5.0]]
    elif change == "nan":
        first["segmentation"] = [[1.0, 1.0, float("nan"), 5.0, 9.0, 9.0]]
    elif change == "far":
        first["segmentation"] = [[1.0, 1.0, 1e9, 5.0, 9.0, 9.0]]
    elif change == "odd":
        first["segmentation"] = [[1.0, 1.0, 2.0, 5.0, 9.0, 9.0, 1.0]]
    elif change == "words":
        first["segmentation"] = [["a", "b", "c", "d", "e", "f"]]
    elif change == "nested":
        first["segmentation"] = [[[1, 2], [3, 4], [5, 6]]]
    elif change == "box only":
        first["segmentation"] = []
    elif change == "category":
        first["category_id"] = 99
    elif change == "image":
        first["image_id"] = 99
    elif change == "same id":
        first["id"] = index["annotations"][1]["id"]
    elif change == "same image id":
        index["images"].append({**index["images"][0], "file_name": "other.png"})
    elif change == "same category id":
        index["categories"].append({"id": 3, "name": "moss"})
    elif change == "same name":
        index["categories"].append({"id": 4, "name": "leaf"})
    elif change == "no file":
        index["images"][0]["file_name"] = "gone.png"
    elif change == "above":
        index["images"][0]["file_name"] = "../images/0000.png"
    elif change == "absolute":
        index["images"][0]["file_name"] = "/etc/passwd"
    elif change == "text id":
        first["id"] = "7"
    else:
        index["images"][0]["width"] = 0


@pytest.mark.parametrize(("change", "said"), [
    ("runs", r"annotation 0 \(image 0000.png\) has an RLE whose runs add up to 105 pixels; the image has 3072 \(64x48\)"),
    ("packed runs", "has an RLE whose runs add up to 11 pixels"),
    ("odd character", r"has an RLE that holds the character '\\x7f'"),
    ("endless run", "has an RLE that holds a run longer than any image"),
    ("negative run", "run length -1"),
    ("size", r"has an RLE of size \[2, 2\], its image is \[48, 64\]"),
    ("two points", "annotation 0 .* has a polygon of 2 points; it takes 3"),
    ("nan", "has a polygon with NaN"),
    ("far", "has a polygon with the point .* far outside the 64x48 image"),
    ("odd", "has a polygon of 7 numbers"),
    ("words", "no flat list of numbers"),
    ("nested", "no flat list of numbers"),
    ("box only", "has an empty segmentation"),
    ("category", r"annotation 0 has the category 99, which the file does not list \(it lists 3, 7\)"),
    ("image", "annotation 0 belongs to image 99, which the file does not list"),
    ("same id", "two annotations have the id 1"),
    ("same image id", "two images have the id 0 .'0000.png' and 'other.png'"),
    ("same category id", "two categories have the id 3"),
    ("same name", "categories 3 and 4 are both called 'leaf'"),
    ("no file", "names the image 'gone.png', and .* does not hold it"),
    ("above", r"image 0: file_name '../images/0000.png' leaves the image folder"),
    ("absolute", "image 0: file_name '/etc/passwd' is an absolute path"),
    ("text id", r"annotation number 0 \(from 0\): id is '7', expected a whole number"),
    ("width", "image 0 is 0x48"),
])
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, change: str, said: str) -> None:
    index = one_image(tmp_path)
    broken(change, index)
    with pytest.raises(DataError, match=r"^annotations\.json: .*; type: edgeseg data check") as error:
        load(put(tmp_path, index))
    assert "\n" not in str(error.value)
    problems = check_dataset(DataSection(dir=str(tmp_path)), seed=0).problems
    assert any(re.search(said, problem.message) for problem in problems), problems


@pytest.mark.parametrize("change", ["same image id", "same name", "no file", "above", "absolute", "width", "no name"])
def test_what_follows_from_a_wrong_entry_is_not_told_beside_it(tmp_path: Path, change: str) -> None:
    for number in range(4):
        save(tmp_path / "images" / f"{number:04}.png", frame(number))
    index = coco_index([0, 1, 2, 3])
    if change == "same name":
        index["categories"][0]["name"] = index["categories"][1]["name"]  # both are used
    elif change == "no name":
        index["categories"][0]["name"] = None
    else:
        broken(change, index)
    report = check_dataset(DataSection(dir=str(put(tmp_path, index))), seed=0)
    assert len(report.problems) == 1, report.problems
    assert not any("no annotation" in note for note in report.notes)


def test_a_file_without_categories_says_so_and_nothing_else(tmp_path: Path) -> None:
    report = check_dataset(DataSection(dir=str(put(tmp_path, one_image(tmp_path, categories=[])))), seed=0)
    (problem,) = report.problems
    assert problem.message.startswith("lists no categories, so its 2 annotations cannot have a class")
    assert not report.notes[1:]


@pytest.mark.parametrize(("text", "said"), [
    ("", "not a COCO annotation file"), ("[]", "not an object"), ("{}", "has no list 'images'"),
    ("[" * 100_000, "not a COCO annotation file"),
    ('{"images": [1], "annotations": [2], "categories": [3]}', r"image number 0 \(from 0\) is not an object|category number 0"),
])
def test_what_is_no_index_at_all(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "annotations.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        load(tmp_path)


def test_json_cut_in_half(three: Path) -> None:
    path = three / "annotations/instances_train2017.json"
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) // 3, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=rf"instances_train2017\.json: not a COCO .* \({size} bytes\); the file seems to be cut off"):
            load(three)


def test_many_problems_of_one_kind_are_counted(tmp_path: Path) -> None:
    index = one_image(tmp_path)
    index["annotations"] = [{**index["annotations"][0], "id": number, "category_id": 99} for number in range(30)]
    put(tmp_path, index)
    problems = [p for p in check_dataset(DataSection(dir=str(tmp_path)), seed=0).problems if p.kind == "unknown-category"]
    assert len(problems) == 11
    assert problems[-1].message == "20 more problems of this kind"


def test_size_in_the_index_and_of_the_image_differ(tmp_path: Path) -> None:
    index = one_image(tmp_path)
    save(tmp_path / "images" / "0000.png", frame(0, HW[::-1]))
    sample = only(load(put(tmp_path, index)))
    with pytest.raises(DataError, match=r"images/0000\.png: .*/annotations\.json gives 64x48, its image has 48x64 .* swapped"):
        read_sample(sample, num_classes=3)
    index["images"][0]["width"] += 1  # there is no mask that could be 65x48: the file that says so is named
    save(tmp_path / "images" / "0000.png", frame(0))
    put(tmp_path, index)
    (problem,) = [one for one in check_dataset(DataSection(dir=str(tmp_path)), seed=0).problems if one.kind == "size-mismatch"]
    assert problem.file == "images/0000.png"
    assert "/annotations.json gives 65x48, its image has 64x48 (width x height); correct width and height there" in problem.message


def test_polygons_belong_to_the_upright_image(tmp_path: Path) -> None:
    index = one_image(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown with its right side below
    Image.fromarray(np.rot90(frame(0)).copy()).save(tmp_path / "images" / "0000.png", exif=exif)
    pixels, label = read_sample(only(load(put(tmp_path, index))), num_classes=3)
    np.testing.assert_array_equal(pixels, frame(0))
    np.testing.assert_array_equal(label, painted(0))
    index["images"][0].update(height=HW[1], width=HW[0])
    put(tmp_path, index)
    (problem,) = [p for p in check_dataset(DataSection(dir=str(tmp_path)), seed=0).problems if p.kind == "size-mismatch"]
    assert "EXIF orientation of the image: 6; its size is that of the upright image" in problem.message


def test_several_sets_of_files_have_to_be_named(three: Path) -> None:
    whole = coco_index([0, 1, 2])
    write_json(three / "annotations/instances_train2014.json", whole)
    data = load(three)  # 2017 covers more splits
    assert any("instances_train2014.json" in note for note in data.notes)
    for split in ("val", "test"):
        write_json(three / f"annotations/instances_{split}2014.json", coco_index([]))
    with pytest.raises(ConfigError, match="several sets of annotation files could be meant"):
        load(three)
    data = load(three, annotations=("annotations/instances_train2017.json",))
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 1, "val": 1, "test": 1}
    assert "drawn with seed 0" in data.split_rule
    data = load(three, annotations=("annotations/instances_val2017.json", "annotations/instances_train2017.json"))
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 3, "val": 2}


@pytest.mark.parametrize(("names", "said"), [
    (("../x.json",), "leaves the data folder"), (("none.json",), "does not exist"),
    (("annotations/instances_train2017.json",) * 2, "are both the train split"),
])
def test_named_files_are_checked(three: Path, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(three, annotations=names)


def test_more_categories_than_fit_a_class_map(tmp_path: Path) -> None:
    index = one_image(tmp_path)
    index["categories"] += [{"id": 100 + number, "name": f"kind {number}"} for number in range(300)]
    with pytest.raises(DataError, match=r"303 classes; up to 255 are possible, .*; choose some in \[data\] classes"):
        load(put(tmp_path, index))
    chosen = load(tmp_path, classes=("leaf", "kind 299"))
    np.testing.assert_array_equal(only(chosen).read_label(Path()), painted(0) == 1)


def test_an_index_of_any_name_can_be_given(tmp_path: Path) -> None:
    write_json(tmp_path / "export.json", one_image(tmp_path))
    data = load(tmp_path, annotations=("export.json",))
    assert (data.layout, only(data).id) == ("coco", "0000")


def test_categories_have_to_agree(three: Path) -> None:
    write_json(three / "annotations/instances_val2017.json", coco_index([3, 4], names=("stone", "leaf")))
    with pytest.raises(DataError, match=r"category 3 is 'stone', in instances_train2017\.json it is 'leaf'"):
        load(three)


def test_files_beside_the_images_of_each_split(tmp_path: Path) -> None:
    for split, number in (("train", 0), ("valid", 1)):
        save(tmp_path / split / f"{number:04}.png", frame(number))
        write_json(tmp_path / split / "_annotations.coco.json", coco_index([number]))
    data = load(tmp_path)
    assert {split: [sample.id for sample in samples] for split, samples in data.splits.items()} == {
        "train": ["train/0000"], "val": ["val/0001"],
    }


@pytest.fixture
def panoptic(tmp_path: Path) -> Path:
    """Two things, a crowd of one of them, stuff, and pixels without label."""
    save(tmp_path / "images" / "a.png", frame(0))
    ids = np.zeros(HW, dtype=np.int64)
    for number, rows in enumerate((slice(0, 10), slice(10, 20), slice(20, 30), slice(30, 40)), start=1):
        ids[rows] = number * 70_000
    save(tmp_path / "panoptic" / "a.png", np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8))
    segments = [{"id": number * 70_000, "category_id": category, "iscrowd": crowd}
                for number, category, crowd in ((1, 2, 0), (2, 2, 0), (3, 2, 1), (4, 9, 0))]
    write_json(tmp_path / "panoptic.json", {
        "images": [{"id": 5, "file_name": "a.png", "height": HW[0], "width": HW[1]}],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 9, "name": "soil", "isthing": 0}, {"id": 2, "name": "leaf", "isthing": 1}],
    })
    return tmp_path


def test_panoptic(panoptic: Path) -> None:
    data = load(panoptic)
    assert data.classes == ("background", "leaf", "soil")
    sample = only(data)
    label = sample.read_label(sample.label)
    assert [int(label[row, 0]) for row in (5, 15, 25, 35, 45)] == [1, 1, 255, 2, 255]
    assert sample.read_instances is not None
    found = sample.read_instances()
    assert found.classes_N.tolist() == [1, 1, 1]
    assert found.crowd_N.tolist() == [False, False, True]
    assert found.boxes_N4[1].tolist() == [0, 10, 64, 20]
    chosen = only(load(panoptic, classes=("soil",)))
    label = chosen.read_label(chosen.label)
    assert [int(label[row, 0]) for row in (5, 25, 35, 45)] == [0, 0, 1, 255]


def test_panoptic_that_does_not_fit_its_png(panoptic: Path) -> None:
    index = json.loads((panoptic / "panoptic.json").read_text(encoding="utf-8"))
    gone = index["annotations"][0]["segments_info"].pop(1)
    write_json(panoptic / "panoptic.json", index)
    sample = only(load(panoptic))
    with pytest.raises(DataError, match=r"a\.png: segment 140000 \(640 pixels\) is not among the 3"):
        sample.read_label(sample.label)
    index["annotations"][0]["segments_info"] += [gone, gone]
    write_json(panoptic / "panoptic.json", index)
    with pytest.raises(DataError, match="two segments have the id 140000"):
        load(panoptic)
    (panoptic / "panoptic" / "a.png").rename(panoptic / "panoptic" / "b.png")
    index["annotations"][0]["segments_info"].pop()
    write_json(panoptic / "panoptic.json", index)
    with pytest.raises(DataError, match=r"names the panoptic PNG 'a\.png', and panoptic/ does not hold it"):
        load(panoptic)


@pytest.mark.parametrize("change", ["name", "category", "path", "unlisted"])
def test_what_follows_from_a_wrong_entry_of_panoptic_labels_is_not_told_beside_it(panoptic: Path, change: str) -> None:
    index = json.loads((panoptic / "panoptic.json").read_text(encoding="utf-8"))
    if change == "name":
        index["annotations"][0]["file_name"] = 7
    elif change == "path":
        index["annotations"][0]["file_name"] = "../a.png"
    elif change == "category":
        index["categories"][0]["name"] = "leaf"
    else:
        index["annotations"][0]["segments_info"][1]["category_id"] = 77
    write_json(panoptic / "panoptic.json", index)
    problems = [one.kind for one in check_dataset(DataSection(dir=str(panoptic)), seed=0).problems if one.kind != "one-class"]
    assert problems == [{"name": "bad-entry", "path": "unsafe-path", "category": "duplicate-name", "unlisted": "unknown-category"}[change]]


def test_a_mask_without_a_pixel_is_no_object(tmp_path: Path) -> None:
    index = one_image(tmp_path)
    index["annotations"][0]["segmentation"] = [rectangle(70, 6, 80, 40)]  # right of the frame
    sample = only(load(put(tmp_path, index)))
    assert sample.read_instances is not None
    assert sample.read_instances().classes_N.tolist() == [2]


WEIRD: list[Any] = [
    None, -1, 1e308, float("nan"), "", [], {}, True, 10**30, "x" * 300, "a\0b", "\ud800", "../x", [[]], [None], [[1e5] * 6],
    [[0, 0, 1, 1, 2, 2], [3]], {"counts": [1], "size": list(HW)}, {"counts": "0" * 9, "size": list(HW)}, {"counts": [], "size": list(HW)},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


def test_whatever_stands_in_the_index_nothing_but_our_errors_come_out(tmp_path: Path) -> None:
    rng = random.Random(0)
    index = one_image(tmp_path)
    refused = 0
    for _ in range(300):
        changed = copy.deepcopy(index)
        path = rng.choice(places(changed)[1:])
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = copy.deepcopy(rng.choice(WEIRD))
        try:
            for samples in load(put(tmp_path, changed)).splits.values():
                for sample in samples:
                    read_sample(sample, num_classes=3)
        except EdgesegError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 200
