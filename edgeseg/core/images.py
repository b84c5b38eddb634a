"""Frame in, class map out: the one module that turns files into arrays and frame size into model size and back.

Training, evaluation, calibration and every board go through here, so a frame is prepared in one way only.

How a file becomes a frame (uint8, HWC, RGB):

1. EXIF orientation is applied (to class maps as well).
2. 16-bit gray is scaled linearly, `round(v / 257)`, so that 0..65535 becomes 0..255; never clipped, never stretched
   to the frame's own range, since brightness carries meaning.
3. Gray is repeated over the three channels; palette images are looked up; CMYK, YCbCr and the like are converted by Pillow;
   an alpha channel is dropped (the colour below it is kept).
4. Floating-point and 32-bit images have no agreed range and are refused.

By whose filter a frame comes to another size the contract says (`resizer`), for training and every board alike: `pillow`, or `opencv`
(`edgeseg.core.resizers`), which is several times faster and another filter. Both put the centre of a pixel at its half, as the labels'
nearest does.

Legend: H/W = rows/columns of the frame, h/w = rows/columns at model size.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.errors import ConfigError, DataError
from edgeseg.core.files import atomic_path
from edgeseg.core.resizers import RESIZERS, by_opencv

if TYPE_CHECKING:
    from PIL import Image  # 3 MB, loaded where a file is read or written, or a size changed: frames of a camera need neither

Frame = NDArray[np.uint8]
"""uint8, [H, W, 3], RGB."""
ClassMap = NDArray[np.uint8]
"""uint8, [H, W], class index; 255 = ignore (labels only)."""

IGNORE_INDEX: Final = 255
IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
RESIZE_POLICIES: Final = ("stretch", "letterbox", "tile")
MAX_PIXELS: Final = 100_000_000
"""A frame above this is refused before it is decoded (a decompression bomb, or a scan that needs cutting up first)."""

_PAD_GRAY: Final = 114
"""Letterbox border. Any constant does as long as training and boards share it; 114 is near the mean of natural images."""
_ORIENTATION: Final = 0x0112
"""EXIF tag; values from 5 on exchange rows and columns."""

ScaleOf = Callable[[tuple[int, int]], int]
"""By how much (1, 2, 4 or 8) a JPEG of an upright size [H, W] may be decoded smaller."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame on its way to the model, in the form it was decoded to: what is only resized need not become an array before."""

    pixels: Frame | Image.Image
    """An array, or an upright Pillow image of mode RGB: the same values."""
    frame_hw: tuple[int, int]
    """Size of the frame. The pixels are fewer only where a JPEG was decoded at reduced scale."""

    @property
    def frame_HWC(self) -> Frame:
        """The pixels as an array, uint8 [H, W, 3]."""
        return self.pixels if isinstance(self.pixels, np.ndarray) else np.asarray(self.pixels)


def picture_of(frame_HWC: Frame) -> Picture:
    """Wrap a frame that is in memory already."""
    return Picture(frame_HWC, (frame_HWC.shape[0], frame_HWC.shape[1]))


def open_image(source: Path | bytes, *, name: str, scale_of: ScaleOf | None = None) -> Image.Image:
    """Decode a file completely and turn it upright (EXIF), in its own mode; a JPEG smaller by `scale_of` where that is given.

    Raises:
        DataError: damaged, or larger than `MAX_PIXELS`.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream, Image.open(stream) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{name}: {image.width}x{image.height} pixels is more than {MAX_PIXELS}; cut it into smaller frames")
                if scale_of is not None and image.format == "JPEG":
                    scale = scale_of(_upright_hw(image))
                    image.draft(None, (image.width // scale, image.height // scale))
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                upright: Image.Image = image  # of Pillow's own type, not of the file's
                return upright
    except DataError:
        raise
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # Pillow raises a dozen types for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{name}: not a readable image ({reason})") from error


def _upright_hw(image: Image.Image) -> tuple[int, int]:
    turned = image.getexif().get(_ORIENTATION, 1) >= 5
    return (image.width, image.height) if turned else (image.height, image.width)


def frame_from_image(image: Image.Image, *, name: str) -> Frame:
    """Convert a decoded Pillow image by the rule at the head of this module; `DataError` where it has none."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        gray = np.asarray(image).astype(np.uint32)
        gray_u8 = ((gray + 128) // 257).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(gray_u8[:, :, None], 3, axis=2))
    if image.mode == "I":
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise DataError(f"{name}: 32-bit image with values outside 0..65535; convert it to 8 or 16 bit first")
        gray_u8 = ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(gray_u8[:, :, None], 3, axis=2))
    if image.mode == "F":
        raise DataError(f"{name}: floating-point image without an agreed range; convert it to 8 or 16 bit first")
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "RGBA":  # drop alpha, do not blend: blending would invent a background
        return np.ascontiguousarray(np.asarray(image)[:, :, :3])
    return np.ascontiguousarray(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))


