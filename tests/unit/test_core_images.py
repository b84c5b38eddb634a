"""One rule from file to frame, and frame size to model size and back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.core import images
from edgeseg.core.errors import ConfigError, DataError


def _png(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", **options)
    return stream.getvalue()


RED = np.full((4, 6, 3), (200, 10, 20), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(RED), (200, 10, 20)),
        (Image.fromarray(np.full((4, 6), 77, np.uint8)), (77, 77, 77)),
        (Image.fromarray(np.dstack([RED, np.zeros((4, 6), np.uint8)])), (200, 10, 20)),
        (Image.fromarray(np.full((4, 6), 65535, np.uint16)), (255, 255, 255)),
        (Image.fromarray(np.full((4, 6), 257 * 100 + 100, np.uint16)), (100, 100, 100)),
        (Image.fromarray(np.full((4, 6), True)), (255, 255, 255)),
    ],
    ids=["rgb", "gray", "rgba-drops-alpha", "16-bit-top", "16-bit-scaled-not-clipped", "1-bit"],
)
def test_every_mode_becomes_rgb_by_one_rule(image: Image.Image, expected: tuple[int, int, int]) -> None:
    frame = images.read_frame(_png(image))
    assert frame.dtype == np.uint8
    assert frame.shape == (4, 6, 3)
    assert np.all(frame == np.array(expected, dtype=np.uint8))


def test_palette_image_is_looked_up() -> None:
    image = Image.fromarray(np.ones((4, 6), np.uint8))
    image.putpalette([0, 0, 0, 9, 8, 7])
    assert np.all(images.read_frame(_png(image)) == (9, 8, 7))


def test_float_image_is_refused() -> None:
    with pytest.raises(DataError, match="floating-point"):
        images.frame_from_image(Image.fromarray(np.zeros((4, 6), np.float32)), name="x.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_frame_and_mask_alike(tmp_path: Path, orientation: int) -> None:
    grid = np.arange(24, dtype=np.uint8).reshape(4, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(grid).save(tmp_path / "mask.png", exif=exif)
    Image.fromarray(np.repeat(grid[:, :, None], 3, 2)).save(tmp_path / "frame.png", exif=exif)
    mask, frame = images.read_class_map(tmp_path / "mask.png"), images.read_frame(tmp_path / "frame.png")
    assert np.array_equal(frame[:, :, 0], mask)
    assert mask.shape == ((4, 6) if orientation <= 4 else (6, 4))
    assert np.array_equal(mask, grid) == (orientation == 1)


def test_damaged_image_is_one_clear_error(tmp_path: Path) -> None:
    data = _png(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.png: not a readable image"):
        images.read_frame(tmp_path / "cut.png")


def test_colour_mask_is_refused(tmp_path: Path) -> None:
    Image.fromarray(RED).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="colour mask"):
        images.read_class_map(tmp_path / "m.png")


@pytest.mark.parametrize("policy", images.RESIZE_POLICIES)
@pytest.mark.parametrize("frame_hw", [(96, 128), (50, 70), (131, 97), (300, 64)])
def test_a_label_survives_the_way_to_model_size_and_back(policy: str, frame_hw: tuple[int, int]) -> None:
    label = np.zeros(frame_hw, dtype=np.uint8)
    label[: frame_hw[0] // 2] = 1
    label[:, frame_hw[1] // 2 :] += 2
    placement = images.place(frame_hw, (96, 128), policy)
    parts = images.label_to_model(label, placement)
    assert all(part.shape == (96, 128) for part in parts)
    back = images.to_frame(parts, placement)
    assert back.shape == frame_hw
    agreement = float(np.mean(back == label))
    assert agreement == 1.0 if policy == "tile" else agreement > 0.94


def test_letterbox_keeps_the_aspect_ratio_and_pads_with_gray() -> None:
    white = np.full((100, 50, 3), 255, dtype=np.uint8)
    (frame,) = images.to_model(white, images.place((100, 50), (64, 64), "letterbox"))
    columns = np.flatnonzero((frame == 255).all(axis=(0, 2)))
    assert columns.min() == 16
    assert columns.max() == 47
    assert np.all(frame[:, 0] == 114)


def test_unknown_policy_is_named() -> None:
    with pytest.raises(ConfigError, match="stretch, letterbox, tile"):
        images.place((4, 4), (4, 4), "crop")


def test_oversized_image_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10)
    with pytest.raises(DataError, match="more than 10"):
        images.read_frame(_png(Image.fromarray(RED)))


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (9, 1), (30, 41)])
@pytest.mark.parametrize("num_colours", [0, 2, 3, 256])
def test_a_class_map_comes_back_whatever_its_values(size_hw: tuple[int, int], num_colours: int, tmp_path: Path) -> None:
    """255 (ignore) too, where the palette is so short that its pixels would fit into fewer bits."""
    class_map = np.random.default_rng(2).choice(np.array([0, 1, 2, 255], np.uint8), size_hw)
    palette = tuple((i, 255 - i, 7) for i in range(num_colours))
    images.write_class_map(tmp_path / "m.png", class_map, palette=palette)
    np.testing.assert_array_equal(images.read_class_map(tmp_path / "m.png"), class_map)
    with Image.open(tmp_path / "m.png") as image:
        image.verify()  # the check sums of all chunks
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == ("P" if palette else "L")
        assert (image.getpalette() or [])[: 3 * num_colours] == [value for colour in palette for value in colour]
