"""The crops that a GPU cuts are those of `edgeseg.data.augment`: the same place, size, turn and colours, and labels equal but for ties."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_training_fit import HW, stores_of, tiny_config, write_tiny

from edgeseg.core.config import AugmentSection
from edgeseg.core.images import write_class_map, write_frame
from edgeseg.data.augment import Draw, augment, draw, look
from edgeseg.data.base import Sample
from edgeseg.data.dataset import load_dataset
from edgeseg.data.loader import batches, epoch_order
from edgeseg.data.store import FrameStore
from edgeseg.training.gpu_augment import DeviceFrames, cut, device_batches

STILL = AugmentSection(scale=(1.0, 1.0), flip=0, brightness=0, contrast=0, saturation=0, hue=0, blur=0)
WILD = AugmentSection(scale=(0.4, 2.0), flip=0.5, flip_vertical=0.5, blur=0)
CPU = torch.device("cpu")


def scene(height: int, width: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A smooth frame with edges, and a label of blocks with a border of 255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 100 * np.sin(x / (5 + c) + seed) * np.cos(y / (7 - c)) for c in range(3)]
    frame = (np.stack(waves, axis=2) + rng.integers(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)
    label = ((y // 9 + x // 7) % 5).astype(np.uint8)
    label[:2] = 255
    return frame, label


def both(section: AugmentSection, *, count: int = 6, crop_hw: tuple[int, int] = (40, 56), resize: str = "stretch",
         model_hw: tuple[int, int] = (40, 56)) -> tuple[list[Any], tuple[Any, Any]]:
    """Crops of `count` frames of different sizes, by Pillow one at a time and by `cut` all at once."""
    scenes = [scene(48 + 8 * i, 90 - 6 * i, i) for i in range(count)]
    sizes = [label.shape for _, label in scenes]
    H, W = max(h for h, _ in sizes), max(w for _, w in sizes)
    frames, labels = torch.full((count, 3, H, W), 77, dtype=torch.uint8), torch.full((count, H, W), 99, dtype=torch.uint8)
    expected, views = [], []
    for i, (frame, label) in enumerate(scenes):
        h, w = label.shape
        frames[i, :, :h, :w], labels[i, :h, :w] = torch.from_numpy(frame.transpose(2, 0, 1).copy()), torch.from_numpy(label)
        rng = np.random.default_rng
        expected.append(augment(frame, label, crop_hw=crop_hw, section=section, rng=rng(i), model_hw=model_hw, resize=resize))
        views.append(look(draw(section, rng(i)), frame_hw=label.shape, crop_hw=crop_hw, model_hw=model_hw, resize=resize))
    crops, maps = cut(frames, labels, views, sizes)
    return expected, (crops.numpy(), maps.numpy())


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "tile"])
@pytest.mark.parametrize(("section", "worst_level"), [
    (STILL, 1), (WILD, 8), (dataclasses.replace(STILL, scale=(0.3, 0.6)), 1), (dataclasses.replace(STILL, scale=(1.5, 3.0)), 1),
    (dataclasses.replace(STILL, contrast=1.0, brightness=0.5, saturation=1.0, hue=0.3), 10),
], ids=["still", "wild", "small", "large", "colours"])
def test_crops_are_those_of_a_cpu(section: AugmentSection, worst_level: int, resize: str) -> None:
    expected, (crops, maps) = both(section, resize=resize)
    assert crops.shape == (6, 40, 56, 3)
    assert crops.dtype == maps.dtype == np.uint8
    for i, (frame, label) in enumerate(expected):
        off = np.abs(crops[i].astype(int) - frame)
        assert off.max() <= worst_level
        assert off.mean() < 0.6
        assert (maps[i] != label).mean() < 0.01  # a pixel's centre on the border of two
        assert set(np.unique(maps[i])) <= {0, 1, 2, 3, 4, 255}  # never interpolated, and no padding of the store
        assert ((maps[i] == 255) == (label == 255)).mean() > 0.99


def test_outside_the_frame_is_gray_and_ignored() -> None:
    expected, (crops, maps) = both(dataclasses.replace(STILL, scale=(0.3, 0.3)))
    for i, (frame, label) in enumerate(expected):
        outside = (frame == 114).all(axis=2) & (label == 255)
        assert outside.mean() > 0.5
        assert (crops[i][outside] == 114).all()
        assert (maps[i][outside] == 255).all()


def test_turned_crops_too() -> None:
    expected, (crops, maps) = both(dataclasses.replace(WILD, rotate_deg=180.0, scale=(0.5, 1.5)))
    for i, (frame, label) in enumerate(expected):
        assert np.abs(crops[i].astype(int) - frame).mean() < 1.5
        assert (maps[i] != label).mean() < 0.02
        assert set(np.unique(maps[i])) <= {0, 1, 2, 3, 4, 255}


def test_blur_is_as_wide_as_pillows() -> None:
    expected, (crops, _) = both(dataclasses.replace(STILL, blur=1.0))
    sharp, _ = both(STILL)
    for i, (frame, _label) in enumerate(expected):
        effect = np.abs(frame.astype(int) - sharp[i][0]).mean()
        assert np.abs(crops[i].astype(int) - frame).mean() < 0.3 * effect + 0.8


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    root = tmp_path_factory.mktemp("tiny")
    write_tiny(root)
    return stores_of(load_dataset(tiny_config(root).data, seed=0))[0]


def test_order_and_frames_are_those_of_the_loader(store: FrameStore) -> None:
    options: dict[str, Any] = {"seed": 5, "epoch": 2, "batch_size": 4, "crop_hw": HW, "section": AugmentSection(blur=0), "model_hw": HW,
                               "resize": "stretch"}
    frames = DeviceFrames(store, CPU)
    for part in ((0, 1), (1, 2)):
        ours, theirs = list(device_batches(frames, **options, part=part)), list(batches(store, **options, part=part))
        assert [batch.ids for batch in ours] == [batch.ids for batch in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine.labels_NHW.numpy() != other.labels_NHW).mean() < 0.005
            assert np.abs(mine.frames_NHWC.numpy().astype(int) - other.frames_NHWC).mean() < 1


def test_frames_of_any_size_are_kept_side_by_side(tmp_path: Path) -> None:
    samples = []
    for i, (h, w) in enumerate(((20, 30), (31, 17))):
        frame, label = scene(h, w, i)
        image, mask = tmp_path / f"{i}.png", tmp_path / f"m{i}.png"
        write_frame(image, frame)
        write_class_map(mask, label)
        samples.append((image, mask, frame, label))
    whole = load_like(samples)
    frames = DeviceFrames(whole, CPU)
    assert tuple(frames.frames_F3HW.shape) == (2, 3, 31, 30)
    assert DeviceFrames.size_bytes(whole) == 4 * 2 * 31 * 30
    for i, (_, _, frame, label) in enumerate(samples):
        h, w = label.shape
        assert (frames.frames_F3HW[i, :, :h, :w].numpy() == frame.transpose(2, 0, 1)).all()
        assert (frames.labels_FHW[i, :h, :w].numpy() == label).all()
    (batch,) = device_batches(frames, seed=0, epoch=0, batch_size=2, crop_hw=(16, 16), section=STILL, model_hw=(16, 16), resize="stretch")
    assert sorted(batch.ids) == ["0", "1"]
    assert epoch_order(2, seed=0, epoch=0) == [int(name) for name in batch.ids]


def load_like(samples: list[Any]) -> FrameStore:
    """A store of files given one by one."""
    listed = [Sample(id=str(i), split="train", image=image, label=mask) for i, (image, mask, _, _) in enumerate(samples)]
    return FrameStore(listed, num_classes=5, memory_limit_mb=100)


def test_a_draw_without_change_changes_nothing() -> None:
    frame, label = scene(40, 56, 0)
    still = Draw(scale=1, place_y=0, place_x=0, flip=False, flip_vertical=False, rotate_deg=0, brightness=1, contrast=1, saturation=1,
                 hue=0, blur_radius=0)
    view = look(still, frame_hw=(40, 56), crop_hw=(40, 56), model_hw=None, resize="stretch")
    frames, labels = torch.from_numpy(frame.transpose(2, 0, 1).copy()), torch.from_numpy(label)
    crops, maps = cut(frames.unsqueeze(0), labels.unsqueeze(0), [view], [(40, 56)])
    assert (crops[0].numpy() == frame).all()
    assert (maps[0].numpy() == label).all()
