"""Pictures: what is kept as Pillow decoded it reaches the model as the same bits; reduced decoding is what it says."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny_frame

from edgeseg.core.images import jpeg_scale, picture_to_model, place, read_frame, read_picture, to_model

MODEL_HW = (24, 32)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def files() -> dict[str, bytes]:
    colour = Image.fromarray(tiny_frame(1, height=50, width=70))
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "jpeg": encoded(colour, "JPEG"),
        "jpeg of the model's size": encoded(colour.resize((32, 24)), "JPEG"),
        "gray jpeg": encoded(colour.convert("L"), "JPEG"),
        "turned jpeg": encoded(colour, "JPEG", exif=turned),
        "cmyk jpeg": encoded(colour.convert("CMYK"), "JPEG"),
        "png": encoded(colour, "PNG"),
        "palette png": encoded(colour.quantize(20), "PNG"),
        "16-bit png": encoded(Image.fromarray(tiny_frame(2, height=50, width=70)[:, :, 0].astype(np.uint16) * 200), "PNG"),
        "png with alpha": encoded(colour.convert("RGBA"), "PNG"),
        "webp": encoded(colour, "WEBP"),
        "tiff": encoded(colour, "TIFF"),
    }


@pytest.mark.parametrize("policy", ["stretch", "letterbox", "tile"])
@pytest.mark.parametrize("kind", files())
def test_a_picture_gives_the_bits_of_its_frame(kind: str, policy: str) -> None:
    data = files()[kind]
    frame, picture = read_frame(data), read_picture(data)
    assert picture.frame_hw == frame.shape[:2]
    np.testing.assert_array_equal(picture.frame_HWC, frame)
    placement = place(picture.frame_hw, MODEL_HW, policy)
    got, expected = picture_to_model(picture, placement), to_model(frame, placement)
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.flags.c_contiguous
        np.testing.assert_array_equal(one, other)
    room = [np.full((*MODEL_HW, 3), 7, np.uint8) for _ in expected]
    for one, into, other in zip(picture_to_model(picture, placement, room), room, expected, strict=True):
        assert one is into or (isinstance(picture.pixels, np.ndarray) and np.shares_memory(one, picture.pixels))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("frame_hw", [(24, 32), (48, 64), (300, 700)])
def test_pixels_lie_where_they_were_wanted_without_pillows_encoder_too(frame_hw: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    picture = read_picture(encoded(Image.fromarray(tiny_frame(3, height=frame_hw[0], width=frame_hw[1])), "PNG"))
    placement = place(frame_hw, (210, 320) if frame_hw == (300, 700) else MODEL_HW, "stretch")  # of several pieces, or of one
    (expected,) = picture_to_model(picture, placement)
    room = np.full_like(expected, 7)
    for _ in range(2):
        (got,) = picture_to_model(picture, placement, [room])
        assert got is room
        np.testing.assert_array_equal(got, expected)
        room.fill(7)
        monkeypatch.delattr(Image, "_getencoder", raising=False)
        monkeypatch.setattr(Image.Image, "tobytes", lambda image: expected.tobytes())  # which uses it itself


@pytest.mark.parametrize(
    ("frame_hw", "policy", "scale"),
    [
        ((48, 64), "stretch", 2), ((192, 256), "stretch", 8), ((1920, 2560), "stretch", 8), ((24, 32), "stretch", 1),
        ((47, 64), "stretch", 1), ((96, 64), "stretch", 2), ((20, 2000), "stretch", 1), ((100, 100), "letterbox", 4),
        ((192, 256), "tile", 1),
    ],
)
def test_how_far_a_jpeg_may_be_reduced(frame_hw: tuple[int, int], policy: str, scale: int) -> None:
    assert jpeg_scale(frame_hw, MODEL_HW, policy) == scale


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_a_reduced_jpeg_keeps_the_frames_size_and_nearly_its_look(orientation: int) -> None:
    smooth = Image.fromarray(tiny_frame(3, height=6, width=8)).resize((256, 192), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth, "JPEG", quality=95, exif=exif)
    asked = []

    def scale_of(frame_hw: tuple[int, int]) -> int:
        asked.append(frame_hw)
        return jpeg_scale(frame_hw, MODEL_HW, "stretch")

    whole, reduced = read_picture(data), read_picture(data, scale_of=scale_of)
    assert asked == [whole.frame_hw]
    assert reduced.frame_hw == whole.frame_hw == ((192, 256) if orientation == 1 else (256, 192))
    assert reduced.frame_HWC.shape[0] * 4 <= whole.frame_HWC.shape[0]
    placement = place(whole.frame_hw, MODEL_HW, "stretch")
    near, exact = picture_to_model(reduced, placement)[0], picture_to_model(whole, placement)[0]
    assert near.shape == exact.shape
    assert np.abs(near.astype(int) - exact.astype(int)).mean() < 6


def test_only_jpegs_are_reduced() -> None:
    data = encoded(Image.fromarray(tiny_frame(4, height=192, width=256)), "PNG")
    picture = read_picture(data, scale_of=lambda frame_hw: 8)
    assert picture.frame_hw == picture.frame_HWC.shape[:2] == (192, 256)
