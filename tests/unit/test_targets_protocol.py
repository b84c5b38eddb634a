"""The measurement protocol: fixed rate, offline, cold start, drift, pinning, and two bundles against each other."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_bundle

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BundleError, RuntimeFailure
from targets.boards import Plan, find_target, plan
from targets.devices import LocalDevice
from targets.devices.received import received
from targets.measure import bench as bench_room
from targets.measure.bench import bench
from targets.measure.cold import measure_cold
from targets.measure.drift import drift
from targets.measure.jobs.base import limits_of
from targets.measure.loop import StepTimes
from targets.measure.offline import measure_offline
from targets.measure.paced import measure_paced
from targets.measure.pinning import choose, pin
from targets.measure.result import FULL, QUICK, BenchResult
from targets.measure.scenarios import Setup
from targets.measure.scenarios import measure_cold as cold_of
from targets.measure.scenarios import measure_offline as offline_of
from targets.measure.scenarios import measure_paced as paced_of
from targets.measure.scenarios import measure_versus as versus_of
from targets.measure.surroundings import share_of_others
from targets.measure.versus import PairedRatio, Versus, run_pairs
from targets.runtimes import RuntimeOptions
from targets.telemetry.base import Column
from targets.telemetry.trace import Trace
from targets.telemetry.verdict import LatencyWindow

MS = 1_000_000


class FakeClock:
    """Nanoseconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


def silent(stage: str, done: float) -> None:
    pass


def paced(costs_ms: list[float], fps: float = 10.0) -> Any:
    clock, costs = FakeClock(), iter(costs_ms)

    def step(times: StepTimes) -> None:
        clock.now += round(next(costs) * MS)

    return measure_paced(step, fps, len(costs_ms), clock, clock.sleep, silent)


def test_a_rate_that_is_held() -> None:
    found = paced([99.0] * 20)
    assert (found.held, found.missed, found.longest_run, found.frames, found.seconds) == (True, 0, 0, 20, 2.0)
    assert found.latency.max_ms == 99


def test_late_and_lost_frames_are_missed_and_counted_in_a_row() -> None:
    """350 ms for a frame of 100: it is late, the next two are lost, the fourth is begun 50 ms after it came and is in time."""
    found = paced([10.0, 350.0, 40.0, 10.0, 10.0, 10.0, 10.0, 10.0])
    assert (found.late, found.lost, found.longest_run, found.held) == (1, 2, 3, False)
    assert (found.latency.num_frames, found.latency.fps) == (6, pytest.approx(6 / 0.8))
    assert found.latency.max_ms == 350
    assert sorted(round(paced([150.0] * 4).to_json()[key]) for key in ("late", "lost", "missed")) == [1, 3, 4]


def test_latency_at_a_rate_counts_from_when_the_frame_came() -> None:
    found = paced([130.0, 20.0])
    assert found.latency.max_ms == 130
    assert found.latency.p50_ms == 50  # begun 30 ms late


class FakeStream:
    """Takes a frame of a millisecond of real time."""

    def __init__(self, fail_after: int = 10**9) -> None:
        self.left = fail_after

    def step(self, times: StepTimes) -> None:
        self.left -= 1
        if self.left < 0:
            raise RuntimeFailure("the SDK broke")
        times.end_to_end.append(MS)


def test_offline_counts_the_frames_of_all_streams() -> None:
    import time

    limits = replace(QUICK, min_frames=20, min_seconds=0.05)
    streams: Any = [FakeStream(), FakeStream()]
    found = measure_offline(streams, limits, time.perf_counter_ns, silent, num_threads=3)
    assert (found.at_once, found.num_threads) == (2, 3)
    assert found.frames == found.latency.num_frames >= 20
    assert found.fps == found.latency.fps == pytest.approx(found.frames / found.seconds)
    broken: Any = [FakeStream(), FakeStream(fail_after=5)]
    with pytest.raises(RuntimeFailure, match="the SDK broke"):
        measure_offline(broken, replace(limits, min_seconds=60), time.perf_counter_ns, silent, num_threads=1)


def windows(values: list[float]) -> list[LatencyWindow]:
    return [LatencyWindow(float(second), value) for second, value in enumerate(values)]


def test_minutes_shorten_nothing() -> None:
    assert limits_of({"quick": False, "minutes": 0.02}) == replace(FULL, warmup_max_seconds=2)
    assert limits_of({"quick": False, "minutes": 20.0}) == replace(FULL, min_seconds=1200, warmup_max_seconds=2)
    assert limits_of({"quick": True}) == QUICK


