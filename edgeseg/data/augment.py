"""What a training frame may look like: one crop, resampled once, with colour folded into one 3x4 matrix.

Scale 1 means the scale the network sees on the device: the frame placed at model size by `[data] resize`. The crop is cut out of the
original frame in one resize with a box, by the filter of `edgeseg.core.images` (bilinear, antialiased when shrinking), so a frame larger
than the model loses nothing twice. OpenCV knows no boxes: with `[data] resizer = "opencv"` the whole frame is brought to the scale and the
crop cut out of it, the same pixels of the same grid. Labels are nearest neighbour, never interpolated. What lies outside the frame is gray
114, as in a letterbox, with label 255.

Legend: H/W = rows/columns of the frame, h/w = of the crop; x right, y down, in pixels, edges at integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edgeseg.core.config import AugmentSection
from edgeseg.core.errors import ConfigError
from edgeseg.core.images import IGNORE_INDEX, RESIZE_POLICIES, ClassMap, Frame, resize_frame

_FILL: Final = (114, 114, 114)
_RGB_TO_YIQ: Final = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""NTSC, FCC 1953; luma weights of ITU-R BT.601."""
_YIQ_TO_RGB: Final = np.linalg.inv(_RGB_TO_YIQ)
_LUMA: Final = _RGB_TO_YIQ[0]
_NUM_DRAWS: Final = 12


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One set of random choices, ready to apply. `colour` is [3, 4]: colours as columns, the last column an offset."""

    scale: float
    place_y: float
    place_x: float
    flip: bool
    flip_vertical: bool
    rotate_deg: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    blur_radius: float


def draw(section: AugmentSection, rng: np.random.Generator) -> Draw:
    """Draw all choices in a fixed order and number, so that switching one off does not move the others."""
    u = rng.random(_NUM_DRAWS)
    low, high = section.scale

    def around(value: float, largest: float) -> float:
        return (2 * value - 1) * largest

    return Draw(
        scale=math.exp(math.log(low) + float(u[0]) * (math.log(high) - math.log(low))),
        place_y=float(u[1]),
        place_x=float(u[2]),
        flip=bool(u[3] < section.flip),
        flip_vertical=bool(u[4] < section.flip_vertical),
        rotate_deg=around(float(u[5]), section.rotate_deg),
        brightness=1 + around(float(u[6]), section.brightness),
        contrast=1 + around(float(u[7]), section.contrast),
        saturation=1 + around(float(u[8]), section.saturation),
        hue=around(float(u[9]), section.hue),
        blur_radius=0.4 + 1.1 * float(u[11]) if u[10] < section.blur else 0.0,
    )


def colour_matrix(choice: Draw, mean_rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """[3, 4] matrix of hue, then saturation, brightness and contrast, for colours in 0..255.

    Hue turns the I-Q plane of YIQ by `hue` of a full circle, which keeps luma and is linear. Saturation mixes with luma, brightness
    multiplies, contrast pulls away from the mean luma of the frame (`mean_rgb`).
    """
    angle = 2 * math.pi * choice.hue
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    hue = _YIQ_TO_RGB @ turn @ _RGB_TO_YIQ
    saturation = choice.saturation * np.eye(3) + (1 - choice.saturation) * np.outer(np.ones(3), _LUMA)
    linear = choice.contrast * choice.brightness * saturation @ hue
    pivot = choice.brightness * float(_LUMA @ mean_rgb)
    return np.concatenate([linear, np.full((3, 1), (1 - choice.contrast) * pivot)], axis=1)


def augment(
    frame_HWC: Frame,
    label_HW: ClassMap,
    *,
    crop_hw: tuple[int, int],
    section: AugmentSection,
    rng: np.random.Generator,
    model_hw: tuple[int, int] | None = None,
    resize: str = "stretch",
    resizer: str = "pillow",
) -> tuple[Frame, ClassMap]:
    """Cut one augmented crop: frame uint8 [h, w, 3] and label uint8 [h, w], both of `crop_hw`.

    `model_hw` and `resize` are `[data] size` and `[data] resize`: they fix what scale 1 means. Without `model_hw` it is the frame's own.
    `resizer` is `[data] resizer`.

    Raises:
        ConfigError: an unknown resize policy.
        MissingExtraError: `resizer` is not installed.
    """
    choice = draw(section, rng)
    view = look(choice, frame_hw=(label_HW.shape[0], label_HW.shape[1]), crop_hw=crop_hw, model_hw=model_hw, resize=resize)
    return view.frame(frame_HWC, resizer), view.label(label_HW, outside=IGNORE_INDEX)


@dataclass(frozen=True, kw_only=True)
class View:
    """Where a crop lies in a frame: applied to the frame and to any number of labels of the same size alike."""

    choice: Draw
    crop_hw: tuple[int, int]
    region_hw: tuple[int, int]
    """What is cut before it is turned; the crop itself where nothing is turned."""
    read_yx: tuple[slice, slice]
    """Rows and columns that are read."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom of what is shown, in the pixels read."""
    part_hw: tuple[int, int]
    part_yx: tuple[int, int]
    """Size of what is shown in the region, and where it lies there; the rest is outside the frame."""
    whole_hw: tuple[int, int]
    shown_yx: tuple[int, int]
    """Size of the whole frame at this scale, and where in it what is shown begins: another way to say `box`."""

    def frame(self, frame_HWC: Frame, resizer: str) -> Frame:
        """Crop of the frame, recoloured: uint8 [h, w, 3]."""
        if resizer == "pillow":
            return self._finish(self._read(frame_HWC, Image.Resampling.BILINEAR), Image.Resampling.BILINEAR, _FILL)
        (y, x), (h, w) = self.shown_yx, self.part_hw
        shown_HWC = resize_frame(np.ascontiguousarray(frame_HWC), *self.whole_hw, resizer)[y : y + h, x : x + w]
        return self._finish(Image.fromarray(np.ascontiguousarray(shown_HWC)), Image.Resampling.BILINEAR, _FILL)

    def label(self, label_HW: ClassMap, *, outside: int) -> ClassMap:
        """Crop of a label or of a mask, nearest neighbour: uint8 [h, w]; `outside` is what lies outside the frame."""
        return self._finish(self._read(label_HW, Image.Resampling.NEAREST), Image.Resampling.NEAREST, outside)

    def _read(self, array: NDArray[np.uint8], how: Image.Resampling) -> Image.Image:
        part = Image.fromarray(np.ascontiguousarray(array[self.read_yx]))  # only what is read is copied
        return part.resize(self.part_hw[::-1], how, box=self.box)

    def _finish(self, part: Image.Image, how: Image.Resampling, fill: int | tuple[int, int, int]) -> NDArray[np.uint8]:
        if part.mode == "RGB":
            part = _recolour(part, self.choice)
        if self.part_hw != self.region_hw:
            part = _pad(part, self.region_hw[::-1], self.part_yx[::-1], fill)
        if self.choice.rotate_deg != 0:
            part = _turn(part, self.crop_hw[::-1], self.choice.rotate_deg, how, fill)
        rows = slice(None, None, -1 if self.choice.flip_vertical else 1)
        columns = slice(None, None, -1 if self.choice.flip else 1)
        return np.ascontiguousarray(np.asarray(part)[rows, columns])


