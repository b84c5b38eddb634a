"""A synthetic field, seen from a robot: soil, a crop in rows and four weed species, all of them green.

The colour of every plant, crop or weed, is drawn from one distribution; soil carries green moss, plants carry brown spots; shadow, exposure
and white balance change from frame to frame. What tells the classes apart is the form of the leaves and how they are arranged, so a
network has to look at more than a pixel. `colour_baseline` measures how far colour alone gets.

Legend: H/W = rows/columns, C = classes, B = colour bins. Lengths are pixels of a 192x256 frame unless a name says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from edgeseg.core.errors import ConfigError
from edgeseg.core.files import atomic_folder, read_json, write_json
from edgeseg.core.images import IGNORE_INDEX, ClassMap, Frame
from edgeseg.core.metrics import Confusion, score
from edgeseg.data.base import SPLITS, Palette
from edgeseg.data.loader import generator

CLASSES: Final = ("soil", "crop", "weed")
PALETTE: Final[Palette] = ((96, 64, 40), (64, 200, 80), (230, 60, 60))
SOIL, CROP, WEED = range(3)

_MAKER: Final = "edgeseg synthetic field 1"
_FIELD: Final = 3  # what the random numbers are for; 1 and 2 are the loader's
_SUPER: Final = 2  # plants are drawn at twice the size, then averaged
_GOLDEN_ANGLE: Final = math.pi * (3 - math.sqrt(5))  # how leaves of a rosette follow one another

FloatArray = NDArray[np.float32]
Points = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LeafForm:
    """Outline of a leaf: half width along the midrib = half_width * length * sin(pi t^skew)^power * lobes."""

    half_width: float
    """Share of the length."""
    skew: float = 0.8
    power: float = 0.8
    num_lobes: int = 0
    lobe_depth: float = 0.0
    bend: float = 0.15
    petiole: float = 0.0
    """Bare stalk, as a share of the length."""


@dataclass(frozen=True, kw_only=True)
class Species:
    """How a plant is put together."""

    class_index: int
    form: LeafForm
    num_leaves: tuple[int, int]
    length: tuple[float, float]
    patch: float = 0.0
    """Leaves start anywhere within this radius instead of at the heart (creeping plants)."""
    rib: tuple[float, float] = (0.85, 1.1)
    """Brightness of the midrib against the blade."""
    veins: int = 0
    """Pairs of side veins, as bright as the midrib."""


CROP_PLANT: Final = Species(class_index=CROP, num_leaves=(8, 10), length=(36, 46), rib=(1.5, 1.8), veins=3,
                            form=LeafForm(half_width=0.34, skew=1.0, power=0.5, bend=0.12))
WEEDS: Final = {
    "grass": Species(class_index=WEED, num_leaves=(11, 14), length=(44, 58),
                     form=LeafForm(half_width=0.15, skew=0.6, power=0.45, bend=0.3)),
    "round-leaf": Species(class_index=WEED, num_leaves=(10, 13), length=(29, 37),
                          form=LeafForm(half_width=0.36, skew=1.9, power=0.55, petiole=0.1)),
    "thistle": Species(class_index=WEED, num_leaves=(9, 12), length=(40, 50),
                       form=LeafForm(half_width=0.38, skew=0.8, power=0.45, num_lobes=3, lobe_depth=0.5)),
    "creeping": Species(class_index=WEED, num_leaves=(46, 58), length=(14, 17), patch=26,
                        form=LeafForm(half_width=0.46, skew=1.0, power=0.6)),
}


def write_field(
    root: Path,
    *,
    seed: int,
    counts: Mapping[str, int],
    size_hw: tuple[int, int] = (192, 256),
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a data set in the folder layout: `counts` frames per split, the same bytes for the same arguments.

    `root` appears complete or not at all; an earlier synthetic field there is replaced. `progress(done, total)` is called after each frame.

    Raises:
        ConfigError: an unknown split, or `root` holds something else.
    """
    unknown = sorted(set(counts) - set(SPLITS))
    if unknown:
        raise ConfigError(f"split '{unknown[0]}' is unknown; one of {', '.join(SPLITS)}")
    if root.is_dir() and any(root.iterdir()) and not _is_ours(root):
        raise ConfigError(f"{root} holds something that is not a synthetic field; choose another folder, or empty it")
    total, done = sum(counts.values()), 0
    with atomic_folder(root) as folder:
        write_json(folder / "dataset.json", {
            "name": "synthetic-field", "made_by": _MAKER, "seed": seed, "size_hw": list(size_hw), "splits": dict(counts),
            "classes": list(CLASSES), "palette": [list(colour) for colour in PALETTE], "license": "CC0-1.0",
        })
        for split, count in counts.items():
            for kind in ("images", "masks"):
                (folder / kind / split).mkdir(parents=True)
            for index in range(count):
                frame, label = draw_field(seed=seed, split=split, index=index, size_hw=size_hw)
                Image.fromarray(frame).save(folder / "images" / split / f"{index:04}.png", compress_level=1)
                mask = Image.fromarray(label)
                mask.putpalette([value for colour in PALETTE for value in colour])
                mask.save(folder / "masks" / split / f"{index:04}.png")
                done += 1
                if progress is not None:
                    progress(done, total)


