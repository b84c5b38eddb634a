"""What boards send as results: a board with the right code that sends what that code never would ends in one line, exit code 72."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_bundle

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import DeviceError, EdgesegError, RuntimeFailure
from edgeseg.core.images import write_class_map
from edgeseg.core.stats import LatencyStats, latency_stats
from edgeseg.workflow import devices
from edgeseg.workflow.measure import bench_words, tuning
from edgeseg.workflow.places import Place
from edgeseg.workflow.show.circumstances import circumstances
from targets.boards import MeasuredOn, Plan, find_target
from targets.devices import Job, LocalDevice, Progress
from targets.devices.check import Checked, Site, describe
from targets.devices.inventory import Entry
from targets.devices.received import received
from targets.devices.remote import answers_on
from targets.devices.words import parsed, worker_line
from targets.executed.base import INT8, ExecutedLayer, ExecutedPrecision
from targets.measure.bench import bench, compare
from targets.measure.cold import Cold, Starts
from targets.measure.offline import Offline
from targets.measure.paced import Paced
from targets.measure.process import WorkerLines
from targets.measure.result import BenchResult, SpeedRatio
from targets.measure.scenarios import Setup, measure_cold, measure_offline, measure_paced, measure_versus
from targets.measure.versus import PairedRatio, Side, Versus
from targets.runtimes import RuntimeOptions
from targets.telemetry.energy import FrameEnergy
from targets.tuning.tune import tune

ROUNDS = 60
HOW = Plan("null", RuntimeOptions())
NUMBERS = ("0", "-1", "0.5", "1e18", "-1e18", "1e308", "1e999", "NaN", "Infinity", "-Infinity", "9" * 400, "9" * 5000)
OTHERS = ("null", "true", '""', '"\\u001b[2J"', '"x"', "[]", "{}", "[[]]", '{"a": {"b": []}}', "[" * 40 + "]" * 40,
          "[" * 90_000 + "]" * 90_000)
"""As JSON texts: Python writes none of the largest."""


class Raw:
    """A piece of JSON text among values."""

    def __init__(self, text: str) -> None:
        self.text = text


def text_of(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {text_of(one)}" for key, one in value.items()) + "}"
    return "[" + ", ".join(map(text_of, value)) + "]" if isinstance(value, list) else json.dumps(value)


def spoilt(value: Any, rng: random.Random) -> Any:
    """A copy in which one thing somewhere is another: a value of another kind or size, a key too few or too many."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return Raw(rng.choice(rng.choice((NUMBERS, OTHERS))))
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    place = rng.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    what = rng.random()
    if what < 0.15:
        del copy[place]
    elif what < 0.2 and isinstance(copy, dict):
        copy["more"] = 1
    elif what < 0.2:
        copy.append(copy[place])
    else:
        copy[place] = spoilt(copy[place], rng)
    return copy


class Babbling:
    """A board that answers each job with one thing wrong; what it says is received as it is over SSH."""

    name, address = "board", "ssh://pi@board"

    def __init__(self, results: dict[str, Any], rng: random.Random, spoil: str) -> None:
        self._results, self._rng, self._spoil = results, rng, spoil

    def run(self, job: Job, *, what: str, timeout_s: float, on_progress: Progress, into: Path | None = None) -> dict[str, Any]:
        kind = job.request["job"]
        result = self._results[kind]
        line: Any = {"worker": {"result": result(job.request) if callable(result) else result}}
        if kind == self._spoil:
            line = spoilt(line, self._rng)
        text = text_of(line)
        if kind == self._spoil and self._rng.random() < 0.05:
            text = text[:self._rng.randrange(len(text))]
        lines = WorkerLines(what, on_progress)
        lines.take(worker_line(parsed(text.encode(), self.name), self.name))
        for name in job.downloads:
            assert into is not None
            (into / name).mkdir()
            write_class_map(into / name / "00000000.png", np.zeros((24, 32), np.uint8))
        return lines.result(0, "")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), "null")


@pytest.fixture(scope="module")
def site() -> Site:
    return describe(LocalDevice(), lambda stage, done: None)