def test_drift_tells_a_slope_from_a_step() -> None:
    slope = drift(windows([10 + 0.01 * i for i in range(60)]))
    assert slope is not None
    assert slope.change == pytest.approx(0.59 / 10.295, rel=1e-6)
    step = drift(windows([10.0] * 20 + [15.0] * 40))
    assert step is not None
    assert (step.step_at_s, step.step) == (20.0, 1.5)
    flat = drift(windows([10.0, 10.1, 10.0, 10.1, 10.0, 10.1]))
    assert flat is not None
    assert 0.98 < flat.step < 1.02
    assert drift(windows([10.0] * 5)) is None


def machine_tree(root: Path, cores: dict[int, int], busy: dict[int, int], capacity: dict[int, int]) -> Path:
    for cpu, core in cores.items():
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "core_id").write_text(f"{core}\n", encoding="ascii")
        (topology / "physical_package_id").write_text("0\n", encoding="ascii")
        if cpu in capacity:
            (topology.parent / "cpu_capacity").write_text(f"{capacity[cpu]}\n", encoding="ascii")
    return root


def proc_stat(root: Path, ticks: dict[int, int]) -> None:
    (root / "proc").mkdir(exist_ok=True)
    lines = [f"cpu{cpu} {value} 0 0 999 0 0 0 0 0 0" for cpu, value in ticks.items()]
    (root / "proc/stat").write_text("\n".join(["cpu  0 0 0 0 0 0 0 0 0 0", *lines, "intr 5"]), encoding="ascii")


def test_pinning_takes_one_processor_a_core_then_the_least_busy(tmp_path: Path) -> None:
    root = machine_tree(tmp_path, {0: 0, 1: 0, 2: 1, 3: 1}, {}, {})
    proc_stat(root, dict.fromkeys(range(4), 100))

    def work(_: float) -> None:
        proc_stat(root, {0: 150, 1: 120, 2: 101, 3: 100})

    assert choose(1, {0, 1, 2, 3}, root, work) == (3,)
    proc_stat(root, dict.fromkeys(range(4), 100))
    assert choose(2, {0, 1, 2, 3}, root, work) == (1, 3)
    assert choose(3, {0, 2}, root, work) == (0, 2)


def test_pinning_prefers_the_fast_cores_of_an_arm_board(tmp_path: Path) -> None:
    root = machine_tree(tmp_path, {0: 0, 1: 1, 2: 2, 3: 3}, {}, {0: 446, 1: 446, 2: 1024, 3: 1024})
    proc_stat(root, {0: 0, 1: 0, 2: 50, 3: 50})
    assert choose(2, {0, 1, 2, 3}, root, lambda _: None) == (2, 3)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can hold a process to processors")
def test_pinning_really_pins() -> None:
    before = os.sched_getaffinity(0)
    try:
        chosen = pin(1, sleep=lambda _: None)
        assert chosen is not None
        assert os.sched_getaffinity(0) == set(chosen) <= before
    finally:
        os.sched_setaffinity(0, before)


def test_blocks_take_turns_and_begin_with_frames_that_do_not_count() -> None:
    clock, calls = FakeClock(), list[str]()

    def side(name: str, cost_ms: float) -> Any:
        def step(times: StepTimes) -> None:
            calls.append(name)
            slow = 10.0 if calls[-2:-1] != [name] else 1.0  # the first frame after the other's is disturbed
            for part, share in ((times.decode, 0.1), (times.resize, 0.1), (times.resize_back, 0.1)):
                part.append(round(share * cost_ms * slow * MS))
            times.end_to_end.append(round(cost_ms * slow * MS))
            clock.now += round(cost_ms * slow * MS)

        return step

    pairs = run_pairs(side("a", 2.0), side("b", 1.0), replace(QUICK, min_pairs=16, block_seconds=0.01), clock, silent, "")
    runs = [(name, len(list(group))) for name, group in itertools.groupby(calls)][2:]  # after one block each to find the length
    assert [name for name, _ in runs[:4]] == list("abab")  # A BB AA BB ... A
    assert all(length > 1.5 * pairs.frames_per_block for _, length in runs[1:-1])
    assert len(runs) == 17
    assert len(pairs.first) == len(pairs.second) == 16
    for part in ("inference", "end_to_end"):
        ratio = pairs.ratio(part)
        assert (ratio.ratio, ratio.low, ratio.high) == (2.0, 2.0, 2.0)
    assert pairs.first[0].inference == pytest.approx(1.4 * MS)


def versus_with(null: tuple[float, float], found: tuple[float, float], template: Versus) -> str:
    def ratio(pair: tuple[float, float]) -> PairedRatio:
        return PairedRatio(ratio=sum(pair) / 2, low=pair[0], high=pair[1])

    return replace(template, null_inference=ratio(null), inference=ratio(found)).verdict


