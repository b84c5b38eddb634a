"""A camera of this machine through Video4Linux2 (`camera:0`, `/dev/video0`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edgeseg.core.errors import ConfigError, InputMissingError
from edgeseg.core.lazy import require
from targets.sources.base import Source, SourceOptions
from targets.sources.pyav import open_live

_NAMED: Final = re.compile(r"camera:(\d+)(?::(\d+x\d+))?(?:@(\d+))?")
_DEVICE: Final = re.compile(r"/dev/video\d+")


class CameraSource:
    """`camera:NUMBER[:WIDTHxHEIGHT][@FPS]` or `/dev/videoNUMBER`."""

    def takes(self, text: str) -> bool:
        """What begins with `camera:`, or names a V4L2 device."""
        return text.startswith("camera:") or _DEVICE.fullmatch(text) is not None

    def check(self, text: str) -> None:
        """See `LiveKind.check`."""
        device, _ = camera_settings(text)
        if not Path(device).exists():
            there = ", ".join(sorted(str(found) for found in Path("/dev").glob("video*")))
            raise InputMissingError(f"there is no camera {device} ({'here: ' + there if there else 'no camera is connected'}); plug it in")
        require("av", extra="video")

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourceKind.open`; the driver takes the size and rate nearest to those asked for."""
        self.check(text)
        device, settings = camera_settings(text)
        return open_live(device, options, shown=text, format="v4l2", settings=settings)


def camera_settings(text: str) -> tuple[str, dict[str, str]]:
    """Give the device of a camera as typed, and what FFmpeg's v4l2 input is told.

    Raises:
        ConfigError: not of the form `camera:0`, `camera:0:640x480` or `camera:0:640x480@30`.
    """
    if _DEVICE.fullmatch(text):
        return text, {}
    named = _NAMED.fullmatch(text)
    if named is None:
        raise ConfigError(f"'{text}' is no camera; type camera:0, camera:0:640x480 or camera:0:640x480@30")
    wanted = {"video_size": named[2], "framerate": named[3]}
    return f"/dev/video{named[1]}", {key: value for key, value in wanted.items() if value}
