"""What a verb tells the user while it works: a Protocol of two members, so that any face can be put on it."""

from __future__ import annotations

from typing import Protocol


class Ui(Protocol):
    """Receives what happens; must return quickly."""

    def say(self, text: str) -> None:
        """Take one finished sentence about what was done, found or refused."""

    def progress(self, label: str, done: int, total: int, detail: str = "") -> None:
        """Take the state of a long action; `done == total` ends it."""


class Silent:
    """A face for tests and for `--json`."""

    def say(self, text: str) -> None:
        """Drop it."""

    def progress(self, label: str, done: int, total: int, detail: str = "") -> None:
        """Drop it."""
