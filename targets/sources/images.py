"""An image, or a folder of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from edgeseg.core.errors import InputMissingError
from edgeseg.core.images import IMAGE_SUFFIXES, read_picture
from targets.sources.base import Source, SourceFrame, SourceOptions


class ImageSource:
    """One image file."""

    def takes(self, text: str) -> bool:
        """A file with the suffix of an image."""
        return Path(text).suffix.lower() in IMAGE_SUFFIXES and not Path(text).is_dir()

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourceKind.open`; a damaged image is told when it is read."""
        path = Path(text)
        return Source(_images([path], path.parent, options), count=1, fps=None)


class FolderSource:
    """The images of a folder and below, sorted by path."""

    def takes(self, text: str) -> bool:
        """A folder that is there."""
        return Path(text).is_dir()

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourceKind.open`; a damaged image is told when it is read."""
        root = Path(text)
        files = sorted(file for file in root.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        if not files:
            raise InputMissingError(f"{root} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); check the folder")
        return Source(_images(files, root, options), count=len(files), fps=None)


def _images(files: list[Path], root: Path, options: SourceOptions) -> Iterator[SourceFrame]:
    """Names without suffix, unless two files would then share one (`a.jpg`, `a.png`), or one have another's (`a.jpg.png`)."""
    full = [file.relative_to(root).as_posix() for file in files]
    bare = [file.relative_to(root).with_suffix("").as_posix() for file in files]
    used = Counter([*full, *bare])
    for file, whole, name in zip(files, full, bare, strict=True):
        unique = name if used[name] == 1 else whole
        yield SourceFrame(unique, partial(read_picture, file, scale_of=options.scale_of))