def _is_ours(root: Path) -> bool:
    try:
        raw = read_json(root / "dataset.json")
    except (OSError, ValueError):
        return False
    return isinstance(raw, dict) and str(raw.get("made_by", "")).startswith("edgeseg synthetic field")


def draw_field(*, seed: int, split: str, index: int, size_hw: tuple[int, int] = (192, 256)) -> tuple[Frame, ClassMap]:
    """Draw frame `index` of `split`: uint8 [H, W, 3] RGB and its label uint8 [H, W], a function of the arguments alone."""
    rng = generator(seed, purpose=_FIELD, epoch=SPLITS.index(split), index=index)
    height, width = size_hw
    unit = min(height / 192, width / 256) * float(rng.uniform(1.3, 1.65))  # camera height: everything grows together
    soil = _soil(rng, height, width)
    canvas = Image.fromarray(soil).resize((width * _SUPER, height * _SUPER), Image.Resampling.BILINEAR)
    label = Image.new("L", canvas.size, SOIL)
    sun = float(rng.uniform(0, 2 * math.pi))
    _litter(rng, canvas, unit * _SUPER, sun)
    plants = _plan(rng, height, width, unit)
    _cast_shadows(rng, canvas, plants, unit * _SUPER, sun)
    for species, x, y, size in plants:
        _plant(rng, canvas, label, species, (x * _SUPER, y * _SUPER), size * _SUPER, sun)
    frame = _photograph(rng, np.asarray(canvas.reduce(_SUPER)), unit)
    return frame, np.ascontiguousarray(np.asarray(label)[_SUPER // 2 :: _SUPER, _SUPER // 2 :: _SUPER])


def _noise(rng: np.random.Generator, height: int, width: int, cell: float) -> FloatArray:
    """Smooth noise of mean 0 and deviation about 1, with features of `cell` pixels: float32 [H, W]."""
    rows, columns = max(2, round(height / cell) + 1), max(2, round(width / cell) + 1)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _soil(rng: np.random.Generator, height: int, width: int) -> Frame:
    base = np.array([rng.uniform(92, 138), rng.uniform(74, 108), rng.uniform(54, 80)], dtype=np.float32)
    relief = sum((weight * _noise(rng, height, width, cell) for cell, weight in ((48, 0.05), (16, 0.07), (6, 0.08), (2.5, 0.09))),
                 start=0.05 * rng.standard_normal((height, width), dtype=np.float32))
    moss = np.clip(1.4 * _noise(rng, height, width, 22) + 0.7 * _noise(rng, height, width, 5) - rng.uniform(1.7, 2.5), 0, 1)[:, :, None]
    green = np.array(_green(rng), dtype=np.float32)
    colour = base * (1 - 0.85 * moss) + green * (0.85 * moss)
    return np.clip(colour * (1 + relief)[:, :, None], 0, 255).astype(np.uint8)


def _green(rng: np.random.Generator) -> tuple[float, float, float]:
    """The one distribution that the colour of every plant (and of moss) is drawn from."""
    value, warmth, paleness = rng.uniform(120, 195), rng.uniform(0.40, 0.82), rng.uniform(0.25, 0.6)
    return float(value * warmth), float(value), float(value * paleness)


def _shade(colour: tuple[float, float, float], factor: float) -> tuple[int, int, int]:
    red, green, blue = colour
    return min(255, int(red * factor)), min(255, int(green * factor)), min(255, int(blue * factor))


def _litter(rng: np.random.Generator, canvas: Image.Image, unit: float, sun: float) -> None:
    """Stones with a lit and a dark side, and dry stalks."""
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(6, 22))):
        x, y, radius = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height), unit * float(rng.uniform(1.2, 5.5))
        angles = np.linspace(0, 2 * math.pi, 9, endpoint=False)
        radii = radius * rng.uniform(0.7, 1.15, 9)
        outline = np.stack([x + radii * np.cos(angles), y + 0.8 * radii * np.sin(angles)], axis=1)
        gray = float(rng.uniform(95, 185))
        colour = (gray * float(rng.uniform(0.95, 1.08)), gray, gray * float(rng.uniform(0.8, 1.0)))
        away = np.array([math.cos(sun), math.sin(sun)]) * radius * 0.35
        for shift, factor in ((away, 0.35), (0 * away, 0.85), (-0.5 * away, 1.05)):
            shrink = 0.6 if factor > 1 else 1.0
            pen.polygon(_flat((outline - (x, y)) * shrink + (x, y) + shift), fill=_shade(colour, factor))
    for _ in range(int(rng.integers(5, 24))):
        x, y, angle = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height), rng.uniform(0, math.pi)
        length = unit * float(rng.uniform(8, 34))
        straw = _shade((200.0, 172.0, 118.0), float(rng.uniform(0.55, 1.1)))
        end = (x + length * math.cos(angle), y + length * math.sin(angle))
        pen.line([(x, y), end], fill=straw, width=max(1, round(unit * float(rng.uniform(0.5, 1.4)))))