@pytest.fixture(scope="module")
def results(bundle: Bundle, site: Site) -> dict[str, Any]:
    """What a board in order answers, by job."""
    frame = bundle.folder / bundle.manifest.golden[0].frame
    measured = bench(bundle, [frame], how=HOW, quick=True)
    layer = ExecutedLayer(name="conv", kind="convolution", precision="f32", macs=10, reason="kept")
    executed = ExecutedPrecision(layers=(layer, ExecutedLayer(name="b", kind="depthwise", precision=INT8, macs=5)), source="a test")
    energy = FrameEnergy(per_frame_j=1.0, per_frame_with_idle_j=2.0, mean_w=3.0, idle_w=1.5, samples=20, idle_samples=20, frames=50,
                         seconds=1.0, source="rapl", covers="processor package")
    gains = [{"kind": "depthwise", "share": 0.3, "gain": 0.7, "version": "1"}]
    whole = {**asdict(measured), "precision": "int8", "executed": {**executed.to_json(), "without_gain": gains}, "energy": energy.to_json(),
             "drift": {"change": 0.1, "step_at_s": 1.0, "step": 1.0}}
    machine, stats, place = measured.machine, latency_stats([1_000_000] * 70), MeasuredOn(machine="a board", is_target=True)
    side = Side(bundle="b", bundle_sha256="0", format="null", precision="fp32", runtime="null", options=asdict(HOW.options), settings={},
                versions={"null": "1"}, inference_p50_ms=1.0, end_to_end_p50_ms=2.0)
    one = PairedRatio(ratio=1.0, low=0.99, high=1.01)
    starts = Starts(python_ms=1.0, import_ms=1.0, open_ms=1.0, first_answer_ms=1.0, total_ms=4.0, totals_ms=(4.0, 4.0))
    described = {**asdict(site), "ways": sorted(site.ways), "sensors": [{"sensor": "temperature", "readings": {"cpu_c": 40.0, "odd": 1.0},
                                                                       "why": "", "fix": ""}]}
    found = {
        "bench": whole, "describe": described,
        "compare": asdict(SpeedRatio(ratio=1.0, low=0.9, high=1.1, blocks=24, frames_per_block=4, a_p50_ms=1.0, b_p50_ms=1.0, quick=True,
                                     measured_on=place)),
        "versus": asdict(Versus(a=side, b=side, null_inference=one, null_end_to_end=one, inference=one, end_to_end=one, pairs=24,
                                frames_per_block=4, cpus=(0, 1), steady=True, load=whole["load"], quick=True, machine=machine,
                                measured_on=place)),
        "offline": asdict(Offline(fps=100.0, frames=50, seconds=0.5, at_once=1, num_threads=1, latency=stats)),
        "paced": asdict(Paced(fps=5.0, frames=5, seconds=1.0, late=1, lost=0, longest_run=1, latency=stats)),
        "cold": asdict(Cold(without=starts, cached=starts, no_cache="")),
        "answer": {"num_answers": 1, "runtime": "null", "settings": {"runtime": "null"}, "versions": {"null": "1"},
                   "machine": asdict(machine), "measured_on": asdict(place)},
        "tune-look": {"machine": {**asdict(machine), "cores": 2}, "smt": False, "version": "1", "arithmetic": "f32",
                      "measured_on": asdict(place)},
    }
    tidy: dict[str, Any] = json.loads(json.dumps(found))
    tidy["tune-try"] = lambda request: {"rows": [
        {"golden": 1.0, "same": 1.0, "settings": {"threads": str(number)}, "cost_ms": 1.0} for number, _ in request["settings"]]}
    tidy["tune-race"] = lambda request: {"costs": [[1.0 + 0.1 * (number == 0)] * request["blocks"] for number, _ in request["settings"]]}
    return tidy


Use = Callable[[Babbling, Bundle, Site], object]


def here(board: Babbling) -> Setup:
    return Setup(target=find_target("host"), device=board, quick=True, minutes=None, on_progress=lambda stage, done: None)


def frames_of(bundle: Bundle) -> list[bytes | Path]:
    return [bundle.folder / bundle.manifest.golden[0].frame]


def use_bench(board: Babbling, bundle: Bundle, site: Site) -> None:
    result = bench(bundle, frames_of(bundle), how=HOW, quick=True, device=board)
    bench_words.result_lines(result, place=Place(board, site), target="host", frames="", tuned="")
    circumstances(json.loads(json.dumps(result.to_json(), allow_nan=False)))


def use_compare(board: Babbling, bundle: Bundle, site: Site) -> None:
    found = compare(bundle, bundle, frames_of(bundle), how_a=HOW, how_b=HOW, quick=True, device=board).to_json()
    json.dumps([1 / found["ratio"], 1 / found["low"], 1 / found["high"]], allow_nan=False)


def use_versus(board: Babbling, bundle: Bundle, site: Site) -> None:
    result = measure_versus(bundle, bundle, frames_of(bundle), HOW, HOW, here(board))
    bench_words.versus_lines(result, place=Place(board, site), target="host", frames="", tuned=("", ""))
    json.dumps(result.to_json(), allow_nan=False)


