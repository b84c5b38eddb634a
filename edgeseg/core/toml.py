"""TOML in and out: the one parser of both Pythons, and the writer that the standard library does not have."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from edgeseg.core.errors import ConfigError

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """Parse TOML; `where` is what the message calls it.

    Raises:
        ConfigError: not TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return dict(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML ({error})") from error


def toml_text(value: object) -> str:
    """Write one value as TOML; mappings become inline tables."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x20 or ord(c) == 0x7F else c for c in escaped) + '"'
    if isinstance(value, tuple):
        return f"[{', '.join(toml_text(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{toml_key(name)} = {toml_text(item)}' for name, item in value.items())}}}"
    return repr(value)


def toml_key(name: str) -> str:
    """Write a key, in quotes where it needs them."""
    return name if _BARE_KEY.fullmatch(name) else toml_text(name)