def _plan(rng: np.random.Generator, height: int, width: int, unit: float) -> list[tuple[Species, float, float, float]]:
    """Place the plants: crop along slightly turned rows, weeds anywhere; in random order from below to above."""
    plants: list[tuple[Species, float, float, float]] = []
    tilt, gap, step = float(rng.uniform(-0.22, 0.22)), unit * float(rng.uniform(112, 135)), unit * float(rng.uniform(78, 92))
    age = float(rng.uniform(0.8, 1.1))
    start = float(rng.uniform(0, gap))
    for row in range(-2, int(width / gap) + 3):
        phase = float(rng.uniform(0, step))
        for k in range(-1, int(height / step) + 2):
            if rng.random() < 0.12:
                continue  # a gap where nothing came up
            y = phase + k * step + unit * float(rng.normal(0, 4))
            x = start + row * gap + (y - height / 2) * tilt + unit * float(rng.normal(0, 3))
            plants.append((CROP_PLANT, x, y, unit * age * float(rng.uniform(0.85, 1.15))))
    species = list(WEEDS.values())
    area = height * width / (unit * unit * 192 * 256)
    for _ in range(int(rng.integers(4, 8) * area + 0.5)):
        kind = species[int(rng.integers(len(species)))]
        for _ in range(10):  # weeds overlap the crop at times, but hardly ever lie right on it
            x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
            if all(math.hypot(x - px, y - py) > unit * 58 for _, px, py, _ in plants):
                break
        plants.append((kind, x, y, unit * float(rng.uniform(0.75, 1.2))))
    margin = unit * 60
    plants = [p for p in plants if -margin < p[1] < width + margin and -margin < p[2] < height + margin]
    return [plants[i] for i in rng.permutation(len(plants))]


def _cast_shadows(
    rng: np.random.Generator, canvas: Image.Image, plants: list[tuple[Species, float, float, float]], unit: float, sun: float
) -> None:
    """Darken the soil beside each plant, away from the sun."""
    small = (canvas.width // 8, canvas.height // 8)
    mask = Image.new("L", small, 0)
    pen = ImageDraw.Draw(mask)
    depth = int(rng.uniform(70, 150))
    for species, x, y, size in plants:
        radius = size * 0.75 * max(species.length[0], species.patch) * _SUPER / 8
        cx = x * _SUPER / 8 + math.cos(sun) * unit * 0.6
        cy = y * _SUPER / 8 + math.sin(sun) * unit * 0.6
        pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=depth)
    mask = mask.filter(ImageFilter.GaussianBlur(max(0.5, unit * 0.5))).resize(canvas.size, Image.Resampling.BILINEAR)
    canvas.paste((28, 20, 16), mask=mask)


def _flat(points: Points) -> list[float]:
    return points.reshape(-1).tolist()


