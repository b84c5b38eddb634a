"""Data Science Bowl 2018, stage 1, with the community's fixes: `stage1_train/ID/images/ID.png` and one mask a nucleus in `masks/`."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import numpy as np
from PIL import Image

from edgeseg.core.images import write_class_map
from edgeseg.data.get.content import labels_sha256, members, write_index, wrong

CONTENT_SHA256: Final = "cbf628307c159a7006ae44cdef49f19cb496b7d704ab4aca80cfb774a7525fba"
NUM_IMAGES: Final = 664
SAMPLE: Final = (
    "train/00071198d059ba7f.png", "train/12f89395ad5d2149.png", "train/24a20f2a529cede5.png", "train/37ed50eea5a1e0ba.png",
    "train/4cbd6c37f3a55a53.png", "train/5d75a63972ef643e.png", "train/70827e40a7155391.png", "train/87ea72894f6534b2.png",
    "train/9c95eae11da04118.png", "train/abd8dde78f8d37b6.png", "train/bb8ebf465c968a5f.png", "train/cdab367b30db4706.png",
    "val/0acd2c223d300ea5.png", "val/2cfa857e63be1b41.png", "val/4ca5081854df7bbc.png", "val/610f32e2d9d270d7.png",
    "test/0121d6759c5adb29.png", "test/0a7d30b252359a10.png", "test/1631352dbafb8a90.png", "test/2869fad54664677e.png",
    "test/2f929b067a59f885.png", "test/3b75fc03a1d12b29.png", "test/5488e8df5440ee51.png", "test/602f267432e7a573.png",
)
"""Masks that `CONTENT_SHA256` covers. The whole set was not at hand when it was written; the number of images is checked besides."""
_MASK = re.compile(r"stage1_train/([0-9a-f]{64})/masks/[0-9a-f]+\.png\Z")


def pack(archive: ZipFile, root: Path) -> None:
    """The union of an image's masks is its label. Ordered by the SHA-256 of their id: 133 test, 66 val, the rest train."""
    files = members(archive)
    masks: dict[str, list[str]] = {}
    for path in files:
        if found := _MASK.match(path):
            masks.setdefault(found[1], []).append(path)
    if len(masks) != NUM_IMAGES:
        raise wrong(archive, f"{len(masks)} images with masks instead of {NUM_IMAGES}")
    for rank, name in enumerate(sorted(masks, key=lambda name: hashlib.sha256(name.encode()).hexdigest())):
        split = "test" if rank < 133 else "val" if rank < 199 else "train"
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        image_path = f"stage1_train/{name}/images/{name}.png"
        if image_path not in files:
            raise wrong(archive, f"{image_path} is not in it")
        (root / "images" / split / f"{name[:16]}.png").write_bytes(archive.read(files[image_path]))
        label = None
        for path in sorted(masks[name]):
            with Image.open(io.BytesIO(archive.read(files[path]))) as image:
                nucleus = np.asarray(image.convert("L")) > 0
            label = nucleus if label is None else label | nucleus
        assert label is not None
        write_class_map(root / "masks" / split / f"{name[:16]}.png", label.astype(np.uint8))
    write_index(root, name="nuclei", classes=("background", "nucleus"), palette=((0, 0, 0), (255, 60, 60)))


def verify(root: Path) -> str:
    """Hash of the masks of `SAMPLE`."""
    return labels_sha256(root, [root / "masks" / name for name in SAMPLE if (root / "masks" / name).is_file()])