def read_frame(source: Path | bytes, *, name: str = "") -> Frame:
    """Read an image file (or its bytes) as uint8 [H, W, 3] RGB by the rule at the head of this module.

    Raises:
        DataError: the file is damaged, too large, or of a kind that has no agreed range.
    """
    label = name or (source.name if isinstance(source, Path) else "image")
    return frame_from_image(open_image(source, name=label), name=label)


def read_picture(source: Path | bytes, *, name: str = "", scale_of: ScaleOf | None = None) -> Picture:
    """Read an image file as `read_frame` does, without making an array of what Pillow can resize as it is.

    Raises:
        DataError: see `read_frame`.
    """
    label = name or (source.name if isinstance(source, Path) else "image")
    full_hw: list[tuple[int, int]] = []

    def noted(frame_hw: tuple[int, int]) -> int:
        full_hw.append(frame_hw)
        return scale_of(frame_hw) if scale_of is not None else 1

    image = open_image(source, name=label, scale_of=None if scale_of is None else noted)
    pixels = image if image.mode == "RGB" else frame_from_image(image, name=label)
    return Picture(pixels, full_hw[0] if full_hw else (image.height, image.width))


def read_class_map(path: Path) -> ClassMap:
    """Read a label as uint8 [H, W] of class indices; palette masks give their indices, never their colours.

    Raises:
        DataError: damaged, a colour image, or an index that does not fit 8 bits.
    """
    image = open_image(path, name=path.name)
    if image.mode in ("L", "P"):
        return np.ascontiguousarray(np.asarray(image, dtype=np.uint8))
    if image.mode == "1":
        return np.ascontiguousarray(np.asarray(image).astype(np.uint8))
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 255:
            raise DataError(f"{path.name}: mask value {int(wide.max())} does not fit a class index (0..254, 255 = ignore)")
        return np.ascontiguousarray(wide.astype(np.uint8))
    raise DataError(
        f"{path.name}: a colour mask (mode {image.mode}) where class indices were expected; "
        "save it as 8-bit gray or palette PNG with one index per class"
    )


def write_class_map(
    path: Path, class_map_HW: ClassMap, *, palette: tuple[tuple[int, int, int], ...] = (), sync_name: bool = True,
) -> None:
    """Write a class map as an 8-bit PNG (palette PNG when a palette is given), atomically (`sync_name`: see `atomic_path`)."""
    data = _class_map_png(class_map_HW, palette)
    with atomic_path(path, sync_name=sync_name) as temporary:
        temporary.write_bytes(data)