def _outlines(form: LeafForm, length_L: Points, bend_L: Points, angle_L: Points, heart_L2: Points) -> tuple[Points, Points, Points]:
    """Midrib, left and right edge of L leaves on the canvas: [L, points, 2] each, base first."""
    t = np.linspace(0, 1, 18 if form.num_lobes else 11)
    half = form.half_width * np.sin(np.pi * np.clip(t, 0.002, 0.998) ** form.skew) ** form.power
    if form.num_lobes:
        half *= 1 - form.lobe_depth * (0.5 + 0.5 * np.cos(2 * np.pi * (form.num_lobes * t + 0.15)))
    along = np.broadcast_to(form.petiole + (1 - form.petiole) * t, (len(length_L), len(t)))
    slope_y = 2 * bend_L[:, None] * t
    across = half / np.hypot(1, slope_y)
    middle = np.stack([along, bend_L[:, None] * t**2], axis=2)
    normal = np.stack([-slope_y * across, across], axis=2)
    cos, sin = length_L * np.cos(angle_L), length_L * np.sin(angle_L)
    turning = np.stack([np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)], axis=1)
    heart = heart_L2[:, None, :]
    return middle @ turning + heart, (middle + normal) @ turning + heart, (middle - normal) @ turning + heart


def _plant(
    rng: np.random.Generator,
    canvas: Image.Image,
    label: Image.Image,
    species: Species,
    at_xy: tuple[float, float],
    size: float,
    sun: float,
) -> None:
    """Draw one plant, outer leaves first, on the frame and on the label. L = leaves."""
    pen, label_pen = ImageDraw.Draw(canvas), ImageDraw.Draw(label)
    form, paint = species.form, species.class_index
    plant_colour = _green(rng)
    count = int(rng.integers(species.num_leaves[0], species.num_leaves[1] + 1))
    turn, rib = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(*species.rib))
    u = rng.random((10, count))
    number = np.arange(count)
    inner = number / count  # later leaves are younger: shorter, brighter, on top
    angle = turn + (2 * math.pi * u[0] if species.patch else number * _GOLDEN_ANGLE) + 0.35 * (u[1] - 0.5)
    length = size * (species.length[0] + u[2] * (species.length[1] - species.length[0])) * (1.0 if species.patch else 1 - 0.4 * inner)
    radius, where = size * species.patch * np.sqrt(u[3]), 2 * math.pi * u[4]
    heart = np.stack([at_xy[0] + radius * np.cos(where), at_xy[1] + radius * np.sin(where)], axis=1)
    middle, left, right = _outlines(form, length, form.bend * (2 * u[5] - 1), angle, heart)
    whole = np.concatenate([left, right[:, ::-1]], axis=1)
    sunny = np.concatenate([left, middle[:, ::-1]], axis=1)
    tone, tint = 0.78 + 0.3 * u[6] + 0.12 * inner, 0.12 * (u[7] - 0.5)
    lit = 0.13 * np.sin(angle - sun)  # the half of the blade that faces the sun is brighter
    for i in range(count):
        colour = (plant_colour[0] * (1 + tint[i]), plant_colour[1], plant_colour[2] * (1 - tint[i]))
        if form.petiole:
            stalk, line = max(2, round(length[i] * 0.09)), _flat(np.stack([heart[i], middle[i, 1]]))
            pen.line(line, fill=_shade(colour, 0.9 * tone[i]), width=stalk)
            label_pen.line(line, fill=paint, width=stalk)
        blade = _flat(whole[i])
        pen.polygon(blade, fill=_shade(colour, tone[i] * (1 - lit[i])), outline=_shade(colour, 0.55 * tone[i]))
        pen.polygon(_flat(sunny[i]), fill=_shade(colour, tone[i] * (1 + lit[i])))
        pen.line(_flat(middle[i]), fill=_shade(colour, tone[i] * rib), width=max(1, round(length[i] * 0.045)))
        for k in range(2, 2 + 2 * species.veins, 2):
            vein = _flat(np.stack([left[i, k + 2], middle[i, k], right[i, k + 2]]))
            pen.line(vein, fill=_shade(colour, tone[i] * (0.3 + 0.7 * rib)), width=max(1, round(length[i] * 0.035)))
        label_pen.polygon(blade, fill=paint, outline=paint)
        if u[8, i] < 0.08:  # a dry or eaten spot
            r = length[i] * (0.05 + 0.06 * u[9, i])
            x, y = middle[i, 4 + i % 5]
            brown = _shade((150.0, 118.0, 70.0), 0.6 + 5 * u[8, i])
            pen.ellipse((x - r, y - 0.7 * r, x + r, y + 0.7 * r), fill=brown)


