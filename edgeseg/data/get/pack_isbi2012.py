"""ISBI 2012 as a public copy of the labelled stack has it: `data/membrane/train/{image,label}/N.png`, 0 = membrane, 255 = cell."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import numpy as np
from PIL import Image

from edgeseg.core.images import write_class_map
from edgeseg.data.get.content import labels_sha256, members, write_index, wrong

CONTENT_SHA256: Final = "6f97c8ee5d2a16ac2fb4004d4e0f0295af5179a602993a7405763a8d3cdc0747"
NUM_SLICES: Final = 30


def pack(archive: ZipFile, root: Path) -> None:
    """Slices 0 to 19 train, 20 to 24 val, 25 to 29 test: neighbouring slices look alike, so they are not mixed."""
    files = members(archive)
    for number in range(NUM_SLICES):
        paths = [f"data/membrane/train/{kind}/{number}.png" for kind in ("image", "label")]
        if any(path not in files for path in paths):
            raise wrong(archive, f"slice {number} is not in it")
        split = "train" if number < 20 else "val" if number < 25 else "test"
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        (root / "images" / split / f"{number:02}.png").write_bytes(archive.read(files[paths[0]]))
        with Image.open(io.BytesIO(archive.read(files[paths[1]]))) as image:
            membrane = (np.asarray(image.convert("L")) == 0).astype(np.uint8)
        write_class_map(root / "masks" / split / f"{number:02}.png", membrane)
    write_index(root, name="isbi2012", classes=("cell", "membrane"), palette=((0, 0, 0), (255, 60, 60)))


def verify(root: Path) -> str:
    """Hash of every mask."""
    return labels_sha256(root)
