"""Frames with their objects: the store, and crops that move frame, masks and boxes alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layout_tools import HW, boxes_of, frame, write_cityscapes, write_coco, write_voc
from numpy.typing import NDArray

from edgeseg.core.config import AugmentSection, DataSection
from edgeseg.core.errors import DataError
from edgeseg.core.instances import InstanceLabel
from edgeseg.data.augment import augment
from edgeseg.data.base import Sample
from edgeseg.data.dataset import load_dataset
from edgeseg.data.instance_loader import InstanceBatch, augment_instances, instance_batches
from edgeseg.data.instance_store import InstanceStore
from edgeseg.data.loader import batches, slice_positions
from edgeseg.data.objects import ObjectMask, instance_label, paint, tight_box
from edgeseg.data.store import FrameStore
from edgeseg.data.synthetic import write_field

STILL = AugmentSection(scale=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, blur=0.0)


def samples_of(root: Path) -> tuple[Sample, ...]:
    return load_dataset(DataSection(dir=str(root)), seed=0).splits["train"]


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Sample, ...]:
    write_coco(tmp_path)
    return samples_of(tmp_path)


def same(a: InstanceLabel, b: InstanceLabel) -> bool:
    pairs = ((a.boxes_N4, b.boxes_N4), (a.classes_N, b.classes_N), (a.masks_NHW, b.masks_NHW), (a.crowd_N, b.crowd_N))
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)


@pytest.mark.parametrize("write", [write_coco, write_voc, write_cityscapes])
def test_the_store_gives_what_the_sample_says(tmp_path: Path, write: object) -> None:
    assert callable(write)
    write(tmp_path)
    samples = samples_of(tmp_path)
    kept, anew = (InstanceStore(samples, num_classes=21, memory_limit_mb=limit) for limit in (10, 0))
    assert (kept.num_kept, anew.num_kept) == (len(samples), 0)
    assert kept.object_counts == (2, 2, 2)
    for number, sample in enumerate(samples):
        assert sample.read_instances is not None
        for store in (kept, anew):
            pixels, label = store[number]
            np.testing.assert_array_equal(pixels, frame(number))
            assert same(label, sample.read_instances())
            assert label.masks_NHW.dtype == np.bool_
            assert label.masks_NHW.shape == (len(label.classes_N), *HW)


def test_part_of_the_frames_is_kept_where_memory_is_short(coco: tuple[Sample, ...]) -> None:
    calls: list[tuple[int, int]] = []
    store = InstanceStore(coco * 60, num_classes=3, memory_limit_mb=1, progress=lambda done, total: calls.append((done, total)))
    assert 0 < store.num_kept < len(store)
    assert calls[-1] == (180, 180)
    assert same(store[0][1], store[177][1])
    assert [len(label.classes_N) for _, label in store] == [2] * 180


def test_labels_without_objects_are_refused(tmp_path: Path) -> None:
    write_field(tmp_path / "field", seed=0, counts={"train": 1, "val": 1}, size_hw=(48, 64))
    with pytest.raises(DataError, match=r"train/0000: its labels are class maps, .*instances need COCO"):
        InstanceStore(samples_of(tmp_path / "field"), num_classes=3, memory_limit_mb=1)


def test_a_class_outside_the_list_is_refused(coco: tuple[Sample, ...]) -> None:
    with pytest.raises(DataError, match=r"an object of class 2; objects have the classes 1\.\.1"):
        InstanceStore(coco, num_classes=2, memory_limit_mb=1)


def test_tight_boxes() -> None:
    mask = np.zeros((5, 7), dtype=np.bool_)
    assert tight_box(mask) is None
    mask[2, 3] = True
    assert tight_box(mask) == (3, 2, 4, 3)
    mask[4, 6] = mask[0, 5] = True
    assert tight_box(mask) == (3, 0, 7, 5)


def test_painting_puts_the_smaller_on_top_and_crowds_below() -> None:
    def block(rows: slice, index: int, crowd: bool = False) -> ObjectMask:
        mask = np.zeros((6, 1), dtype=np.bool_)
        mask[rows] = True
        return ObjectMask(mask, index, crowd)

    objects = [block(slice(0, 1), 1), block(slice(0, 3), 2), block(slice(0, 6), 3, crowd=True), block(slice(2, 5), 4)]
    assert paint((6, 1), objects)[:, 0].tolist() == [1, 2, 4, 4, 4, 255]
    hidden = block(slice(4, 6), 0)  # of a class nobody asked for
    assert paint((6, 1), [*objects, hidden])[:, 0].tolist() == [1, 2, 4, 4, 0, 0]
    assert instance_label((6, 1), [*objects, hidden]).classes_N.tolist() == [1, 2, 3, 4]
    empty = instance_label((6, 1), [])
    assert (empty.boxes_N4.shape, empty.masks_NHW.shape) == ((0, 4), (0, 6, 1))


def as_label(label: InstanceLabel) -> NDArray[np.uint8]:
    """Class map of a label without crowds."""
    height, width = label.masks_NHW.shape[1:]
    return paint((height, width), [ObjectMask(m, int(c)) for m, c in zip(label.masks_NHW, label.classes_N, strict=True)])


@pytest.mark.parametrize("section", [
    STILL, AugmentSection(), AugmentSection(scale=(0.3, 3.0), flip=1.0, flip_vertical=1.0), AugmentSection(rotate_deg=30.0),
])
def test_masks_move_as_the_semantic_label_does(coco: tuple[Sample, ...], section: AugmentSection) -> None:
    (pixels, label) = InstanceStore(coco, num_classes=3, memory_limit_mb=1)[1]
    semantic = as_label(label)
    for seed in range(20):
        one, other = np.random.default_rng(seed), np.random.default_rng(seed)
        crop, moved = augment_instances(pixels, label, crop_hw=(40, 56), section=section, rng=one, model_hw=(32, 48))
        frame_crop, label_crop = augment(pixels, semantic, crop_hw=(40, 56), section=section, rng=other, model_hw=(32, 48))
        np.testing.assert_array_equal(crop, frame_crop)
        seen = np.where(label_crop == 255, 0, label_crop)
        for mask, index in zip(moved.masks_NHW, moved.classes_N, strict=True):  # an object is on top of, or below, what the map shows
            assert set(np.unique(seen[mask])) <= {1, 2}
            assert (mask >= (seen == index)).all()
        missing = set(np.unique(seen)) - {0} - set(moved.classes_N.tolist())
        assert all((seen == index).any(axis=0).sum() < 2 or (seen == index).any(axis=1).sum() < 2 for index in missing)
        for box, mask in zip(moved.boxes_N4, moved.masks_NHW, strict=True):
            assert tuple(box.tolist()) == tight_box(mask)


def test_left_right_flip_mirrors_boxes(coco: tuple[Sample, ...]) -> None:
    pixels, label = InstanceStore(coco, num_classes=3, memory_limit_mb=1)[0]
    flipped = AugmentSection(**{**STILL.__dict__, "flip": 1.0})
    crop, moved = augment_instances(pixels, label, crop_hw=HW, section=flipped, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(crop, pixels[:, ::-1])
    assert moved.boxes_N4.tolist() == [[64.0 - x1, float(y0), 64.0 - x0, float(y1)] for x0, y0, x1, y1, _ in boxes_of(0)]
    np.testing.assert_array_equal(moved.masks_NHW, label.masks_NHW[:, :, ::-1])


def collect(store: InstanceStore, workers: int, part: tuple[int, int] = (0, 1)) -> list[InstanceBatch]:
    return list(instance_batches(store, seed=3, epoch=2, batch_size=2, crop_hw=(40, 56), section=AugmentSection(), model_hw=HW,
                                 resize="stretch", num_workers=workers, part=part))


def test_batches_do_not_depend_on_workers_and_follow_the_semantic_order(coco: tuple[Sample, ...]) -> None:
    store = InstanceStore(coco * 3, num_classes=3, memory_limit_mb=1)
    alone, many = collect(store, 0), collect(store, 3)
    assert len(alone) == 4
    for a, b in zip(alone, many, strict=True):
        assert a.ids == b.ids
        np.testing.assert_array_equal(a.frames_NHWC, b.frames_NHWC)
        assert all(same(x, y) for x, y in zip(a.labels, b.labels, strict=True))
        assert all(label.masks_NHW.shape[1:] == (40, 56) for label in a.labels)
    semantic = batches(FrameStore(coco * 3, num_classes=3, memory_limit_mb=1), seed=3, epoch=2, batch_size=2, crop_hw=(40, 56),
                       section=AugmentSection(), model_hw=HW, resize="stretch")
    for a, c in zip(alone, semantic, strict=True):
        assert a.ids == c.ids
        np.testing.assert_array_equal(a.frames_NHWC, c.frames_NHWC)


def test_slices_of_ranks_make_up_the_batch(coco: tuple[Sample, ...]) -> None:
    assert [list(slice_positions(3, 4, (rank, 2))) for rank in range(2)] == [[12, 13], [14, 15]]
    store = InstanceStore(coco * 3, num_classes=3, memory_limit_mb=1)
    whole, first, second = collect(store, 0), collect(store, 1, (0, 2)), collect(store, 1, (1, 2))
    for a, b, c in zip(whole, first, second, strict=True):
        assert a.ids == b.ids + c.ids
        np.testing.assert_array_equal(a.frames_NHWC, np.concatenate([b.frames_NHWC, c.frames_NHWC]))
