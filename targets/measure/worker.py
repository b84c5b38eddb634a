"""The process that measures: `python -m targets.measure.worker`, one JSON request on stdin, JSON lines on stdout.

A process of its own makes load time and peak memory honest, and lets an SDK crash without taking anybody along. Lines:
`{"stage": "start", ...}` when it has read the request, `{"stage": ..., "done": ...}` while it works, then `{"result": {...}}` or
`{"error": {"type": ..., "message": ...}}`.
A request with a `folder` has its relative paths taken from there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TextIO

from edgeseg.core.errors import EdgesegError, explain_os_error
from targets.measure.jobs import JOBS
from targets.measure.lifetime import START, die_with_parent


def main() -> None:
    """Answer the request on stdin; never raises for what a user can cause."""
    answers = _keep_stdout_for_answers()
    request = json.loads(sys.stdin.read())
    die_with_parent(request["parent_pid"])

    def say(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    def on_progress(stage: str, done: float) -> None:
        say({"stage": stage, "done": done})

    on_progress(START, 0.0)
    try:
        if "folder" in request:
            os.chdir(request["folder"])
        say({"result": JOBS[request["job"]](request, on_progress, time.perf_counter_ns)})
    except EdgesegError as error:
        say({"error": {"type": type(error).__name__, "message": str(error)}})
    except OSError as error:
        explained = explain_os_error(error, doing="reading")
        say({"error": {"type": type(explained).__name__, "message": str(explained)}})


def _keep_stdout_for_answers() -> TextIO:
    """Move stdout away and let whatever an SDK prints go to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
