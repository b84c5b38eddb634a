"""What the terminal shows: results on stdout, progress and remarks on stderr; bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PLAIN_EVERY_S = 10.0
"""Without a terminal, a long action prints a line this often."""


class Console:
    """A `workflow.ui.Ui` on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._tty = sys.stderr.isatty()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._label = ""
        self._last_s = 0.0

    def say(self, text: str) -> None:
        """Print one line."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def progress(self, label: str, done: int, total: int, detail: str = "") -> None:
        """Show how far a long action is."""
        if self._quiet:
            return
        if self._tty:
            self._show_bar(label, done, total, detail)
            return
        now = time.monotonic()
        if label != self._label:
            self._label, self._last_s = label, now
        elif now - self._last_s >= _PLAIN_EVERY_S or done == total:
            self._last_s = now
            print(f"  {label} {done}/{total}{'  ' + detail if detail else ''}", file=sys.stderr, flush=True)

    def _show_bar(self, label: str, done: int, total: int, detail: str) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        if self._bar is None or label != self._label:
            self.close()
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=RichConsole(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(label, total=total, detail=detail)
            self._label = label
        assert self._task is not None
        self._bar.update(self._task, completed=done, total=total, detail=detail)
        if done == total:
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._task, self._label = None, None, ""


def print_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Print a JSON value on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=True))
