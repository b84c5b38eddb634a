"""The folder layout, the data set and its hash, and the frame store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError, DataError, InputMissingError
from edgeseg.data.dataset import load_dataset
from edgeseg.data.store import FrameStore


def put(root: Path, split: str, name: str, *, value: int = 0, hw: tuple[int, int] = (24, 32), suffix: str = "png") -> None:
    """One image with a mask of two classes; `value` makes the pixels differ."""
    rng = np.random.default_rng(value)
    label = (np.arange(hw[1]) * 2 // hw[1]).astype(np.uint8)[None].repeat(hw[0], axis=0)
    for kind, array, ending in (("images", rng.integers(0, 255, (*hw, 3), dtype=np.uint8), suffix), ("masks", label, "png")):
        path = root / kind / split / f"{name}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "field"
    for split, count in (("train", 4), ("valid", 2), ("test", 1)):
        for i in range(count):
            put(root, split, f"{split}{i}", value=i + 10 * len(split), suffix="jpg" if i == 1 else "png")
    return root


def load(root: Path, **changes: object) -> object:
    return load_dataset(DataSection(dir=str(root), **changes), seed=0)  # type: ignore[arg-type]


def test_splits_are_found_and_valid_means_val(folder: Path) -> None:
    data = load_dataset(DataSection(dir=str(folder)), seed=0)
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 4, "val": 2, "test": 1}
    assert data.classes == ("class_0", "class_1")
    assert data.palette[0] == (0, 0, 0)
    assert data.splits["val"][0].id == "val/valid0"
    assert data.splits["train"][1].image.suffix == ".jpg"
    assert (data.layout, data.name, data.split_rule) == ("folder", "field", "folders train, val, test")


def test_index_file_names_the_data_set(folder: Path) -> None:
    index = {"name": "beets", "classes": ["soil", "crop"], "palette": [[1, 2, 3], [4, 5, 6]], "whatever": 1}
    (folder / "dataset.json").write_text(json.dumps(index), encoding="utf-8")
    data = load_dataset(DataSection(dir=str(folder)), seed=0)
    assert (data.name, data.classes, data.palette) == ("beets", ("soil", "crop"), ((1, 2, 3), (4, 5, 6)))
    with pytest.raises(ConfigError, match="the data has no class 'a'; the data has soil, crop"):
        load_dataset(DataSection(dir=str(folder), classes=("a", "b")), seed=0)


@pytest.mark.parametrize("text", [
    "{", "[]", '{"classes": "soil"}', '{"classes": ["a", "a"]}', '{"classes": ["a", "b"], "palette": [[0, 0, 0]]}',
])
def test_broken_index_file_is_refused(folder: Path, text: str) -> None:
    (folder / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"dataset\.json"):
        load(folder)


def test_without_splits_they_are_drawn_and_recorded(tmp_path: Path) -> None:
    for i in range(20):
        put(tmp_path, "", f"f{i:02}", value=i)
    first, again = load_dataset(DataSection(dir=str(tmp_path)), seed=0), load_dataset(DataSection(dir=str(tmp_path)), seed=0)
    other = load_dataset(DataSection(dir=str(tmp_path)), seed=1)
    assert first == again
    assert {split: len(samples) for split, samples in first.splits.items()} == {"train": 14, "val": 3, "test": 3}
    assert "seed 0" in first.split_rule
    ids = [sample.id for samples in first.splits.values() for sample in samples]
    assert sorted(ids) == [f"f{i:02}" for i in range(20)]
    assert other.sha256 != first.sha256
    assert all(sample.split == split for split, samples in first.splits.items() for sample in samples)


@pytest.mark.parametrize(("count", "expected"), [(1, [1]), (2, [1, 1]), (3, [1, 1, 1]), (4, [2, 1, 1])])
def test_few_frames_are_split_so_that_they_can_be_trained_on(tmp_path: Path, count: int, expected: list[int]) -> None:
    for i in range(count):
        put(tmp_path, "", f"f{i}", value=i)
    data = load_dataset(DataSection(dir=str(tmp_path)), seed=0, need=())
    assert [len(samples) for samples in data.splits.values()] == expected
    assert list(data.splits) == ["train", "val", "test"][:len(expected)]


def test_missing_val_is_drawn_from_train_and_missing_test_is_left_out(folder: Path) -> None:
    for kind in ("images", "masks"):
        for split in ("valid", "test"):
            for path in (folder / kind / split).iterdir():
                path.unlink()
            (folder / kind / split).rmdir()
    data = load_dataset(DataSection(dir=str(folder)), seed=0)
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 3, "val": 1}
    assert "val: 1 frame by rank" in data.split_rule


def test_hash_follows_content_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    before = load_dataset(DataSection(dir=str(folder)), seed=0).sha256
    moved = folder.rename(tmp_path / "elsewhere")
    assert load_dataset(DataSection(dir=str(moved)), seed=0).sha256 == before
    put(moved, "train", "train0", value=99)
    assert load_dataset(DataSection(dir=str(moved)), seed=0).sha256 != before


def test_missing_partner_is_refused_with_its_name(folder: Path) -> None:
    (folder / "masks/train/train2.png").unlink()
    with pytest.raises(DataError, match=r"images/train/train2\.png: no mask masks/train/train2.*edgeseg data check"):
        load(folder)


def test_places_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not set"):
        load_dataset(DataSection(), seed=0)
    with pytest.raises(InputMissingError, match="is not a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputMissingError, match="holds nothing; expected images/ and masks/"):
        load(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputMissingError, match="no images found"):
        load(tmp_path)


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path, "", f"f{i}", value=i)
        Image.fromarray(np.full((24, 32), 255 * (i % 2), dtype=np.uint8)).save(tmp_path / f"masks/f{i}.png")
    with pytest.raises(DataError, match="one class only"):
        load(tmp_path, masks="index")


def test_store_keeps_frames_in_memory_or_in_a_file(folder: Path, tmp_path: Path) -> None:
    put(folder, "train", "large", value=77, hw=(700, 700))
    samples = load_dataset(DataSection(dir=str(folder)), seed=0).splits["train"]
    memory = FrameStore(samples, num_classes=2, memory_limit_mb=100)
    mapped = FrameStore(samples, num_classes=2, memory_limit_mb=1, cache_dir=tmp_path / "cache")
    unnamed = FrameStore(samples, num_classes=2, memory_limit_mb=1)
    assert (memory.is_mapped, mapped.is_mapped, unnamed.is_mapped) == (False, True, True)
    for store in (mapped, unnamed):
        for a, b in zip(memory, store, strict=True):
            np.testing.assert_array_equal(a[0], b[0])
            np.testing.assert_array_equal(a[1], b[1])
    with pytest.raises(ValueError, match="read-only"):
        memory[0][0][0] = 0
    (cache,) = (tmp_path / "cache").iterdir()
    written = cache.stat().st_mtime_ns
    FrameStore(samples, num_classes=2, memory_limit_mb=1, cache_dir=tmp_path / "cache")
    assert cache.stat().st_mtime_ns == written, "the second store decoded again"


def test_store_refuses_bad_files(folder: Path) -> None:
    samples = load_dataset(DataSection(dir=str(folder)), seed=0).splits["train"]
    Image.fromarray(np.full((24, 32), 7, dtype=np.uint8)).save(samples[0].label)
    with pytest.raises(DataError, match=r"7 \(768 pixels\) are outside the classes 0\.\.1"):
        FrameStore(samples, num_classes=2, memory_limit_mb=10)
    Image.fromarray(np.zeros((32, 24), dtype=np.uint8)).save(samples[0].label)
    with pytest.raises(DataError, match=r"24x32, its image 32x24.*swapped"):
        FrameStore(samples, num_classes=2, memory_limit_mb=10)
    samples[0].image.write_bytes(samples[0].image.read_bytes()[:200])
    with pytest.raises(DataError, match="not a readable image"):
        FrameStore(samples, num_classes=2, memory_limit_mb=10)


def test_a_failed_decode_leaves_no_half_written_cache(folder: Path, tmp_path: Path) -> None:
    put(folder, "train", "large", value=77, hw=(700, 700))
    samples = load_dataset(DataSection(dir=str(folder)), seed=0).splits["train"]
    samples[2].label.write_bytes(b"")
    with pytest.raises(DataError):
        FrameStore(samples, num_classes=2, memory_limit_mb=1, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_exif_orientation_is_applied_to_image_and_mask(tmp_path: Path) -> None:
    put(tmp_path, "", "a", value=1)
    put(tmp_path, "", "b", value=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.zeros((32, 24, 3), dtype=np.uint8)
    Image.fromarray(stored).save(tmp_path / "images/a.png", exif=exif)  # upright: 24 rows, 32 columns
    data = load_dataset(DataSection(dir=str(tmp_path), val_share=0.5, test_share=0.0), seed=0)
    samples = [sample for split in data.splits.values() for sample in split]
    for limit in (1, 10):
        store = FrameStore(samples, num_classes=2, memory_limit_mb=limit)
        assert all(frame.shape == (24, 32, 3) for frame, _ in store)


def test_a_split_that_was_never_labelled_is_one_problem(folder: Path) -> None:
    shutil.rmtree(folder / "masks/train")
    with pytest.raises(DataError, match=r"^images/train: holds 4 files, but there is no masks/train/; .* away; type: edgeseg data check"):
        load(folder)


def test_full_disk_is_an_error_and_not_a_crash(folder: Path) -> None:
    """The kernel's own full device stands in for a full disk."""
    put(folder, "train", "large", value=77, hw=(700, 700))
    store = FrameStore(load_dataset(DataSection(dir=str(folder)), seed=0).splits["train"], num_classes=2, memory_limit_mb=1)
    with Path("/dev/full").open("wb") as full, pytest.raises(OSError, match="No space left"):
        store._write(full)
