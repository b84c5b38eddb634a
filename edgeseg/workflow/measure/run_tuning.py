"""`[bench] tune = true`: each bundle's fastest settings on its target's machine are found before it is measured there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from edgeseg.core.errors import BundleError, EdgesegError
from edgeseg.core.files import read_json, write_json
from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.compress.network_latency import frame_files, place_key
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.places import Place
from targets.boards import Plan, Target
from targets.measure.result import MEASURING
from targets.tuned import entry_words, prepare_tuned, save_tuned
from targets.tuning.knobs import KNOBS, with_fields
from targets.tuning.tune import tune


class TunedPlan(NamedTuple):
    """How a bundle of the run is executed."""

    how: Plan
    words: str
    """What tuning found, for the report; empty = the target's own settings."""


def tuned_plan(ctx: RunContext, data: RunData, target: Target, bundle: SealedBundle, how: Plan, place: Place) -> TunedPlan:
    """Give the fastest settings where the run asks for them and there is something to set; else `how`, the target's own.

    The arithmetic of float parts stays, since each has a row of its own. What is found is kept beside the bundle, too.
    """
    if not ctx.config.bench.tune or (how.runtime, how.options.provider) not in KNOBS:
        return TunedPlan(how, "")
    quick = ctx.config.bench.quick

    def show(stage: str, done: float) -> None:
        ctx.ui.progress(f"tuning {bundle.name}: {stage}", round(100 * min(done, 1.0)), 100)

    def make(output: Path) -> None:
        keep = not bundle.precision_hint  # an entry of the file is for the target's own arithmetic
        try:
            if keep:
                prepare_tuned(bundle.bundle)
        except EdgesegError as error:  # what was trained for hours does not end for want of a file beside it
            ctx.ui.say(f"what tuning finds for {bundle.name} is kept in this run only: {error}")
            keep = False
        try:
            result = tune(bundle.bundle, frame_files(data), device=place.device, target=target.name, how=how, quick=quick,
                          keep=("precision_hint",), on_progress=show)
        except BundleError as error:  # the goal on golden frames says so, too
            write_json(output, {"chosen": {}, "words": f"not tuned: {error}"})
            return
        if keep:
            save_tuned(bundle.bundle, result.entry())
        write_json(output, {**result.to_json(), "words": f"tuned for latency ({entry_words(result.entry())})"})

    key = {
        "measuring": MEASURING, "bundle": bundle.step.sha256, "quick": quick, "frames": data.dataset.sha256,
        **place_key(target, how, place),
    }
    output = ctx.folder / "bench" / f"{target.name}--{bundle.name}--tuned.json"
    step = ctx.steps.do(f"tune-{target.name}-{bundle.name}", kind="bench", key=key, output=output, make=make)
    found: dict[str, Any] = read_json(step.output)
    return TunedPlan(with_fields(how, found["chosen"], cores=place.machine.cores), found["words"])
