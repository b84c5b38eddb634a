"""128 images of COCO train2017 in COCO's own layout: `annotations/instances_train2017.json` and `train2017/`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final
from zipfile import ZipFile

from edgeseg.data.get.content import files_sha256, members, wrong

CONTENT_SHA256: Final = "c90fea966f686dd2a1cbef16fa8a47e4ca423669cfe61e48b13d259ff5ea66b2"
NUM_IMAGES: Final = 128
ANNOTATIONS: Final = "instances_train2017.json"


def pack(archive: ZipFile, root: Path) -> None:
    """Every file as it came."""
    count = 0
    for path, entry in members(archive).items():
        name = PurePosixPath(path).name
        if name == ANNOTATIONS:
            target = root / "annotations" / name
        elif name.endswith(".jpg") and PurePosixPath(path).parent.name == "train2017":
            target = root / "train2017" / name
            count += 1
        else:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(archive.read(entry))
    if count != NUM_IMAGES or not (root / "annotations" / ANNOTATIONS).is_file():
        raise wrong(archive, f"{count} images instead of {NUM_IMAGES}, or no {ANNOTATIONS}")


def verify(root: Path) -> str:
    """Hash of every file."""
    return files_sha256(root, [root / "annotations" / ANNOTATIONS, *root.glob("train2017/*.jpg")])
