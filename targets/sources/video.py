"""A video file: every frame of it, read by PyAV (FFmpeg)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from edgeseg.core.errors import DataError
from edgeseg.core.lazy import require
from targets.sources.base import Source, SourceFrame, SourceOptions
from targets.sources.pyav import first_video_stream, rate_of, read_rgb

VIDEO_SUFFIXES: Final = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


class VideoSource:
    """One video file."""

    def takes(self, text: str) -> bool:
        """A file with the suffix of a video."""
        return Path(text).suffix.lower() in VIDEO_SUFFIXES and not Path(text).is_dir()

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourceKind.open`."""
        path = Path(text)
        av = require("av", extra="video")
        try:
            container = av.open(str(path))
            stream = first_video_stream(container)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise DataError(f"{path.name}: not a readable video ({str(error).splitlines()[0]})") from error
        if stream is None:
            container.close()
            raise DataError(f"{path.name}: holds no video stream")
        return Source(_frames(av, container, stream, path), count=stream.frames or None, fps=rate_of(stream))


def _frames(av: Any, container: Any, stream: Any, path: Path) -> Iterator[SourceFrame]:  # noqa: ANN401 - an SDK
    position = -1
    try:
        for position, picture in enumerate(container.decode(stream)):
            yield SourceFrame(f"{position:06}", partial(read_rgb, picture))
    except av.error.FFmpegError as error:
        raise DataError(f"{path.name}: damaged after frame {position} ({str(error).splitlines()[0]})") from error
    finally:
        container.close()
    if position < 0:
        raise DataError(f"{path.name}: holds no frame")
