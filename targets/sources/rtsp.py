"""A network camera or server that speaks RTSP (RFC 2326); TCP first, since lost datagrams are damaged pictures."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from edgeseg.core.lazy import require
from targets.sources.base import Source, SourceOptions
from targets.sources.pyav import open_live

_SCHEMES: Final = ("rtsp://", "rtsps://")


class RtspSource:
    """`rtsp://[USER:PASSWORD@]HOST[:PORT]/PATH`."""

    def takes(self, text: str) -> bool:
        """What has the scheme."""
        return text.lower().startswith(_SCHEMES)

    def check(self, text: str) -> None:
        """See `LiveKind.check`; nothing is asked over the network."""
        require("av", extra="video")

    def open(self, text: str, options: SourceOptions) -> Source:
        """See `SourceKind.open`."""
        return open_live(text, options, shown=without_password(text), settings={"rtsp_flags": "prefer_tcp"})


def without_password(url: str) -> str:
    """Give the address without user and password, for messages and results."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