def _photograph(rng: np.random.Generator, frame_HWC: Frame, unit: float) -> Frame:
    """Light and camera: shadows, a gradient of light, exposure, white balance, texture and sensor noise."""
    height, width = frame_HWC.shape[:2]
    light = 1 + 0.07 * _noise(rng, height, width, 3) + 0.05 * _noise(rng, height, width, 40 * unit)
    ramp_y, ramp_x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    light *= 1 + np.float32(rng.uniform(-0.18, 0.18)) * ramp_y[:, None] + np.float32(rng.uniform(-0.18, 0.18)) * ramp_x[None, :]
    if rng.random() < 0.6:  # the shadow of a machine, a tree, a cloud
        angle, offset, soft = rng.uniform(0, 2 * math.pi), rng.uniform(-0.7, 0.7), rng.uniform(0.03, 0.35)
        side = np.float32(math.cos(angle)) * ramp_x[None, :] + np.float32(math.sin(angle)) * ramp_y[:, None] - np.float32(offset)
        side = side + 0.15 * _noise(rng, height, width, 30 * unit)
        light *= 1 - np.float32(rng.uniform(0.15, 0.45)) * np.clip(side / np.float32(soft) + 0.5, 0, 1)
    exposure = float(rng.uniform(0.8, 1.2))
    warmth, tint = float(rng.uniform(-0.12, 0.12)), float(rng.uniform(-0.06, 0.06))
    gains = np.array([exposure * (1 + warmth), exposure * (1 + tint), exposure * (1 - warmth)], dtype=np.float32)
    noise = np.float32(rng.uniform(2, 6)) * rng.standard_normal(frame_HWC.shape, dtype=np.float32)
    return np.clip(frame_HWC * light[:, :, None] * gains + noise + 0.5, 0, 255).astype(np.uint8)


def colour_baseline(
    train: Iterable[tuple[Frame, ClassMap]], test: Iterable[tuple[Frame, ClassMap]], num_classes: int, *, bits: int = 5
) -> float:
    """Give the mIoU on `test` of a per-pixel colour classifier fitted on `train`: how far colour alone gets.

    A histogram of 2^bits bins a channel per class, then for each bin the class with the most pixels (the Bayes rule), with class weights
    chosen by coordinate ascent for the best mIoU on `train`. Thresholds, vegetation indices and stacks of 1x1 convolutions are functions
    of one pixel's colour; up to the bin width none fits `train` much better. A bin never seen is decided by one of 8 bins a channel.
    """
    fit_BC, eval_BC = _histogram(train, num_classes, bits), _histogram(test, num_classes, bits)
    coarse = np.zeros((512, num_classes), dtype=np.int64)
    level = np.arange(1 << bits) >> (bits - 3)
    parent_B = (level[:, None, None] * 64 + level[None, :, None] * 8 + level[None, None, :]).reshape(-1)
    np.add.at(coarse, parent_B, fit_BC)
    votes_BC = fit_BC + 1e-4 * coarse[parent_B]

    def reached(weights_C: NDArray[np.float64], counts_BC: NDArray[np.int64]) -> float:
        choice_B = np.argmax(votes_BC * weights_C, axis=1)
        confusion: Confusion = np.stack([counts_BC[choice_B == c].sum(axis=0) for c in range(num_classes)], axis=1)
        return score(confusion).miou

    weights = np.ones(num_classes)
    for _ in range(3):
        for c in range(num_classes):
            tries = [np.where(np.arange(num_classes) == c, weights * factor, weights) for factor in 2.0 ** np.arange(-2, 2.01, 0.25)]
            weights = max(tries, key=lambda candidate: reached(candidate, fit_BC))
    return reached(weights, eval_BC)


def _histogram(pairs: Iterable[tuple[Frame, ClassMap]], num_classes: int, bits: int) -> NDArray[np.int64]:
    """Pixels per colour bin and class: int64 [B, C]."""
    counts = np.zeros((1 << 3 * bits) * num_classes, dtype=np.int64)
    for frame_HWC, label_HW in pairs:
        red, green, blue = ((frame_HWC[:, :, c] >> (8 - bits)).astype(np.int64) for c in range(3))
        bins = ((red << bits | green) << bits | blue) * num_classes + label_HW
        counts += np.bincount(bins[label_HW != IGNORE_INDEX], minlength=counts.size)
    return counts.reshape(-1, num_classes)
