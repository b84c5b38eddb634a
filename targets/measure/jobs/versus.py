"""Job `versus`: A against itself, then A against B, on the same processors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.stats import nearest_rank
from targets.boards import Plan, find_target, measured_on
from targets.machine import describe_machine
from targets.measure.jobs.base import limits_of, plan_here, versions
from targets.measure.loop import Clock, Progress, Stream, warm_up
from targets.measure.pinning import pin
from targets.measure.result import Limits
from targets.measure.surroundings import LOOK_S, load_average, load_facts
from targets.measure.versus import BlockTimes, Side, Versus, run_pairs
from targets.runtimes import Session, open_session
from targets.telemetry.recorder import Recorder, measure_idle


@dataclass
class _Contender:
    """One side, opened and warm."""

    bundle: Bundle
    how: Plan
    session: Session
    stream: Stream
    steady: bool

    def side(self, blocks: list[BlockTimes]) -> Side:
        manifest = self.bundle.manifest
        return Side(
            bundle=manifest.name, bundle_sha256=manifest.sha256, format=manifest.format, precision=manifest.precision,
            runtime=self.how.runtime, options=asdict(self.how.options), settings=dict(self.session.settings),
            versions=versions(self.how.runtime, manifest.contract),
            inference_p50_ms=nearest_rank([block.inference for block in blocks], 50) / 1e6,
            end_to_end_p50_ms=nearest_rank([block.end_to_end for block in blocks], 50) / 1e6,
        )


def versus(request: dict[str, Any], on_progress: Progress, clock: Clock) -> dict[str, Any]:
    """Give the fields of `Versus`."""
    target, limits, files = find_target(request["target"]), limits_of(request), [Path(file) for file in request["files"]]
    bundles = {name: open_bundle(Path(request[name]["bundle"])) for name in ("a", "b")}
    plans = {name: plan_here(request[name], bundle) for name, bundle in bundles.items()}
    machine = describe_machine()
    on_progress("rest", 0.0)
    recorder = Recorder(("load",), clock=clock)
    before, idle = load_average(), measure_idle(recorder, LOOK_S[request["quick"]])
    cpus = pin(max(how.options.num_threads for how in plans.values()))

    def open_side(name: str) -> _Contender:
        on_progress("open", 0.0)
        return _open(bundles[name], plans[name], files, limits, clock, on_progress)

    recorder.start()
    a, again = open_side("a"), open_side("a")
    null = run_pairs(a.stream.step, again.stream.step, limits, clock, on_progress, "A against itself")
    again.session.close()
    b = open_side("b")
    pairs = run_pairs(a.stream.step, b.stream.step, limits, clock, on_progress, "A against B")
    trace = recorder.stop()
    result = Versus(
        a=a.side(pairs.first), b=b.side(pairs.second), null_inference=null.ratio("inference"), null_end_to_end=null.ratio("end_to_end"),
        inference=pairs.ratio("inference"), end_to_end=pairs.ratio("end_to_end"), pairs=len(pairs.first),
        frames_per_block=pairs.frames_per_block, cpus=cpus, steady=a.steady and again.steady and b.steady,
        load=load_facts(before, idle, trace),
        quick=request["quick"], machine=machine, measured_on=measured_on(target, machine),
    )
    a.session.close()
    b.session.close()
    return asdict(result)


def _open(bundle: Bundle, how: Plan, files: list[Path], limits: Limits, clock: Clock, on_progress: Progress) -> _Contender:
    session = open_session(bundle, *how)
    stream = Stream(session, bundle.manifest.contract, files, clock)
    return _Contender(bundle, how, session, stream, warm_up(stream.step, limits, clock, on_progress).steady)
