"""The overlay video: H.264 in MP4, whole at whatever moment the source ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.errors import RuntimeFailure, telling_line
from edgeseg.core.files import atomic_path
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require

_TICKS: Final = 90_000
"""Per second; the clock of MPEG systems (ISO/IEC 13818-1)."""


class OverlayVideo:
    """Writes frames as they come. When the picture's size changes, a new file begins (`overlay-2.mp4`)."""

    def __init__(self, path: Path, fps: float) -> None:
        """Write to `path`; `fps` is the rate of frames that have no time of their own."""
        self._path, self._fps = path, fps
        self._parts = 0
        self._hw = (0, 0)
        self._part = contextlib.ExitStack()
        self._write: Callable[[Frame, float | None], None]

    def write(self, frame_HWC: Frame, time_s: float | None) -> None:
        """Append a frame, shown at `time_s` where it has a time.

        Raises:
            RuntimeFailure: the encoder failed.
        """
        H, W = frame_HWC.shape[0] // 2 * 2, frame_HWC.shape[1] // 2 * 2  # 4:2:0 colour needs even sides
        if self._hw != (H, W):
            self.close()
            self._parts += 1
            path = self._path if self._parts == 1 else self._path.with_stem(f"{self._path.stem}-{self._parts}")
            self._hw, self._write = (H, W), self._part.enter_context(_part(path, self._fps, (H, W)))
        self._write(np.ascontiguousarray(frame_HWC[:H, :W]), time_s)

    def close(self) -> None:
        """Finish the file; it takes its name now. Closing twice is allowed."""
        self._part.close()
        self._hw = (0, 0)


@contextlib.contextmanager
def _part(path: Path, fps: float, hw: tuple[int, int]) -> Iterator[Callable[[Frame, float | None], None]]:
    av = require("av", extra="video")
    rate = Fraction(fps).limit_denominator(1001)
    with atomic_path(path) as temporary:
        container = av.open(str(temporary), "w", format="mp4")
        stream: Any = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *hw, "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
        last, first_s = -1, 0.0

        def write(frame_HWC: Frame, time_s: float | None) -> None:
            nonlocal last, first_s
            picture = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            if last < 0 and time_s is not None:
                first_s = time_s
            due = last + int(_TICKS / rate) if time_s is None else round((time_s - first_s) * _TICKS)
            last = max(0, due) if last < 0 else max(last + 1, due)
            picture.pts, picture.time_base = last, Fraction(1, _TICKS)
            with _encoding(av, path):
                container.mux(stream.encode(picture))

        try:
            yield write
            with _encoding(av, path):
                container.mux(stream.encode(None))
                container.close()
        finally:
            container.close()


@contextlib.contextmanager
def _encoding(av: Any, path: Path) -> Iterator[None]:  # noqa: ANN401 - an SDK module
    try:
        yield
    except OSError:
        raise
    except av.error.FFmpegError as error:
        raise RuntimeFailure(f"av failed to write {path.name}: {telling_line(error)}") from error
