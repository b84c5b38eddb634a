"""Addresses of boards: `ssh://user@host[:port]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from edgeseg.core.errors import ConfigError

DEFAULT_PORT: Final = 22
_NAME: Final = re.compile(r"[^\s/@\[\]\\\"'`$;&|<>(){}*?!#%-][^\s/@\[\]\\\"'`$;&|<>(){}*?!#%]*")
"""A user or a host: nothing a shell would read in another way, for both stand in lines that a person is told to type."""


@dataclass(frozen=True, kw_only=True)
class SshAddress:
    """Where a board's sshd listens, and who asks."""

    host: str
    user: str = ""
    """Empty = as `~/.ssh/config` says, else the user's own name here."""
    port: int | None = None
    """`None` = as `~/.ssh/config` says, else 22."""

    @property
    def login(self) -> str:
        """`user@host` as `ssh` takes it."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def ssh_words(self) -> str:
        """What to type after `ssh`: port and login."""
        return self.login if self.port in (None, DEFAULT_PORT) else f"-p {self.port} {self.login}"


def parse_ssh(address: str) -> SshAddress:
    """Read `ssh://[user@]host[:port]`.

    Raises:
        ConfigError: it is not that; a password in it is refused, too.
    """
    expected = "expected ssh://user@host or ssh://user@host:port"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"device '{address}': {error}; {expected}") from error
    if parts.password is not None:
        raise ConfigError("a password in an address would be kept in files and lists; use a key: ssh-copy-id puts it on the board")
    user, host = unquote(parts.username or ""), parts.hostname or ""
    rest = parts.path.rstrip("/") or parts.query or parts.fragment
    if parts.scheme != "ssh" or rest or not _NAME.fullmatch(host) or (user and not _NAME.fullmatch(user)) or port == 0:
        raise ConfigError(f"device '{address}' is no address of a board; {expected}")
    return SshAddress(host=host, user=user, port=port)