def _class_map_png(class_map_HW: ClassMap, palette: tuple[tuple[int, int, int], ...]) -> bytes:
    """A class map as the bytes of a PNG (W3C, Portable Network Graphics, third edition), in less than half the time that Pillow takes.

    Each row is written as its difference to the one above (filter 2): classes repeat, so nearly all is 0. Compressed by run lengths alone:
    of a class map that is smaller than zlib's default and faster (docs/adr/0023).
    """
    height, width = class_map_HW.shape
    rows = np.empty((height, width + 1), dtype=np.uint8)
    rows[:, 0] = 2
    rows[0, 1:] = class_map_HW[0]
    np.subtract(class_map_HW[1:], class_map_HW[:-1], out=rows[1:, 1:])
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3 if palette else 0, 0, 0, 0))]
    if palette:
        chunks.append((b"PLTE", bytes(value for colour in palette for value in colour)))
    chunks += [(b"IDAT", deflate.compress(rows.data) + deflate.flush()), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def write_frame(path: Path, frame_HWC: Frame) -> None:
    """Write a frame as PNG, atomically."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(frame_HWC).save(temporary, format="PNG")


def write_jpeg(path: Path, frame_HWC: Frame, *, sync_name: bool = True) -> None:
    """Write a picture for people to look at as JPEG (quality 90, colours at full resolution), atomically; never a mask."""
    from PIL import Image

    with atomic_path(path, sync_name=sync_name) as temporary:
        Image.fromarray(frame_HWC).save(temporary, format="JPEG", quality=90, subsampling=0)


def resize_frame(frame_HWC: Frame, height: int, width: int, resizer: str = "pillow", into: Frame | None = None) -> Frame:
    """Bring a frame to another size, uint8 [height, width, 3], in the array `into` where that is given and there is something to be done.

    `pillow`: bilinear with a support that grows when shrinking (antialiased), same result on every machine. `opencv`: see `by_opencv`.

    Raises:
        MissingExtraError: `opencv` without OpenCV; Pillow's filter never takes its place.
    """
    if frame_HWC.shape[:2] == (height, width):
        return frame_HWC
    if resizer == "opencv":
        return by_opencv(frame_HWC, height, width, into)
    from PIL import Image

    return _array_of(Image.fromarray(frame_HWC).resize((width, height), Image.Resampling.BILINEAR), into)


def resize_class_map(class_map_HW: ClassMap, height: int, width: int) -> ClassMap:
    """Nearest neighbour: a label is never interpolated."""
    if class_map_HW.shape == (height, width):
        return class_map_HW
    from PIL import Image

    return np.asarray(Image.fromarray(class_map_HW).resize((width, height), Image.Resampling.NEAREST))


@dataclass(frozen=True)
class Window:
    """A rectangle of the frame (`top, left, height, width`) and where it lies at model size (`m_` fields)."""

    top: int
    left: int
    height: int
    width: int
    m_top: int
    m_left: int
    m_height: int
    m_width: int


@dataclass(frozen=True)
class Placement:
    """How one frame of `frame_hw` maps to one or more model inputs of `model_hw`, and back."""

    frame_hw: tuple[int, int]
    model_hw: tuple[int, int]
    policy: str
    windows: tuple[Window, ...]
    resizer: str = "pillow"


def _starts(length: int, tile: int) -> list[int]:
    """Evenly spread tile starts that cover `length` with no gap; one tile where it fits."""
    if length <= tile:
        return [0]
    count = -(-length // tile)
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def place(frame_hw: tuple[int, int], model_hw: tuple[int, int], policy: str, resizer: str = "pillow") -> Placement:
    """Decide where a frame lies at model size.

    `stretch` resizes both axes freely; `letterbox` keeps the aspect ratio and pads evenly with gray 114; `tile` keeps the
    scale and covers the frame with evenly spread tiles (a frame smaller than a tile is padded). `resizer` does the resizing; where there
    is a contract, ask its `place`, which knows both.

    Raises:
        ConfigError: an unknown policy or resizer.
    """
    (H, W), (h, w) = frame_hw, model_hw
    if policy == "stretch":
        windows = [Window(0, 0, H, W, 0, 0, h, w)]
    elif policy == "letterbox":
        scale = min(h / H, w / W)
        m_h, m_w = max(1, min(h, round(H * scale))), max(1, min(w, round(W * scale)))
        windows = [Window(0, 0, H, W, (h - m_h) // 2, (w - m_w) // 2, m_h, m_w)]
    elif policy == "tile":
        th, tw = min(h, H), min(w, W)
        windows = [Window(t, left, th, tw, (h - th) // 2, (w - tw) // 2, th, tw) for t in _starts(H, th) for left in _starts(W, tw)]
    else:
        raise ConfigError(f"resize policy '{policy}' is unknown; one of {', '.join(RESIZE_POLICIES)}")
    if resizer not in RESIZERS:
        raise ConfigError(f"resizer '{resizer}' is unknown; one of {', '.join(RESIZERS)}")
    return Placement(frame_hw, model_hw, policy, tuple(windows), resizer)


def jpeg_scale(frame_hw: tuple[int, int], model_hw: tuple[int, int], policy: str) -> int:
    """Give the largest of 8, 4, 2 and 1 by which a JPEG can be decoded smaller and still have a pixel for each the model takes of it.

    Not the same answer as decoding it whole: see docs/adr/0020. The sides must divide evenly, so that pixels stay where they are.
    """
    windows = place(frame_hw, model_hw, policy).windows
    if policy == "tile":
        return 1
    least_h, least_w = windows[0].m_height, windows[0].m_width
    (H, W) = frame_hw
    return next((s for s in (8, 4, 2) if H % s == 0 and W % s == 0 and H // s >= least_h and W // s >= least_w), 1)


_PIECE_BYTES: Final = 65536


def _array_of(image: Image.Image, into: Frame | None) -> Frame:
    """Give the pixels of an image of mode RGB.

    Pillow packs them piece by piece; for an array of its own it joins the pieces, into `into` they go one by one (a fifth less time at
    360x480). Its public ways to the pieces, `Image.save` as PPM, took longer than to join and to copy.
    """
    from PIL import Image

    if into is None:
        return np.asarray(image)
    encoder_of = getattr(Image, "_getencoder", None)  # Pillow promises nothing of it
    if encoder_of is None:
        np.copyto(into, np.asarray(image))
        return into
    image.load()
    encoder, memory, position, ended = encoder_of("RGB", "raw", ("RGB",)), into.reshape(-1).data, 0, 0
    try:
        encoder.setimage(image.im, (0, 0, *image.size))
        while not ended:
            _, ended, piece = encoder.encode(max(_PIECE_BYTES, 4 * image.width))
            memory[position : position + len(piece)] = piece
            position += len(piece)
    finally:
        encoder.cleanup()
    assert position == into.nbytes, "three bytes a pixel"
    return into


def to_model(frame_HWC: Frame, placement: Placement) -> list[Frame]:
    """Model inputs of one frame, uint8 [h, w, 3] each: one, or one a tile."""
    return picture_to_model(picture_of(frame_HWC), placement)


def _window(picture: Picture, win: Window, resizer: str, into: Frame | None) -> Frame:
    """The pixels of one window at the size they have at the model: made in `into`, or left where they are there already."""
    pixels = picture.pixels
    whole = (win.top, win.left, win.height, win.width) == (0, 0, *picture.frame_hw)
    if isinstance(pixels, np.ndarray):
        part = pixels if whole else pixels[win.top : win.top + win.height, win.left : win.left + win.width]
        if into is not None and part.shape == into.shape and not part.flags.c_contiguous:
            np.copyto(into, part)
            return into
        return resize_frame(np.ascontiguousarray(part), win.m_height, win.m_width, resizer, into)
    from PIL import Image

    cut = pixels if whole else pixels.crop((win.left, win.top, win.left + win.width, win.top + win.height))
    size = (win.m_width, win.m_height)
    if cut.size == size:
        return _array_of(cut, into)
    if resizer == "opencv":
        return by_opencv(np.asarray(cut), win.m_height, win.m_width, into)
    return _array_of(cut.resize(size, Image.Resampling.BILINEAR), into)


def picture_to_model(picture: Picture, placement: Placement, room: Sequence[Frame] = ()) -> list[Frame]:
    """Model inputs of one picture, the same to the bit as `to_model` gives for its array.

    They lie in the arrays of `room` (one for each window: uint8 [h, w, 3], C-contiguous), but for pixels that are at model size in memory
    already: a decoder's array is handed on as it is.
    """
    h, w = placement.model_hw
    inputs: list[Frame] = []
    rooms: Sequence[Frame | None] = room or [None] * len(placement.windows)
    for win, into in zip(placement.windows, rooms, strict=True):
        if (win.m_height, win.m_width) == (h, w):
            inputs.append(_window(picture, win, placement.resizer, into))
            continue
        part = _window(picture, win, placement.resizer, None)
        padded = np.empty((h, w, 3), np.uint8) if into is None else into
        padded.fill(_PAD_GRAY)
        padded[win.m_top : win.m_top + win.m_height, win.m_left : win.m_left + win.m_width] = part
        inputs.append(padded)
    return inputs


def label_to_model(label_HW: ClassMap, placement: Placement) -> list[ClassMap]:
    """Labels at model size, placed as `to_model` places the frame; padding is `IGNORE_INDEX`."""
    h, w = placement.model_hw
    labels = []
    for win in placement.windows:
        part = label_HW[win.top : win.top + win.height, win.left : win.left + win.width]
        part = resize_class_map(np.ascontiguousarray(part), win.m_height, win.m_width)
        if part.shape != (h, w):
            padded = np.full((h, w), IGNORE_INDEX, dtype=np.uint8)
            padded[win.m_top : win.m_top + win.m_height, win.m_left : win.m_left + win.m_width] = part
            part = padded
        labels.append(np.ascontiguousarray(part))
    return labels


def to_frame(class_maps: list[ClassMap], placement: Placement) -> ClassMap:
    """Put class maps at model size back onto the frame: uint8 [H, W].

    Where tiles overlap, a pixel is taken from the tile whose centre is nearer (its context is larger there).
    """
    H, W = placement.frame_hw
    if len(placement.windows) == 1:
        win = placement.windows[0]
        part = class_maps[0][win.m_top : win.m_top + win.m_height, win.m_left : win.m_left + win.m_width]
        return resize_class_map(np.ascontiguousarray(part), H, W)
    answer = np.zeros((H, W), dtype=np.uint8)
    nearest = np.full((H, W), np.inf, dtype=np.float32)
    for class_map, win in zip(class_maps, placement.windows, strict=True):
        rows = np.abs(np.arange(win.height, dtype=np.float32) - (win.height - 1) / 2) / win.height
        columns = np.abs(np.arange(win.width, dtype=np.float32) - (win.width - 1) / 2) / win.width
        distance = np.maximum(rows[:, None], columns[None, :])
        here = np.s_[win.top : win.top + win.height, win.left : win.left + win.width]
        closer = distance < nearest[here]
        part = class_map[win.m_top : win.m_top + win.m_height, win.m_left : win.m_left + win.m_width]
        answer[here][closer] = part[closer]
        nearest[here][closer] = distance[closer]
    return answer
