"""Job `sweep`: one inference of each of many small bundles, which take turns, on noise."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.core.bundle import open_bundle
from targets.measure.loop import Clock, Progress, cycle, take_turns
from targets.runtimes import RuntimeOptions, open_session


def sweep(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Give `ms`: the least milliseconds of each bundle."""
    options = RuntimeOptions(**request["options"])
    if options.num_threads == 1 and options.provider == "cpu":
        clock = time.process_time_ns  # one thread computes: its own time, without what a busy machine takes away meanwhile
    sessions, calls = [], []
    for number, folder in enumerate(request["bundles"]):
        bundle = open_bundle(Path(folder))
        session = open_session(bundle, request["runtime"], options)
        contract = bundle.manifest.contract
        noise_HWC = np.random.Generator(np.random.Philox(0)).integers(0, 256, (contract.height, contract.width, 3), dtype=np.uint8)
        sessions.append(session)
        calls.append(cycle(session, contract, [noise_HWC]))
        on_progress("open", (number + 1) / len(request["bundles"]))
    least_ns = take_turns(calls, clock, on_progress)
    for session in sessions:
        session.close()
    return {"ms": [value / 1e6 for value in least_ns]}
