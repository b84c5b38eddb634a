"""Augmentation and batches: aligned labels, one colour matrix, functions of (seed, epoch, position) only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.core.config import AugmentSection
from edgeseg.core.images import IGNORE_INDEX, ClassMap, Frame, label_to_model, place, to_model
from edgeseg.data.augment import augment, colour_matrix, draw
from edgeseg.data.base import Sample
from edgeseg.data.loader import Batch, batches, epoch_order, generator
from edgeseg.data.store import FrameStore

STILL = AugmentSection(scale=(1.0, 1.0), flip=0, brightness=0, contrast=0, saturation=0, hue=0, blur=0)
COLOURS = np.array([[200, 40, 40], [40, 180, 60], [30, 60, 220]], dtype=np.uint8)


def rng(number: int = 0) -> np.random.Generator:
    return generator(7, purpose=9, epoch=0, index=number)


def blobs(height: int = 90, width: int = 120) -> tuple[Frame, ClassMap]:
    """A frame whose colour is a function of its label, so that a shift between the two shows."""
    coarse = np.random.default_rng(1).integers(0, 3, (height // 15, width // 15), dtype=np.uint8)
    label = np.kron(coarse, np.ones((15, 15), dtype=np.uint8)).astype(np.uint8)
    return COLOURS[label], label


def nearest_colour(frame: Frame) -> ClassMap:
    distance = ((frame[:, :, None].astype(int) - COLOURS.astype(int)) ** 2).sum(axis=-1)
    return distance.argmin(axis=-1).astype(np.uint8)


def test_nothing_switched_on_gives_the_frame_as_the_device_sees_it() -> None:
    frame, label = blobs()
    for policy, model_hw in (("stretch", (48, 96)), ("letterbox", (64, 64)), ("stretch", (180, 240))):
        placement = place((90, 120), model_hw, policy)
        got = augment(frame, label, crop_hw=model_hw, section=STILL, rng=rng(), model_hw=model_hw, resize=policy)
        inner = got[1] != IGNORE_INDEX
        assert inner.sum() == (label_to_model(label, placement)[0] != IGNORE_INDEX).sum()
        if policy == "stretch":  # a letterboxed frame may lie anywhere in the crop
            np.testing.assert_array_equal(got[0], to_model(frame, placement)[0])
            np.testing.assert_array_equal(got[1], label_to_model(label, placement)[0])
        else:
            assert (got[0][~inner] == 114).all()


@pytest.mark.parametrize("changes", [
    {"flip": 1.0}, {"flip_vertical": 1.0}, {"scale": (0.5, 0.5)}, {"scale": (1.7, 1.7)}, {"rotate_deg": 90.0},
    {"scale": (0.4, 2.5), "flip": 0.5, "flip_vertical": 0.5, "rotate_deg": 180.0},
], ids=str)
def test_label_moves_with_the_frame(changes: dict[str, object]) -> None:
    frame, label = blobs()
    for number in range(6):
        got_frame, got_label = augment(frame, label, crop_hw=(64, 80), section=replace(STILL, **changes), rng=rng(number))  # type: ignore[arg-type]
        inside = got_label != IGNORE_INDEX
        assert (nearest_colour(got_frame)[inside] == got_label[inside]).mean() > 0.9
        assert inside.any()


def test_labels_are_never_interpolated() -> None:
    frame = np.zeros((60, 80, 3), dtype=np.uint8)
    label = np.full((60, 80), 10, dtype=np.uint8)
    label[:, 40:] = 200
    section = replace(STILL, scale=(0.3, 3.0), rotate_deg=180.0, blur=1.0)
    values = {int(v) for n in range(20) for v in np.unique(augment(frame, label, crop_hw=(64, 80), section=section, rng=rng(n))[1])}
    assert values == {10, 200, IGNORE_INDEX}


def test_outside_the_frame_is_gray_and_ignored() -> None:
    frame, label = np.full((40, 40, 3), 250, dtype=np.uint8), np.ones((40, 40), dtype=np.uint8)
    bright = replace(STILL, scale=(0.5, 0.5), brightness=1.0, contrast=1.0)
    got_frame, got_label = augment(frame, label, crop_hw=(40, 40), section=bright, rng=rng(2))
    outside = got_label == IGNORE_INDEX
    assert outside.sum() == 1600 - 400
    assert (got_frame[outside] == 114).all()


def test_a_large_frame_is_trained_on_at_model_scale() -> None:
    frame, label = blobs(360, 480)
    small, _ = augment(frame, label, crop_hw=(90, 120), section=STILL, rng=rng(), model_hw=(90, 120))
    np.testing.assert_array_equal(small, to_model(frame, place((360, 480), (90, 120), "stretch"))[0])


@pytest.mark.parametrize(("changes", "law"), [
    ({"brightness": 1.5}, lambda x: x * 1.5),
    ({"contrast": 0.5}, lambda x: x * 0.5 + 0.5 * (np.array([100, 90, 80.0]) @ [0.299, 0.587, 0.114])),
    ({"saturation": 0.0}, lambda x: np.full(3, x @ [0.299, 0.587, 0.114])),
])
def test_colour_matrix_follows_its_definition(changes: dict[str, float], law: object) -> None:
    choice = replace(draw(STILL, rng()), **changes)  # type: ignore[arg-type]
    matrix = colour_matrix(choice, np.array([100, 90, 80.0]))
    colour = np.array([120.0, 60.0, 30.0])
    np.testing.assert_allclose(matrix @ [*colour, 1], law(colour), atol=0.2)  # type: ignore[operator]


def test_hue_keeps_luma_and_turns_green_towards_red_or_blue() -> None:
    luma = np.array([0.299, 0.587, 0.114])
    for hue in (-0.1, 0.1):
        matrix = colour_matrix(replace(draw(STILL, rng()), hue=hue), np.zeros(3))[:, :3]
        np.testing.assert_allclose(luma @ matrix, luma, atol=1e-3)
        assert not np.allclose(matrix, np.eye(3), atol=0.05)
    full_turn = colour_matrix(replace(draw(STILL, rng()), hue=1.0), np.zeros(3))
    np.testing.assert_allclose(full_turn, np.eye(3, 4), atol=1e-9)


def least_s(call: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return min(times)


def test_a_default_crop_is_cheap() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (360, 480, 3), dtype=np.uint8)
    label = np.zeros((360, 480), dtype=np.uint8)
    picture = Image.fromarray(frame)
    crops, resizes = [], []
    for number in range(21):  # the least of three each: a busy machine makes any of them longer
        crops.append(least_s(lambda number=number: augment(frame, label, crop_hw=(256, 320), section=AugmentSection(), rng=rng(number))))
        resizes.append(least_s(lambda: picture.resize((320, 256), Image.Resampling.BICUBIC)))
    assert sorted(crops)[10] < 3 * sorted(resizes)[10]  # about as long as Pillow takes to resize alone


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    folder: Path = tmp_path_factory.mktemp("frames")
    samples = []
    for i in range(7):
        frame, label = blobs(60 + 15 * (i % 2), 75)
        Image.fromarray(frame).save(folder / f"{i}.png")
        Image.fromarray(label).save(folder / f"{i}_m.png")
        samples.append(Sample(id=str(i), split="train", image=folder / f"{i}.png", label=folder / f"{i}_m.png"))
    return FrameStore(samples, num_classes=3, memory_limit_mb=10)


def epoch(store: FrameStore, *, seed: int = 3, number: int = 0, batch_size: int = 2, num_workers: int = 1) -> list[Batch]:
    section = AugmentSection(rotate_deg=20)
    return list(batches(store, seed=seed, epoch=number, batch_size=batch_size, crop_hw=(32, 40), section=section,
                        model_hw=(60, 75), resize="stretch", num_workers=num_workers))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.ids == y.ids and np.array_equal(x.frames_NHWC, y.frames_NHWC) and np.array_equal(x.labels_NHW, y.labels_NHW)
        for x, y in zip(a, b, strict=True))


def test_batches_do_not_depend_on_the_workers(store: FrameStore) -> None:
    reference = epoch(store, num_workers=0)
    assert all(same(reference, epoch(store, num_workers=n)) for n in (1, 2, 4))


def test_batches_depend_on_seed_and_epoch(store: FrameStore) -> None:
    reference = epoch(store)
    assert same(reference, epoch(store))
    assert not same(reference, epoch(store, seed=4))
    assert not same(reference, epoch(store, number=1))


def test_incomplete_batch_is_dropped_and_no_frame_comes_twice(store: FrameStore) -> None:
    got = epoch(store)
    assert [batch.frames_NHWC.shape for batch in got] == [(2, 32, 40, 3)] * 3
    ids = [name for batch in got for name in batch.ids]
    assert len(set(ids)) == 6


def test_small_store_fills_one_batch_with_different_crops(store: FrameStore) -> None:
    (batch,) = epoch(store, batch_size=16)
    assert len(batch.ids) == 16
    assert set(batch.ids) == {str(i) for i in range(7)}
    assert batch.ids[0] == batch.ids[7]
    assert not np.array_equal(batch.frames_NHWC[0], batch.frames_NHWC[7])


def test_epoch_order_is_a_permutation() -> None:
    orders = [epoch_order(50, seed=0, epoch=number) for number in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_a_consumer_that_stops_early_leaves_no_thread(store: FrameStore) -> None:
    import threading

    before = set(threading.enumerate())
    stream = batches(store, seed=0, epoch=0, batch_size=1, crop_hw=(32, 40), section=STILL, model_hw=(60, 75), resize="stretch",
                     num_workers=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before