def look(
    choice: Draw, *, frame_hw: tuple[int, int], crop_hw: tuple[int, int], model_hw: tuple[int, int] | None, resize: str
) -> View:
    """Place the crop of `choice` in a frame; the arguments are those of `augment`.

    Raises:
        ConfigError: an unknown resize policy.
    """
    scale_y, scale_x = _base_scale(frame_hw, model_hw, resize)
    scale_y, scale_x = scale_y * choice.scale, scale_x * choice.scale
    h, w = crop_hw
    radians = math.radians(choice.rotate_deg)
    sin, cos = abs(math.sin(radians)), abs(math.cos(radians))
    # The region that holds the crop after it is turned (the crop itself where it is not).
    region_h, region_w = (h, w) if choice.rotate_deg == 0 else (math.ceil(h * cos + w * sin), math.ceil(h * sin + w * cos))
    top, bottom, out_top, out_h, y0, y1, whole_h, shown_y = _interval(frame_hw[0], scale_y, region_h, choice.place_y)
    left, right, out_left, out_w, x0, x1, whole_w, shown_x = _interval(frame_hw[1], scale_x, region_w, choice.place_x)
    return View(choice=choice, crop_hw=crop_hw, region_hw=(region_h, region_w), read_yx=(slice(top, bottom), slice(left, right)),
                box=(x0 - left, y0 - top, x1 - left, y1 - top), part_hw=(out_h, out_w), part_yx=(out_top, out_left),
                whole_hw=(whole_h, whole_w), shown_yx=(shown_y, shown_x))