@pytest.fixture(scope="module")
def null_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), "null")


@pytest.fixture
def frames(null_bundle: Bundle) -> list[bytes | Path]:
    return [null_bundle.folder / null_bundle.manifest.golden[0].frame]


@pytest.fixture(scope="module")
def how() -> Plan:
    return plan("host", "null", "fp32", num_threads=1)


@pytest.fixture(scope="module")
def setup() -> Setup:
    return Setup(target=find_target("host"), device=LocalDevice(), quick=True, minutes=None, on_progress=silent)


@pytest.fixture(scope="module")
def versus(null_bundle: Bundle, how: Plan, setup: Setup) -> Iterator[Versus]:
    frame = null_bundle.folder / null_bundle.manifest.golden[0].frame
    yield versus_of(null_bundle, null_bundle, [frame], how, how, setup)


def test_versus_says_everything(versus: Versus) -> None:
    said = json.loads(json.dumps(versus.to_json(), allow_nan=False))
    assert said["pairs"] >= 15
    assert said["verdict"] in {"restless", "no difference", "faster", "slower"}
    for name in ("null_inference", "null_end_to_end", "inference", "end_to_end"):
        assert 0 < said[name]["low"] <= said[name]["ratio"] <= said[name]["high"]
    if hasattr(os, "sched_getaffinity"):
        assert len(said["cpus"]) == 1
        assert set(said["cpus"]) <= os.sched_getaffinity(0)
    assert said["a"]["runtime"] == "null"
    assert said["a"]["inference_p50_ms"] < said["a"]["end_to_end_p50_ms"]
    assert said["quick"]


def test_a_verdict_needs_a_null_test_that_holds_and_a_difference_beyond_it(versus: Versus) -> None:
    assert versus_with((1.005, 1.05), (2.0, 2.1), versus) == "restless"
    assert versus_with((0.95, 0.99), (2.0, 2.1), versus) == "restless"
    assert versus_with((0.99, 1.01), (1.02, 1.05), versus) == "faster"
    assert versus_with((0.99, 1.01), (0.90, 0.98), versus) == "slower"
    assert versus_with((0.99, 1.01), (1.005, 1.05), versus) == "no difference"
    assert versus_with((0.99, 1.01), (0.97, 0.995), versus) == "no difference"
    assert versus_with((0.995, 0.999), (0.97, 0.99), versus) == "slower"  # within 1 % of 1: two sessions lie elsewhere in memory
    assert versus_with((0.995, 0.999), (1.001, 1.004), versus) == "no difference"  # and that counts in both directions


def test_noise_is_no_way_to_pass(versus: Versus) -> None:
    assert versus_with((0.5, 2.0), (1.3, 1.9), versus) == "restless", "A/A holds 1 because it holds anything"
    assert versus_with((0.99, 1.01), (0.8, 1.3), versus) == "restless", "A/B does"
    assert versus_with((0.94, 1.01), (0.98, 1.02), versus) == "restless", "A/A reaches 6 % below 1"
    assert versus_with((0.9, 1.1), (2.9, 3.2), versus) == "faster", "a difference beyond all noise is one"


def test_scenarios_through_the_worker(null_bundle: Bundle, frames: list[bytes | Path], how: Plan, setup: Setup) -> None:
    offline = offline_of(null_bundle, frames, how, setup)
    assert offline.frames >= QUICK.min_frames
    assert (offline.at_once, offline.seconds >= QUICK.min_seconds) == (1, True)
    found = paced_of(null_bundle, frames, how, setup, fps=20)
    assert (found.fps, found.frames) == (20, 20)
    assert found.late + found.lost <= found.frames
    json.dumps([offline.to_json(), found.to_json()], allow_nan=False)


def test_cold_starts_are_processes_of_their_own(
    null_bundle: Bundle, frames: list[bytes | Path], how: Plan, setup: Setup, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench_room, "QUICK_TIMEOUT_S", 0.1)  # a limit of its own: each start may build an engine
    told: list[float] = []
    found = cold_of(null_bundle, frames, how, replace(setup, on_progress=lambda _, done: told.append(done)))
    assert told == [0.0, 0.25, 0.5, 0.75, 1.0], "after each start; none is tried with a cache that the runtime has not"
    assert len(found.without.totals_ms) == 3
    assert found.without.python_ms > 1
    assert found.without.import_ms > 10
    assert max(found.without.totals_ms) >= found.without.total_ms >= found.without.import_ms
    assert (found.cached, found.ratio) == (None, None)
    assert found.no_cache == "null on cpu keeps nothing between starts"


