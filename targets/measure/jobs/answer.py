"""Job `answer`: what a bundle says of frames, and of its golden frames, on the machine this runs on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import open_bundle
from edgeseg.core.images import Frame, read_frame, to_model, write_class_map
from edgeseg.core.instances import Instances, write_instances
from targets.boards import find_target, measured_on
from targets.machine import describe_machine
from targets.measure.jobs.base import plan_here, versions
from targets.measure.loop import Clock, Progress
from targets.runtimes import open_session

CLASS_MAP_SUFFIX: Final = ".png"
INSTANCES_SUFFIX: Final = ".npz"


def answer(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Write the answers to the folder `out`, numbered from 0: those of each of `files` (tile by tile), then those of the golden frames.

    Frames are decoded and resized here too, for that is part of what is verified. Give `num_answers`, `runtime`, `settings`, `versions`,
    `machine` and `measured_on`.
    """
    bundle, target = open_bundle(Path(request["bundle"])), find_target(request["target"])
    contract = bundle.manifest.contract
    runtime, options = plan_here(request, bundle)
    out = Path(request["out"])
    out.mkdir(parents=True, exist_ok=True)
    on_progress("open", 0.0)
    session = open_session(bundle, runtime, options)
    written = 0

    def write(model_frame: Frame) -> None:
        nonlocal written
        said = session.run(model_frame)
        name = out / f"{written:08}"
        if isinstance(said, Instances):
            write_instances(name.with_suffix(INSTANCES_SUFFIX), said)
        else:
            write_class_map(name.with_suffix(CLASS_MAP_SUFFIX), said)
        written += 1

    try:
        for done, file in enumerate(request["files"]):
            frame = read_frame(Path(file))
            placement = contract.place((frame.shape[0], frame.shape[1]))
            for model_frame in to_model(frame, placement):
                write(model_frame)
            on_progress("answer", (done + 1) / len(request["files"]))
        for golden, _ in bundle.golden_pairs():
            write(golden)
        settings = dict(session.settings)
    finally:
        session.close()
    machine = describe_machine()
    return {
        "num_answers": written, "runtime": runtime, "settings": settings, "versions": versions(runtime, contract),
        "machine": asdict(machine), "measured_on": asdict(measured_on(target, machine)),
    }
