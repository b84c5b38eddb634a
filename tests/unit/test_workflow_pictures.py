"""Which frames a bundle is compared on: photographs, never labels, spread evenly over a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.core.errors import ConfigError
from edgeseg.core.images import read_class_map
from edgeseg.data.dataset import photographs
from edgeseg.data.synthetic import write_field
from edgeseg.workflow.bundle.pictures import open_pictures, spread


@pytest.mark.parametrize(("total", "wanted", "expected"), [
    (9, 3, [0, 4, 8]), (2, 3, [0, 1]), (5, 8, [0, 1, 2, 3, 4]), (1, 4, [0]), (0, 3, []),
])
def test_as_many_as_there_are_and_never_one_twice(total: int, wanted: int, expected: list[int]) -> None:
    assert spread(total, wanted) == expected


def _image(path: Path, *, label: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ones((8, 8) if label else (8, 8, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A data set of Pascal VOC below a folder called `masks`, its photographs PNG as its labels."""
    root = tmp_path / "masks" / "VOC2012"
    for name in ("a", "b"):
        _image(root / f"JPEGImages/{name}.png")
        for kind in ("SegmentationClass", "SegmentationObject"):
            _image(root / kind / f"{name}.png", label=True)
    return root


def test_photographs_of_voc(voc: Path) -> None:
    wanted = [voc / "JPEGImages/a.png", voc / "JPEGImages/b.png"]
    assert photographs(voc) == wanted
    (voc.parent / "more").mkdir()
    voc.rename(voc.parent / "more" / "mine")  # now no layout claims the folder given
    assert [path.parent.name for path in photographs(voc.parent)] == ["JPEGImages", "JPEGImages"]


def test_photographs_of_cityscapes(tmp_path: Path) -> None:
    image = _image(tmp_path / "leftImg8bit/val/bonn/bonn_000000_000019_leftImg8bit.png")
    for kind in ("labelIds", "labelTrainIds", "instanceIds"):
        _image(tmp_path / f"gtFine/val/bonn/bonn_000000_000019_gtFine_{kind}.png", label=True)
    assert photographs(tmp_path) == [image]


def test_pictures_below_a_folder_called_masks(tmp_path: Path) -> None:
    root = tmp_path / "masks" / "photographs"
    wanted = _image(root / "a.png")
    _image(root / "one" / "masks" / "a.png", label=True)
    assert open_pictures(root, ("soil", "crop")).images == (wanted,)


def test_labelled_data_of_other_classes_than_the_model(tmp_path: Path) -> None:
    write_field(tmp_path / "data", seed=3, counts={"train": 2, "val": 1}, size_hw=(48, 64))  # soil, crop, weed
    dataset = open_pictures(tmp_path / "data", ("weed", "soil", "crop")).dataset
    assert dataset is not None and dataset.classes == ("weed", "soil", "crop")
    sample = dataset.splits["val"][0]
    np.testing.assert_array_equal(sample.read_label(sample.label), np.array([1, 2, 0], dtype=np.uint8)[read_class_map(sample.label)])
    with pytest.raises(ConfigError, match="the data has the classes soil, crop, weed, the model cat, dog, cow"):
        open_pictures(tmp_path / "data", ("cat", "dog", "cow"))
