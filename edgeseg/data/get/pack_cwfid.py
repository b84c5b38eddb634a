"""CWFID as its authors publish it: `images/NNN_image.png`, `annotations/NNN_annotation.png` (colours), `masks/NNN_mask.png`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import numpy as np
from PIL import Image

from edgeseg.core.images import IGNORE_INDEX, write_class_map
from edgeseg.data.get.content import labels_sha256, members, write_index, wrong

CONTENT_SHA256: Final = "212fe3b66901a9f5019814ee952c02bc5a9bd8ee6e784398434b16d48303ee6c"
NUM_FRAMES: Final = 60
TEST: Final = frozenset({1, 3, 4, 9, 10, 13, 15, 21, 22, 26, 28, 29, 30, 32, 35, 39, 44, 47, 48, 54, 60})
"""The official test split; frame 28 is in the official training split too and is kept out of it."""
VAL: Final = frozenset({23, 31, 42, 50, 57, 58})
"""The six of the remaining training frames whose number, three digits, has the smallest SHA-256."""


def pack(archive: ZipFile, root: Path) -> None:
    """Green = crop, red = weed; plants (black in the mask) that nobody named are 255."""
    files = members(archive)
    for number in range(1, NUM_FRAMES + 1):
        names = [f"{kind}s/{number:03}_{kind}.png" for kind in ("image", "annotation", "mask")]
        missing = [name for name in names if name not in files]
        if missing:
            raise wrong(archive, f"{missing[0]} is not in it")
        frame, annotation, plants = (archive.read(files[name]) for name in names)
        split = "test" if number in TEST else "val" if number in VAL else "train"
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        (root / "images" / split / f"{number:03}.png").write_bytes(frame)
        with Image.open(io.BytesIO(annotation)) as image:
            colours = np.asarray(image.convert("RGB"))
        with Image.open(io.BytesIO(plants)) as image:
            plant = np.asarray(image.convert("L")) == 0
        crop, weed = ((colours == colour).all(axis=2) for colour in ((0, 255, 0), (255, 0, 0)))
        label = np.zeros(plant.shape, np.uint8)
        label[plant] = IGNORE_INDEX
        label[crop], label[weed] = 1, 2
        write_class_map(root / "masks" / split / f"{number:03}.png", label)
    write_index(root, name="cwfid", classes=("soil", "crop", "weed"), palette=((0, 0, 0), (0, 255, 0), (255, 0, 0)))


def verify(root: Path) -> str:
    """Hash of every mask."""
    return labels_sha256(root)
