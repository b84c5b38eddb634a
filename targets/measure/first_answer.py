"""One cold start, in a process that does nothing else: `python -m targets.measure.first_answer REQUEST`.

REQUEST is JSON; the one line it prints is JSON, too: the milliseconds from the moment the process was asked for (`spawned_ns`, on the
clock that all processes of a machine share) to each of the steps. What is imported before the first look at the clock counts as `python`.
"""

from __future__ import annotations

import time

STARTED_NS = time.monotonic_ns()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from targets.measure.lifetime import die_with_parent  # noqa: E402


def main() -> None:
    """Import, open, answer one frame, say how long each took."""
    request: dict[str, Any] = json.loads(sys.argv[1])
    die_with_parent(request["parent_pid"])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an SDK prints goes to stderr
    try:
        line: dict[str, Any] = {"steps_ms": _steps(request)}
    except Exception as error:  # all kinds, so that ours need not be imported before the clock runs; the others go on
        from edgeseg.core.errors import EdgesegError

        if not isinstance(error, EdgesegError):
            raise
        line = {"error": {"type": type(error).__name__, "message": str(error)}}
    answers.write(json.dumps(line) + "\n")
    answers.flush()


def _steps(request: dict[str, Any]) -> dict[str, float]:
    from edgeseg.core.bundle import open_bundle
    from edgeseg.core.images import read_frame, to_model
    from targets.instances import put_back
    from targets.runtimes import RuntimeOptions, open_session

    imported = time.monotonic_ns()
    bundle = open_bundle(Path(request["bundle"]))
    session = open_session(bundle, request["runtime"], RuntimeOptions(**request["options"]))
    opened = time.monotonic_ns()
    contract, frame = bundle.manifest.contract, read_frame(Path(request["file"]))
    placement = contract.place((frame.shape[0], frame.shape[1]))
    put_back([session.run(model_frame) for model_frame in to_model(frame, placement)], placement)
    answered = time.monotonic_ns()
    session.close()
    marks = {"python": STARTED_NS, "import": imported, "open": opened, "first_answer": answered}
    before, steps = int(request["spawned_ns"]), {}
    for name, mark in marks.items():
        steps[name] = (mark - before) / 1e6
        before = mark
    return {**steps, "total": (answered - int(request["spawned_ns"])) / 1e6}


if __name__ == "__main__":
    main()
