"""The parent's side of the worker: start it, pass progress on, and turn every way it can end into a result or one clear error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import targets
from edgeseg.core import errors
from edgeseg.core.errors import EdgesegError, RuntimeFailure
from targets.measure.loop import Progress

_PACKAGES_FOLDER: Final = Path(next(iter(targets.__path__))).resolve().parent
_TAIL_CHARACTERS: Final = 300


def run_worker(request: Mapping[str, Any], *, what: str, timeout_s: float, on_progress: Progress) -> dict[str, Any]:
    """Run one request in a fresh process; give its result.

    The process is killed when this one dies, when `timeout_s` is over, and on any exception here (Ctrl-C included).

    Raises:
        EdgesegError: the very error the worker raised, or `RuntimeFailure` where it crashed, hung or answered nonsense.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(_PACKAGES_FOLDER), os.environ.get("PYTHONPATH", ""))))}
    with tempfile.TemporaryFile() as stderr:
        worker = subprocess.Popen(
            [sys.executable, "-m", "targets.measure.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            cwd=_PACKAGES_FOLDER, env=environment, text=True, encoding="utf-8",
        )
        overdue = threading.Event()

        def stop() -> None:
            overdue.set()
            worker.kill()

        timer = threading.Timer(timeout_s, stop)
        timer.start()
        stage, answer = "start", None
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            _send(worker, {**request, "parent_pid": os.getpid()})
            for text in worker.stdout:
                line = json.loads(text)
                if "stage" in line:
                    stage = str(line["stage"])
                    on_progress(stage, float(line["done"]))
                else:
                    answer = line
            code = worker.wait()
        finally:
            timer.cancel()
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
        if answer is not None and "result" in answer:
            return dict(answer["result"])
        if answer is not None:
            raise _same_error(answer["error"])
        if overdue.is_set():
            raise RuntimeFailure(f"{what} took more than {timeout_s:.0f} s (at stage '{stage}') and was stopped; measure with --quick")
        raise RuntimeFailure(f"{what} {_how_it_ended(code)} at stage '{stage}'{_last_words(stderr)}; type: edgeseg doctor")


def _send(worker: subprocess.Popen[str], request: Mapping[str, Any]) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps(request))
        worker.stdin.close()
    except BrokenPipeError:  # it died at once; how it ended says more than this
        return


def _same_error(raw: Mapping[str, str]) -> EdgesegError:
    kind = getattr(errors, raw["type"], RuntimeFailure)
    return kind(raw["message"]) if isinstance(kind, type) and issubclass(kind, EdgesegError) else RuntimeFailure(raw["message"])


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended without an answer (exit {code})"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _last_words(stderr: Any) -> str:  # noqa: ANN401 - tempfile's wrapper has no public type
    stderr.seek(0)
    lines = [line.strip() for line in stderr.read().decode(errors="replace").splitlines() if line.strip()]
    return f" (last words: {lines[-1][-_TAIL_CHARACTERS:]})" if lines else ""
