"""What a source is: frames in order, one at a time, each read when somebody needs its pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from edgeseg.core.images import Picture, ScaleOf


@dataclass(frozen=True)
class SourceFrame:
    """A frame and the name its results get (relative, POSIX, without suffix)."""

    name: str
    read: Callable[[], Picture]
    """Decode the file, or convert the colours; any thread may call it, once."""
    time_s: float | None = None
    """When it was taken, by the source's own clock; `None` where it has none."""


@dataclass
class Damage:
    """What a live source gave that could not be decoded, up to now."""

    num_frames: int = 0


class Source:
    """Frames of a source, in order; iterate once."""

    def __init__(
        self, frames: Iterator[SourceFrame], *, count: int | None, fps: float | None, live: str = "", damage: Damage | None = None
    ) -> None:
        """Hold the frames; `count` is `None` where the source does not say, `fps` is set for a video or a live source."""
        self.damage = damage or Damage()
        self.frames = frames
        self.count = count
        self.fps = fps
        self.live = live
        """Name of a source that gives frames whether or not anybody takes them (a camera, a stream); empty for files."""

    @property
    def is_video(self) -> bool:
        """Results make a video, too."""
        return self.fps is not None

    def __iter__(self) -> Iterator[SourceFrame]:
        """Give the frames."""
        return self.frames


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a source is read."""

    timeout_s: float = 10.0
    """A live source that gives no frame for this long has ended."""
    scale_of: ScaleOf | None = None
    """Decode JPEG files smaller by this (`edgeseg.core.images.jpeg_scale`); `None` = whole."""


class SourceKind(Protocol):
    """One kind of source; which one a person means is seen by what was typed."""

    def takes(self, text: str) -> bool:
        """Tell whether this kind is meant."""
        ...

    def open(self, text: str, options: SourceOptions) -> Source:
        """Open it.

        Raises:
            InputMissingError: nothing there.
            DataError: not readable.
            MissingExtraError: it needs the extra `video`.
        """
        ...


class LiveKind(SourceKind, Protocol):
    """A kind that gives frames whether or not anybody takes them, so that it is opened when they are about to be taken."""

    def check(self, text: str) -> None:
        """Refuse what was typed, as far as can be told without opening it.

        Raises:
            ConfigError: it means nothing.
            InputMissingError: nothing there.
            MissingExtraError: it needs the extra `video`.
        """
        ...
