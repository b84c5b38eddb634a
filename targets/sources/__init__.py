"""Where frames come from. To add a kind: a file with a class that satisfies `base.SourceKind` or `base.LiveKind`, and a line here."""

from pathlib import Path
from typing import Final

from edgeseg.core.errors import DataError, require_path
from edgeseg.core.images import IMAGE_SUFFIXES
from targets.sources.base import LiveKind, Source, SourceFrame, SourceKind, SourceOptions
from targets.sources.camera import CameraSource
from targets.sources.images import FolderSource, ImageSource
from targets.sources.rtsp import RtspSource
from targets.sources.video import VIDEO_SUFFIXES, VideoSource

__all__ = ["SOURCES", "Source", "SourceFrame", "SourceOptions", "is_live", "open_source"]

LIVE: Final[dict[str, LiveKind]] = {
    "rtsp": RtspSource(),
    "camera": CameraSource(),
}
SOURCES: Final[dict[str, SourceKind]] = {
    **LIVE,
    "folder": FolderSource(),
    "video": VideoSource(),
    "image": ImageSource(),
}


def is_live(source: str | Path) -> bool:
    """Tell whether a camera or a stream is meant, and look at it as far as that goes without opening it.

    Raises:
        ConfigError, InputMissingError, MissingExtraError: see `LiveKind.check`.
    """
    text = str(source)
    kind = next((kind for kind in LIVE.values() if kind.takes(text)), None)
    if kind is not None:
        kind.check(text)
    return kind is not None


def open_source(source: str | Path, options: SourceOptions | None = None) -> Source:
    """Open an image, a folder (images in it and below, sorted by path), a video, a camera or an RTSP stream.

    Raises:
        InputMissingError: nothing there, a folder without images, a camera that gives nothing.
        NoPermissionError: the operating system refuses the camera.
        DataError: none of these, or damaged (images: raised when the damaged one is read).
        MissingExtraError: a video, camera or stream without the extra `video`.
    """
    text = str(source)
    kind = next((name for name, kind in SOURCES.items() if kind.takes(text)), "")
    if kind in ("video", "image", ""):
        require_path(Path(text), what="source")
    if not kind:
        known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
        raise DataError(f"{Path(text).name} is neither an image nor a video by its name; known: {known}, camera:0, rtsp://...")
    return SOURCES[kind].open(text, options or SourceOptions())
