"""Where frames come from. To add a kind: a file with a class that satisfies `base.SourceKind`, and a line here."""

from pathlib import Path
from typing import Final

from edgeseg.core.errors import DataError, require_path
from edgeseg.core.images import IMAGE_SUFFIXES
from targets.sources.base import Source, SourceFrame, SourceKind, SourceOptions
from targets.sources.camera import CameraSource
from targets.sources.images import FolderSource, ImageSource
from targets.sources.rtsp import RtspSource
from targets.sources.video import VIDEO_SUFFIXES, VideoSource

__all__ = ["SOURCES", "Source", "SourceFrame", "SourceOptions", "open_source"]

SOURCES: Final[dict[str, SourceKind]] = {
    "rtsp": RtspSource(),
    "camera": CameraSource(),
    "folder": FolderSource(),
    "video": VideoSource(),
    "image": ImageSource(),
}


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
