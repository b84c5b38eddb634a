"""The synthetic field: deterministic, complete or absent, and not to be solved by colour."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError
from edgeseg.data.dataset import load_dataset
from edgeseg.data.synthetic import CLASSES, colour_baseline, draw_field, write_field


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_field(tmp_path / name, seed=seed, counts={"train": 2, "val": 1}, size_hw=(48, 64))
    a, b, c = (load_dataset(DataSection(dir=str(tmp_path / name)), seed=0) for name in "abc")
    assert a.sha256 == b.sha256 != c.sha256
    assert (a.classes, a.name) == (CLASSES, "synthetic-field")
    first, second = (sorted(p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()) for name in "ab")
    assert first == second


def test_a_frame_does_not_depend_on_how_many_are_drawn() -> None:
    frame, label = draw_field(seed=0, split="val", index=3)
    again, _ = draw_field(seed=0, split="val", index=3)
    other, _ = draw_field(seed=0, split="train", index=3)
    assert (frame.shape, frame.dtype, label.shape) == ((192, 256, 3), np.uint8, (192, 256))
    np.testing.assert_array_equal(frame, again)
    assert not np.array_equal(frame, other)


def test_every_class_is_common() -> None:
    labels = np.stack([draw_field(seed=1, split="train", index=i)[1] for i in range(12)])
    share = np.bincount(labels.reshape(-1), minlength=3) / labels.size
    assert len(share) == 3
    assert (share[1:] > 0.08).all()
    assert share[0] < 0.8


def test_colour_alone_does_not_solve_it() -> None:
    """Upper bound of per-pixel classifiers (thresholds, indices, 1x1 convolutions), fitted on twice as many frames as it is tried on."""
    train, test = ([draw_field(seed=0, split=split, index=i) for i in range(count)] for split, count in (("train", 60), ("test", 30)))
    reached = colour_baseline(train, test, 3)
    assert 0.35 < reached < 0.65


def test_colour_baseline_finds_what_colour_can_tell() -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(4):
        label = rng.integers(0, 3, (40, 40)).astype(np.uint8)
        colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], dtype=np.uint8)
        pairs.append((colours[label] + rng.integers(0, 20, (40, 40, 3), dtype=np.uint8), label))
    assert colour_baseline(pairs[:2], pairs[2:], 3) > 0.99


def test_a_frame_is_drawn_quickly() -> None:
    def seconds(index: int) -> float:
        """The least of three: a busy machine makes any of them longer."""
        times = []
        for _ in range(3):
            start = time.thread_time()
            draw_field(seed=0, split="train", index=index)
            times.append(time.thread_time() - start)
        return min(times)

    assert sorted(map(seconds, range(9)))[4] < 0.08  # about 0.02 when the machine is idle


def test_only_its_own_folders_are_replaced(tmp_path: Path) -> None:
    root = tmp_path / "field"
    write_field(root, seed=0, counts={"train": 1}, size_hw=(48, 64))
    write_field(root, seed=0, counts={"val": 1}, size_hw=(48, 64))
    assert sorted(p.name for p in (root / "images").iterdir()) == ["val"]
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a synthetic field"):
        write_field(other, seed=0, counts={"train": 1})
    with pytest.raises(ConfigError, match="split 'dev'"):
        write_field(root, seed=0, counts={"dev": 1})
    assert (other / "thesis.txt").exists()


def test_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_field(tmp_path / "field", seed=0, counts={"train": 3}, size_hw=(48, 64), progress=stop)
    assert not list(tmp_path.iterdir())