ALWAYS_KEEPS = """#!{python}
import json, os, sys
from pathlib import Path
request = json.loads(sys.argv[-1])
engine = Path(request["options"]["cache_dir"] or os.environ["EDGESEG_CACHE"]) / "engine"
kept = engine.exists()
engine.write_text("built", encoding="utf-8")
total = 10 if kept else {slow_ms}
print(json.dumps({{"steps_ms": {{"python": 1, "import": 1, "open": 1, "first_answer": 1, "total": total}}}}))
"""


@pytest.mark.parametrize(("slow_ms", "rounds", "starts", "processes"), [(2000, 9, 9, 20), (90_000, 9, 3, 7), (90_000, 3, 1, 3)])
def test_starts_without_caches_find_none_where_a_runtime_always_keeps_one(
    slow_ms: int, rounds: int, starts: int, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stand-in for a start with TensorRT, which takes the user's cache folder where it is given none."""
    stand_in = tmp_path / "start"
    stand_in.write_text(ALWAYS_KEEPS.format(python=sys.executable, slow_ms=slow_ms), encoding="utf-8")
    stand_in.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(stand_in))
    told: list[float] = []
    how = Plan("tensorrt", RuntimeOptions(provider="tensorrt"))
    found = measure_cold("bundle", "file", how, rounds, lambda _, done: told.append(done))
    assert (len(told), told[-1]) == (processes, 1.0)
    assert found.without.totals_ms == (slow_ms,) * starts
    assert found.cached is not None
    assert found.cached.totals_ms == (10,) * starts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["start"], "what was kept is gone, and the user's cache was left alone"


def test_a_cold_start_that_fails_says_what_the_start_said(
    null_bundle: Bundle, frames: list[bytes | Path], how: Plan, setup: Setup, tmp_path: Path,
) -> None:
    broken = tiny_bundle(tmp_path, "null")
    broken.model_path.write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"model\.json"):
        cold_of(broken, frames, how, setup)


def test_bench_says_what_went_on_around_it(null_bundle: Bundle, frames: list[bytes | Path], how: Plan) -> None:
    result = bench(null_bundle, frames, how=how, quick=True)
    assert result.trace is not None
    assert result.load is not None
    assert result.as_others is not None
    assert len(result.trace["times_s"]) >= 2
    assert result.as_others["end_to_end"]["benchmark_app"]["p90_ms"] == result.end_to_end.p90_ms
    assert result.end_to_end.p90_early_stopping_ms is None or result.end_to_end.p90_early_stopping_ms >= result.end_to_end.p90_ms
    for share in ("others_before", "others_during"):
        assert 0 <= result.load[share] <= 1.5 if result.load[share] is not None else True
    assert (result.energy is None) == bool(result.energy_absent)
    assert result.throttling is not None


def test_a_result_of_before_still_loads(null_bundle: Bundle, frames: list[bytes | Path], how: Plan) -> None:
    raw = json.loads(json.dumps(asdict(bench(null_bundle, frames, how=how, quick=True))))
    for name in ("as_others", "trace", "windows", "throttling", "drift", "energy", "energy_absent", "load", "device"):
        del raw[name]
    for part in ("inference", "end_to_end"):
        for name in ("p90_early_stopping_ms", "p99_early_stopping_ms"):
            del raw[part][name]
    old = received(BenchResult, raw, "board")
    assert (old.trace, old.energy, old.inference.p90_early_stopping_ms) == (None, None, None)
    json.dumps(old.to_json(), allow_nan=False)


def test_minutes_give_windows_and_a_loop_too_short_for_a_meter_no_energy(
    null_bundle: Bundle, frames: list[bytes | Path], how: Plan, tmp_path: Path,
) -> None:
    meter = tmp_path / "a meter.py"
    meter.write_text("import time\nfor i in range(10**6):\n    print(5, flush=True)\n    time.sleep(0.1)\n", encoding="utf-8")
    result = bench(null_bundle, frames, how=how, quick=True, minutes=3.2 / 60, meter=f"{sys.executable} '{meter}'")
    assert result.measured_s >= 3.2
    assert len(result.windows) >= 3
    assert result.energy is None
    assert re.fullmatch(r"power-command gave \d new values of meter_w in \d s, at least 10 .* measure longer", result.energy_absent)


def test_others_share_is_of_all_processors() -> None:
    column = Column(name="other_cpu_s", kind="counter")
    trace = Trace(
        start_ns=0, times_s=(0.0, 10.0), columns=(column,), values={"other_cpu_s": (100.0, 105.0)}, sensors={"load": ("other_cpu_s",)},
    )
    assert share_of_others(trace, "other_cpu_s") == pytest.approx(0.5 / (os.cpu_count() or 1))
    assert share_of_others(trace, "stolen_cpu_s") is None