def use_cold(board: Babbling, bundle: Bundle, site: Site) -> None:
    found = measure_cold(bundle, frames_of(bundle), HOW, here(board))
    bench_words.cold_line(found)
    json.dumps(found.to_json(), allow_nan=False)


def use_describe(board: Babbling, bundle: Bundle, site: Site) -> None:
    found = describe(board, lambda stage, done: None)
    entry = Entry(name="board", address=board.address)
    devices._check_lines(Checked(entry=entry, site=found))
    place = Place(board, found)
    json.dumps([found.to_json(), place.key, place.plan("host", bundle.manifest).options.num_threads], allow_nan=False)


def use_answers(board: Babbling, bundle: Bundle, site: Site) -> None:
    with answers_on(board, bundle, ()) as session:
        json.dumps([asdict(session.machine), session.measured_on.words, session.settings, session.versions], allow_nan=False)
        session.run(bundle.golden_frames()[0])


def use_tune(board: Babbling, bundle: Bundle, site: Site) -> None:
    frame = bundle.folder / bundle.manifest.golden[0].frame
    result = tune(bundle, [frame], device=board, target="host", how=HOW, quick=True)
    tuning.result_lines(result)
    json.dumps([result.to_json(), asdict(result.entry())], allow_nan=False)


USES: dict[str, Use] = {
    "bench": use_bench, "compare": use_compare, "versus": use_versus, "cold": use_cold, "describe": use_describe, "answer": use_answers,
    "offline": lambda board, bundle, site: bench_words.offline_line(measure_offline(bundle, frames_of(bundle), HOW, here(board)), ""),
    "paced": lambda board, bundle, site: bench_words.paced_line(measure_paced(bundle, frames_of(bundle), HOW, here(board), fps=5)),
    "tune-look": use_tune, "tune-try": use_tune, "tune-race": use_tune,
}


@pytest.mark.parametrize("kind", list(USES))
def test_one_thing_wrong_is_one_line(kind: str, results: dict[str, Any], bundle: Bundle, site: Site) -> None:
    rng = random.Random(f"received {kind}")
    USES[kind](Babbling(results, rng, ""), bundle, site)
    refused = 0
    for _ in range(ROUNDS):
        try:
            USES[kind](Babbling(results, rng, kind), bundle, site)
        except EdgesegError as error:
            assert error.exit_code in (DeviceError.exit_code, 11), error  # 11: a setting whose answers are not the sealed ones
            assert str(error).isprintable()
            assert len(str(error)) < 400
            assert any(words in str(error) for words in ("type: edgeseg devices setup board", "run the same command", "edgeseg verify"))
            refused += 1
    assert refused > ROUNDS / 4


def test_the_field_is_named_with_what_came(results: dict[str, Any]) -> None:
    def why(**change: Any) -> str:
        with pytest.raises(DeviceError) as caught:
            received(BenchResult, {**results["bench"], **change}, "board")
        return str(caught.value)

    assert "in BenchResult: load_ms is text x, not a number" in why(load_ms="x")
    assert "inference.p50_ms is missing" in why(inference={
        key: value for key, value in results["bench"]["inference"].items() if key != "p50_ms"})
    assert "end_to_end.fps is a whole number 0, not a number above 0" in why(end_to_end={**results["bench"]["end_to_end"], "fps": 0})
    assert "trace holds" in why(trace={**results["bench"]["trace"], "times_s": []})
    assert "executed.layers[0].macs is null" in why(executed={**results["bench"]["executed"], "layers": [{
        **results["bench"]["executed"]["layers"][0], "macs": None}]})


def test_what_is_right_comes_back_equal(results: dict[str, Any]) -> None:
    found = received(BenchResult, results["bench"], "board")
    again = received(BenchResult, json.loads(json.dumps(asdict(found))), "board")
    assert found == again
    assert isinstance(found.inference, LatencyStats)
    assert found.trace == results["bench"]["trace"]


def test_a_result_cut_in_the_middle_says_how_the_worker_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from targets.measure.process import run_worker

    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif '-m' in sys.orig_argv:\n    os.write(1, b'{\"result\": {\"a\": ')\n    os.kill(os.getpid(), 9)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeFailure, match="measuring it was killed by SIGKILL at stage 'start'"):
        run_worker({"job": "describe"}, what="measuring it", timeout_s=300, on_progress=lambda stage, done: None)
