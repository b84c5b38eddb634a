"""Where frames come from: images, folders, videos. One frame in memory at a time, never the whole source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.errors import DataError, InputMissingError, require_path
from edgeseg.core.images import IMAGE_SUFFIXES, Frame, read_frame
from edgeseg.core.lazy import require

VIDEO_SUFFIXES: Final = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


@dataclass(frozen=True)
class SourceFrame:
    """A frame and the name its results get (relative, POSIX, without suffix)."""

    name: str
    frame_HWC: Frame


class Source:
    """Frames of a source, in order; iterate once."""

    def __init__(self, frames: Iterator[SourceFrame], *, count: int | None, fps: float | None) -> None:
        """Hold the frames; `count` is `None` where the source does not say, `fps` is set for a video."""
        self.frames = frames
        self.count = count
        self.fps = fps

    @property
    def is_video(self) -> bool:
        """Results make a video, too."""
        return self.fps is not None

    def __iter__(self) -> Iterator[SourceFrame]:
        """Give the frames."""
        return self.frames


def open_source(path: Path) -> Source:
    """Open an image, a folder (images in it and below, sorted by path) or a video.

    Raises:
        InputMissingError: nothing there, or a folder without images.
        DataError: neither an image nor a video, or damaged (images: raised when the damaged one is reached).
        MissingExtraError: a video without the extra `video`.
    """
    require_path(path, what="source")
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        if not files:
            raise InputMissingError(f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}); check the folder")
        return Source(_images(files, path), count=len(files), fps=None)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _open_video(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return Source(_images([path], path.parent), count=1, fps=None)
    known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
    raise DataError(f"{path.name} is neither an image nor a video by its name; known: {known}")


def _images(files: list[Path], root: Path) -> Iterator[SourceFrame]:
    """Names without suffix, unless two files would then share one (`a.jpg`, `a.png`)."""
    bare = [file.relative_to(root).with_suffix("").as_posix() for file in files]
    used = Counter(bare)
    for file, name in zip(files, bare, strict=True):
        yield SourceFrame(name if used[name] == 1 else file.relative_to(root).as_posix(), read_frame(file))


def _open_video(path: Path) -> Source:
    av = require("av", extra="video")
    try:
        container = av.open(str(path))
        stream = next((s for s in container.streams if s.type == "video"), None)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path.name}: not a readable video ({str(error).splitlines()[0]})") from error
    if stream is None:
        container.close()
        raise DataError(f"{path.name}: holds no video stream")
    fps = float(stream.average_rate) if stream.average_rate else 25.0
    return Source(_video(av, container, stream, path), count=stream.frames or None, fps=fps)


def _video(av: Any, container: Any, stream: Any, path: Path) -> Iterator[SourceFrame]:  # noqa: ANN401 - an SDK
    position = -1
    try:
        for position, picture in enumerate(container.decode(stream)):
            yield SourceFrame(f"{position:06}", np.ascontiguousarray(picture.to_ndarray(format="rgb24")))
    except av.error.FFmpegError as error:
        raise DataError(f"{path.name}: damaged after frame {position} ({str(error).splitlines()[0]})") from error
    finally:
        container.close()
    if position < 0:
        raise DataError(f"{path.name}: holds no frame")
