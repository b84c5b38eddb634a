"""What videos, cameras and network streams share: PyAV (FFmpeg). Not a source by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import numpy as np

from edgeseg.core.errors import InputMissingError, NoPermissionError, telling_line
from edgeseg.core.images import Picture, picture_of
from edgeseg.core.lazy import require
from targets.sources.base import Damage, Source, SourceFrame, SourceOptions

DEFAULT_FPS: Final = 25.0
"""Rate of a stream that does not say its own."""

OPEN_TIMEOUT_S: Final = 20.0
"""Least time a live source has to begin: cameras wake up, streams begin with a key frame."""

_own = threading.local()


def first_video_stream(container: Any) -> Any:  # noqa: ANN401 - an SDK object
    """The first stream of pictures, or `None`."""
    return next((stream for stream in container.streams if stream.type == "video"), None)


def rate_of(stream: Any) -> float:  # noqa: ANN401 - an SDK object
    """Frames per second as the stream says."""
    return float(stream.average_rate) if stream.average_rate else DEFAULT_FPS


def read_rgb(picture: Any) -> Picture:  # noqa: ANN401 - an SDK object
    """Convert a decoded picture to uint8 [H, W, 3] RGB, by one converter a thread (making one takes longer than using it)."""
    if not hasattr(_own, "reformatter"):
        _own.reformatter = require("av.video.reformatter", extra="video").VideoReformatter()
    converted = _own.reformatter.reformat(picture, format="rgb24")
    pixels_HWC = np.ascontiguousarray(converted.to_ndarray())  # a view
    return picture_of(pixels_HWC.copy() if converted is picture else pixels_HWC)


def open_live(
    url: str, options: SourceOptions, *, shown: str, format: str | None = None, settings: Mapping[str, str] | None = None
) -> Source:
    """Open a source that gives frames at its own pace; `shown` is what messages call it (never its password).

    A packet that cannot be decoded (a stream entered in the middle, a lost datagram) is passed over and counted, and its number left out.

    Raises:
        InputMissingError: it cannot be opened, or holds no pictures.
        NoPermissionError: the operating system refuses it.
    """
    av = require("av", extra="video")
    patience_s, start = max(options.timeout_s, OPEN_TIMEOUT_S), time.monotonic()
    try:
        container = av.open(url, format=format, options=dict(settings or {}), timeout=(patience_s, options.timeout_s))
    except PermissionError as error:
        raise NoPermissionError(f"no permission to open {shown}; add this user to the group video, and log in again") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        why = f"nothing came for {patience_s:g} s" if time.monotonic() - start >= patience_s else _words(error)
        raise InputMissingError(f"{shown} cannot be opened ({why}); check that it is on, and its address") from error
    stream = first_video_stream(container)
    if stream is None:
        container.close()
        raise InputMissingError(f"{shown} holds no pictures; check its address")
    damage = Damage()
    return Source(_live_frames(av, container, stream, options, shown, damage), count=None, fps=rate_of(stream), live=shown, damage=damage)


def _live_frames(
    av: Any, container: Any, stream: Any, options: SourceOptions, shown: str, damage: Damage  # noqa: ANN401 - an SDK
) -> Iterator[SourceFrame]:
    """Frames whose pixels are their own.

    A camera lends its memory (libavdevice/v4l2.c); what still refers to that when the container is closed reads unmapped memory. So colours
    are converted here, those of frames that are dropped later too, and no packet or picture is left when it is closed.
    """
    position, packets = 0, container.demux(stream)
    try:
        while (decoded := _next_decoded(av, packets)) is not None:
            for picture, time_s in decoded:
                if picture is None:
                    damage.num_frames += 1
                else:
                    yield SourceFrame(f"{position:06}", partial(_as_it_is, picture), time_s)
                position += 1
    except av.error.FFmpegError as error:
        why = f"no frame for {options.timeout_s:g} s" if isinstance(error, av.error.ExitError) else _words(error)
        error.with_traceback(None)  # whose frames hold the packet
        got = position - damage.num_frames
        raise InputMissingError(f"{shown}: lost after {got} frames ({why}); check it and type the same command again") from error
    finally:
        packets.close()
        container.close()


def _next_decoded(av: Any, packets: Any) -> list[tuple[Picture | None, float | None]] | None:  # noqa: ANN401 - an SDK
    """Pictures of the next packet, `None` for one that cannot be decoded, and when they were taken; `None` at the end."""
    packet = next(packets, None)
    if packet is None:
        return None
    try:
        return [(read_rgb(picture), picture.time) for picture in packet.decode()]
    except av.error.InvalidDataError:
        return [(None, None)]


def _as_it_is(picture: Picture) -> Picture:
    return picture


def _words(error: Exception) -> str:
    """FFmpeg's own words without the address, which may hold a password."""
    return str(getattr(error, "strerror", None) or telling_line(error))
