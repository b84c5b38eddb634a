"""The parent's side of the worker: start it, pass progress on, and turn every way it can end into a result or one clear error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import targets
from edgeseg.core import errors
from edgeseg.core.errors import DeviceError, EdgesegError, RuntimeFailure
from targets.measure.lifetime import START

WORKER: Final = "targets.measure.worker"
_PACKAGES_FOLDER: Final = Path(next(iter(targets.__path__))).resolve().parent
_TAIL_CHARACTERS: Final = 300


@dataclass(frozen=True)
class Interpreter:
    """A Python that runs workers on this machine."""

    command: tuple[str, ...]
    """The interpreter, and what starts it."""
    packages: Path
    """Folder of `edgeseg` and `targets`; the worker starts there."""
    environment: Mapping[str, str]
    """All of its environment."""


class WorkerLines:
    """What a worker says, line by line, and what came of it, wherever it runs."""

    def __init__(self, what: str, on_progress: Callable[[str, float], None], *, board: str = "") -> None:
        """`what` = the job in words, for messages; `board` = the name of the one it runs on, empty = here."""
        self.stage = START
        self._started = False
        self._what, self._board = what, board
        self._on_progress = on_progress
        self._answer: dict[str, Any] | None = None

    def take(self, line: dict[str, Any]) -> None:
        """Take the next line: progress is passed on, an answer is kept."""
        self._started = True
        if line.get("stage") == START:
            return
        if "stage" in line:
            self.stage = str(line["stage"])
            self._on_progress(self.stage, float(line["done"]))
        else:
            self._answer = line

    def result(self, code: int, last_words: str, *, overdue: str = "") -> dict[str, Any]:
        """Give the result, once the worker has ended.

        Args:
            code: its exit code, negative = the signal that killed it.
            last_words: what it wrote to stderr, or the end of that.
            overdue: why it was stopped, in words, where it was.

        Raises:
            EdgesegError: the very error the worker raised, or `RuntimeFailure` where it crashed, was stopped or answered nonsense.
            DeviceError: edgeseg does not start on the board.
        """
        if self._answer is not None and "result" in self._answer:
            return dict(self._answer["result"])
        if self._answer is not None:
            raise same_error(self._answer["error"])
        if overdue:
            raise RuntimeFailure(f"{self._what} {overdue} (at stage '{self.stage}') and was stopped; take fewer frames or --quick")
        if self._board and not self._started and code > 0:
            then = f"type: edgeseg devices setup {self._board}"
            raise DeviceError(f"{self._board}: edgeseg does not start there{_last_line(last_words)}; {then}")
        look = f"edgeseg devices check {self._board}" if self._board else "edgeseg doctor"
        raise RuntimeFailure(f"{self._what} {_how_it_ended(code)} at stage '{self.stage}'{_last_line(last_words)}; type: {look}")


def own_interpreter() -> Interpreter:
    """The Python that runs here."""
    paths = os.pathsep.join(filter(None, (str(_PACKAGES_FOLDER), os.environ.get("PYTHONPATH", ""))))
    return Interpreter((sys.executable,), _PACKAGES_FOLDER, {**os.environ, "PYTHONPATH": paths})


def run_worker(
    request: Mapping[str, Any], *, what: str, timeout_s: float, on_progress: Callable[[str, float], None],
    interpreter: Interpreter | None = None,
) -> dict[str, Any]:
    """Run one request in a fresh process of `interpreter` (if left out, of the Python that runs here); give its result.

    The process is killed when this one dies, when `timeout_s` is over, and on any exception here (Ctrl-C included).

    Raises:
        EdgesegError: see `WorkerLines.result`.
    """
    interpreter = interpreter or own_interpreter()
    with tempfile.TemporaryFile() as stderr:
        worker = subprocess.Popen(
            [*interpreter.command, "-m", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            cwd=interpreter.packages, env=dict(interpreter.environment), text=True, encoding="utf-8",
        )
        overdue = threading.Event()

        def stop() -> None:
            overdue.set()
            worker.kill()

        timer = threading.Timer(timeout_s, stop)
        timer.start()
        lines = WorkerLines(what, on_progress)
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            _send(worker, {**request, "parent_pid": os.getpid()})
            for text in worker.stdout:
                if text.endswith("\n"):  # else it was killed while it wrote; how it ended says more
                    lines.take(json.loads(text))
            code = worker.wait()
        finally:
            timer.cancel()
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
        stderr.seek(0)
        last_words = stderr.read().decode(errors="replace")
        return lines.result(code, last_words, overdue=f"took more than {timeout_s:.0f} s" if overdue.is_set() else "")


def _send(worker: subprocess.Popen[str], request: Mapping[str, Any]) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps(request))
        worker.stdin.close()
    except BrokenPipeError:  # it died at once; how it ended says more than this
        return


def same_error(raw: Mapping[str, str]) -> EdgesegError:
    """Make of `{"type": ..., "message": ...}` the error it was."""
    kind = getattr(errors, raw["type"], RuntimeFailure)
    return kind(raw["message"]) if isinstance(kind, type) and issubclass(kind, EdgesegError) else RuntimeFailure(raw["message"])


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended without an answer (exit {code})"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _last_line(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return f" (last words: {lines[-1][-_TAIL_CHARACTERS:]})" if lines else ""
