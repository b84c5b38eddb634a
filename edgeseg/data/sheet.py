"""A sheet of overlays to look at: some frames of every split with their labels in colour, outlines of objects, ignored pixels striped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgeseg.core.config import DataSection
from edgeseg.core.errors import DataError
from edgeseg.core.files import atomic_path
from edgeseg.core.images import IGNORE_INDEX, Frame, read_frame
from edgeseg.data.base import SPLITS, Palette, Sample, default_palette
from edgeseg.data.dataset import named_classes, scan_dataset

_TILE_HW: Final = (180, 240)
_CAPTION: Final = 14
_COLUMNS: Final = 6
_PER_SPLIT: Final = 12
_OPACITY: Final = 0.5


def write_sheet(path: Path, section: DataSection, *, seed: int) -> int:
    """Write the sheet as PNG and give the number of frames on it. What cannot be read is on it as a tile that says so.

    Raises:
        ConfigError, InputMissingError: see `edgeseg.data.dataset.scan_dataset`.
    """
    _, _, scan = scan_dataset(section, seed=seed)
    samples = [sample for split in SPLITS for sample in _spread(scan.splits.get(split, ()))]
    names = named_classes(section, scan)
    palette = scan.palette or default_palette(256)[:IGNORE_INDEX]
    tiles = [_tile(sample, palette) for sample in samples]
    used = sorted(set().union(*(seen for _, seen in tiles)) - {IGNORE_INDEX})
    height, width = _TILE_HW[0] + _CAPTION, _TILE_HW[1]
    columns = max(1, min(_COLUMNS, len(tiles)))
    rows = -(-len(tiles) // columns)
    legend_rows = -(-len(used) // max(1, columns * 2))
    sheet = Image.new("RGB", (columns * width, rows * height + legend_rows * _CAPTION + _CAPTION), (255, 255, 255))
    for number, (tile, _) in enumerate(tiles):
        sheet.paste(tile, (number % columns * width, number // columns * height))
    pen = ImageDraw.Draw(sheet)
    for number, index in enumerate(used):
        x, y = number % (columns * 2) * width // 2 + 4, rows * height + number // (columns * 2) * _CAPTION + 4
        pen.rectangle((x, y, x + 9, y + 9), fill=palette[index % len(palette)], outline=(0, 0, 0))
        pen.text((x + 14, y - 1), _ascii(names[index] if index < len(names) else f"class_{index}", 17), fill=(0, 0, 0))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
    return len(tiles)


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    count = min(len(samples), _PER_SPLIT)
    return [samples[i * len(samples) // count] for i in range(count)]


def _tile(sample: Sample, palette: Palette) -> tuple[Image.Image, set[int]]:
    """One captioned tile, and the label values on it."""
    canvas = Image.new("RGB", (_TILE_HW[1], _TILE_HW[0] + _CAPTION), (255, 255, 255))
    pen = ImageDraw.Draw(canvas)
    pen.text((3, _TILE_HW[0] + 1), _ascii(f"{sample.split}: {sample.id.removeprefix(f'{sample.split}/')}", 38), fill=(0, 0, 0))
    try:
        frame = read_frame(sample.image, name=sample.image.name)
        label = sample.read_label(sample.label)
        instances = sample.read_instances() if sample.read_instances is not None else None
    except (DataError, OSError) as error:
        text = str(error)
        for line in range(0, min(len(text), 38 * 10), 38):
            pen.text((3, 3 + line // 38 * _CAPTION), _ascii(text[line : line + 38], 38), fill=(200, 0, 0))
        return canvas, set()
    scale = min(_TILE_HW[0] / frame.shape[0], _TILE_HW[1] / frame.shape[1])
    size_wh = (max(1, int(frame.shape[1] * scale)), max(1, int(frame.shape[0] * scale)))
    small = np.asarray(Image.fromarray(frame).resize(size_wh, Image.Resampling.BOX))
    picture = overlay(small, np.asarray(Image.fromarray(label).resize(size_wh, Image.Resampling.NEAREST)), palette)
    for mask in instances.masks_NHW if instances is not None else ():
        outline = np.asarray(Image.fromarray(mask).resize(size_wh, Image.Resampling.NEAREST))
        picture[_edge(outline)] = (255, 255, 255)
    canvas.paste(Image.fromarray(picture), ((_TILE_HW[1] - size_wh[0]) // 2, (_TILE_HW[0] - size_wh[1]) // 2))
    return canvas, {int(value) for value in np.unique(label)}


def overlay(frame_HWC: Frame, label_HW: NDArray[np.uint8], palette: Palette) -> Frame:
    """Frame with its label blended in, uint8 [H, W, 3]: class 0 left as it is where its colour is black, ignored pixels in stripes."""
    table = np.resize(np.array(palette, dtype=np.float32), (256, 3))
    opacity = np.where(table.any(axis=1), _OPACITY, 0.0).astype(np.float32)
    blend_HW = opacity[label_HW][:, :, None]
    mixed = frame_HWC * (1 - blend_HW) + table[label_HW] * blend_HW
    rows, columns = np.indices(label_HW.shape)
    ignored = label_HW == IGNORE_INDEX
    mixed[ignored] = np.where(((rows + columns) // 4 % 2 == 0)[ignored][:, None], 255, frame_HWC[ignored])
    return np.asarray(mixed + 0.5).astype(np.uint8)


def _edge(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask that have a neighbour outside it."""
    padded = np.pad(mask_HW, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask_HW & ~inside, dtype=np.bool_)


def _ascii(text: str, length: int) -> str:
    """What the built-in font can draw."""
    plain = text.encode("ascii", "replace").decode("ascii")
    return plain if len(plain) <= length else plain[: length - 2] + ".."