def _base_scale(frame_hw: tuple[int, ...], model_hw: tuple[int, int] | None, resize: str) -> tuple[float, float]:
    """Rows and columns at model size per row and column of the frame (`edgeseg.core.images.place`)."""
    if resize not in RESIZE_POLICIES:
        raise ConfigError(f"resize policy '{resize}' is unknown; one of {', '.join(RESIZE_POLICIES)}")
    if model_hw is None or resize == "tile":
        return 1.0, 1.0
    scale_y, scale_x = model_hw[0] / frame_hw[0], model_hw[1] / frame_hw[1]
    return (scale_y, scale_x) if resize == "stretch" else (min(scale_y, scale_x),) * 2


def _interval(length: int, scale: float, wanted: int, place: float) -> tuple[int, int, int, int, float, float, int, int]:
    """Cut `wanted` output pixels at `scale` out of `length` input pixels, at `place` (0..1) of the room there is.

    Returns the input pixels read (first, one past the last), where the part starts in the output, how many output pixels it fills, the
    input interval those show, and the length of all the input at this scale with the first pixel of it that is shown.
    """
    scaled = max(1, round(length * scale))
    if scaled <= wanted:  # all of it fits; the rest of the output is outside the frame
        return 0, length, round(place * (wanted - scaled)), scaled, 0.0, float(length), scaled, 0
    first = round(place * (scaled - wanted))
    start = first * length / scaled
    end = min(float(length), start + wanted * length / scaled)
    margin = math.ceil(length / scaled) + 1  # support of the antialiasing filter
    return max(0, math.floor(start) - margin), min(length, math.ceil(end) + margin), 0, wanted, start, end, scaled, first


def _recolour(part: Image.Image, choice: Draw) -> Image.Image:
    sample = np.asarray(part)[::8, ::8].reshape(-1, 3)
    matrix = colour_matrix(choice, sample.mean(axis=0, dtype=np.float64))
    if not np.array_equal(matrix, np.eye(3, 4)):
        part = part.convert("RGB", tuple(float(value) for value in matrix.reshape(-1)))
    return part.filter(ImageFilter.GaussianBlur(choice.blur_radius)) if choice.blur_radius > 0 else part


def _pad(part: Image.Image, size_wh: tuple[int, int], at_xy: tuple[int, int], fill: int | tuple[int, int, int]) -> Image.Image:
    canvas = Image.new(part.mode, size_wh, fill)
    canvas.paste(part, at_xy)
    return canvas


def _turn(
    part: Image.Image, size_wh: tuple[int, int], degrees: float, how: Image.Resampling, fill: int | tuple[int, int, int]
) -> Image.Image:
    """Turn about the centre and cut the middle of `size_wh`; corners that leave the region get `fill`."""
    w, h = size_wh
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    centre_x, centre_y = part.width / 2, part.height / 2
    affine = (cos, sin, centre_x - cos * w / 2 - sin * h / 2, -sin, cos, centre_y + sin * w / 2 - cos * h / 2)
    return part.transform(size_wh, Image.Transform.AFFINE, affine, how, fillcolor=fill)
