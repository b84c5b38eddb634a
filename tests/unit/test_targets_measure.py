"""Measuring: what the numbers mean, and every way the measuring process can end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_bundle, tiny_frame
from waiting_tools import has_ended

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BundleError, InputMissingError, RuntimeFailure, TargetError
from edgeseg.core.images import ClassMap, Frame, write_frame
from edgeseg.core.manifest import Contract
from edgeseg.core.stats import nearest_rank
from targets.devices.received import received
from targets.measure.bench import bench, compare
from targets.measure.loop import StepTimes, Stream, bootstrap_ratio, measure_stream, warm_up
from targets.measure.process import run_worker
from targets.measure.result import QUICK, BenchResult
from targets.measure.versus import run_pairs

MS = 1_000_000


class FakeClock:
    """Nanoseconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class SlowSession:
    """Takes the next of `times_ms` for each frame."""

    def __init__(self, clock: FakeClock, times_ms: Iterator[float]) -> None:
        self.clock, self.times_ms = clock, times_ms
        self.settings: dict[str, str] = {}

    def run(self, frame_HWC: Frame, out: ClassMap | None = None) -> ClassMap:
        self.clock.now += round(next(self.times_ms) * MS)
        return np.zeros(frame_HWC.shape[:2], dtype=np.uint8)

    def close(self) -> None:
        pass


def silent(stage: str, done: float) -> None:
    pass


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_frame(tmp_path / "frame.png", tiny_frame(height=48, width=64))
    return tmp_path / "frame.png"


def stream_of(times_ms: Iterator[float], file: Path, contract: Contract | None = None) -> tuple[Stream, FakeClock]:
    clock = FakeClock()
    return Stream(SlowSession(clock, times_ms), contract or Contract(height=24, width=32), [file], clock), clock


def forever(value: float) -> Iterator[float]:
    while True:
        yield value


def test_warm_up_ends_when_two_windows_agree(file: Path) -> None:
    falling = iter([20.0] * 8 + [10.0] * 8 + [10.2] * 8 + [5.0] * 100)
    stream, clock = stream_of(falling, file)
    warm = warm_up(stream.step, QUICK, clock, silent)
    assert (warm.frames, warm.steady) == (24, True)
    assert warm.seconds == pytest.approx((20 * 8 + 10 * 8 + 10.2 * 8) / 1e3)


def test_warm_up_that_never_settles_says_so(file: Path) -> None:
    growing = (10.0 * 1.1 ** (i // 8) for i in range(10**6))
    stream, clock = stream_of(growing, file)
    warm = warm_up(stream.step, replace(QUICK, warmup_max_seconds=1e9), clock, silent)
    assert not warm.steady
    assert warm.frames == QUICK.warmup_max_frames
    stream, clock = stream_of((1e3 * 1.1 ** (i // 8) for i in range(10**6)), file)
    assert warm_up(stream.step, QUICK, clock, silent).frames == QUICK.warmup_window  # one window of 8 s is above the time bound


def test_measures_until_frames_and_seconds_are_both_reached(file: Path) -> None:
    stream, clock = stream_of(forever(10), file)
    times, seconds = measure_stream(stream, replace(QUICK, min_frames=20, min_seconds=1), clock, silent)
    assert (len(times.end_to_end), seconds) == (100, pytest.approx(1.0))
    stream, clock = stream_of(forever(100), file)
    times, seconds = measure_stream(stream, replace(QUICK, min_frames=20, min_seconds=1), clock, silent)
    assert (len(times.end_to_end), seconds) == (20, pytest.approx(2.0))
    assert set(times.inference) == {100 * MS}
    assert set(times.decode) == {0}


def test_inference_is_one_runtime_call_and_end_to_end_the_whole_frame(file: Path) -> None:
    stream, _clock = stream_of(forever(5), file, Contract(height=24, width=32, resize="tile"))
    times = StepTimes()
    stream.step(times)
    assert list(times.inference) == [5 * MS] * 4
    assert list(times.end_to_end) == [20 * MS]


def test_outliers_stay_in(file: Path) -> None:
    stream, clock = stream_of(iter([10.0] * 98 + [500.0, 900.0]), file)
    times, _ = measure_stream(stream, replace(QUICK, min_frames=100, min_seconds=0), clock, silent)
    assert (nearest_rank(times.inference, 99), nearest_rank(times.inference, 100)) == (500 * MS, 900 * MS)


def test_interleaving_takes_out_what_slows_both() -> None:
    clock, calls = FakeClock(), []

    def side(cost_ms: float) -> Callable[[StepTimes], None]:
        def step(times: StepTimes) -> None:
            calls.append(cost_ms)
            spent = round(cost_ms * (1 + len(calls) / 500) * MS)  # the machine becomes slower all the time
            clock.now += spent
            for part in (times.decode, times.resize, times.resize_back):
                part.append(0)
            times.end_to_end.append(spent)

        return step

    found = run_pairs(side(2.0), side(1.0), replace(QUICK, min_pairs=40), clock, silent, "").ratio("inference")
    assert found.ratio == pytest.approx(2.0, rel=0.03)
    assert 1 < found.low <= found.ratio <= found.high


def test_bootstrap_interval_holds_one_for_equal_sides() -> None:
    rng = np.random.Generator(np.random.Philox(1))
    held = 0
    for _ in range(40):
        a, b = rng.lognormal(0, 0.2, 30), rng.lognormal(0, 0.2, 30)
        ratio, low, high = bootstrap_ratio(list(a), list(b), resamples=500)
        assert ratio == pytest.approx(np.median(a / b))
        held += low <= 1 <= high
    assert held >= 35
    drift = np.linspace(1, 9, 30)  # the machine becomes nine times slower: both sides do
    assert bootstrap_ratio(list(3 * drift), list(2 * drift)) == pytest.approx((1.5, 1.5, 1.5))


@pytest.fixture(scope="module")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), "onnx")


@pytest.fixture(scope="module")
def null_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), "null", resize="tile")


def frames_of(bundle: Bundle) -> list[bytes | Path]:
    path = bundle.folder / bundle.manifest.golden[0].frame
    return [path, path.read_bytes()]


def test_bench_gives_all_there_is_to_know(onnx_bundle: Bundle) -> None:
    stages: list[str] = []
    result = bench(
        onnx_bundle, frames_of(onnx_bundle), target="raspberry-pi-5", quick=True, on_progress=lambda stage, done: stages.append(stage),
    )
    assert (result.runtime, result.provider, result.quick, result.format) == ("onnxruntime", "cpu", True, "onnx")
    assert not result.measured_on.is_target
    assert result.inference.num_frames == result.end_to_end.num_frames >= 50
    assert result.measured_s >= 1
    for stats in (result.inference, result.decode, result.resize, result.resize_back):
        assert 0 <= stats.p50_ms <= stats.p90_ms <= stats.p99_ms <= stats.max_ms
        assert stats.p50_ms <= result.end_to_end.p50_ms
    assert result.cold_open_ms > result.load_ms > 0
    assert result.first_inference_ms > 0
    assert result.import_rss_bytes is not None
    assert result.peak_rss_bytes is not None
    assert 10e6 < result.import_rss_bytes < result.peak_rss_bytes < 1e9
    assert result.size_bytes == onnx_bundle.model_path.stat().st_size
    assert result.settings["intra_op_num_threads"] == str(result.num_threads)
    assert {"edgeseg", "python", "numpy", "onnxruntime"} <= set(result.versions)
    assert list(dict.fromkeys(stages))[:2] == ["rest", "open"]
    assert "measure" in stages
    said = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert said["measured_on"].endswith("not the target")
    assert said["machine"]["governor"]


def test_peak_memory_is_the_workers_own(null_bundle: Bundle) -> None:
    ballast = np.ones(400 * 2**20, dtype=np.uint8)  # resident here, and no business of the worker
    result = bench(null_bundle, frames_of(null_bundle), quick=True)
    assert result.peak_rss_bytes is not None
    assert result.peak_rss_bytes < ballast.nbytes // 2


def test_compare_the_same_bundle_finds_no_difference_worth_naming(onnx_bundle: Bundle) -> None:
    ratio = compare(onnx_bundle, onnx_bundle, frames_of(onnx_bundle), quick=True)
    assert ratio.blocks >= 15
    assert ratio.low <= ratio.ratio <= ratio.high
    assert 0.5 < ratio.ratio < 2
    assert ratio.quick


def test_errors_of_the_worker_arrive_as_they_were(onnx_bundle: Bundle, null_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no frames"):
        bench(null_bundle, [], quick=True)
    with pytest.raises(InputMissingError, match="does not exist"):
        bench(null_bundle, [tmp_path / "gone.png"], quick=True)
    with pytest.raises(TargetError, match="intel-cpu does not run onnx; it runs openvino"):
        bench(onnx_bundle, frames_of(onnx_bundle), target="intel-cpu", quick=True)
    changed = tiny_bundle(tmp_path, "null")
    changed.model_path.write_text('{"num_classes": 4}', encoding="utf-8")
    with pytest.raises(BundleError, match=r"model\.json has 18 bytes"):
        bench(changed, frames_of(null_bundle), quick=True)


def workers_of(parent: int) -> list[int]:
    """Processes that measure for `parent`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"targets.measure.worker" in (entry / "cmdline").read_bytes():
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                if int(fields[1]) == parent and fields[0] != "Z":
                    found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_a_crash_names_the_signal(null_bundle: Bundle) -> None:
    struck = threading.Event()

    def strike(stage: str, done: float) -> None:
        if stage == "measure" and not struck.is_set():
            struck.set()
            for pid in workers_of(os.getpid()):
                os.kill(pid, signal.SIGSEGV)

    with pytest.raises(RuntimeFailure, match="measuring tiny-null with null was killed by SIGSEGV at stage 'measure'"):
        bench(null_bundle, frames_of(null_bundle), on_progress=strike)  # a minute, if it is let


def test_a_worker_that_hangs_is_stopped(null_bundle: Bundle) -> None:
    with pytest.raises(RuntimeFailure, match=r"took more than 1 s .*was stopped"):
        bench(null_bundle, frames_of(null_bundle), timeout_s=1)
    assert workers_of(os.getpid()) == []


def test_last_words_are_kept() -> None:
    with pytest.raises(RuntimeFailure, match=r"ended without an answer \(exit 1\) at stage 'start' \(last words: KeyError: 'unknown'\)"):
        run_worker({"job": "unknown"}, what="nonsense", timeout_s=300, on_progress=silent)


def test_an_exception_here_ends_the_worker(null_bundle: Bundle) -> None:
    def interrupt(stage: str, done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(null_bundle, frames_of(null_bundle), on_progress=interrupt)
    assert workers_of(os.getpid()) == []


def test_the_worker_dies_with_its_parent(null_bundle: Bundle) -> None:
    code = """
        import sys
        from pathlib import Path
        from edgeseg.core.bundle import open_bundle
        from targets.measure.bench import bench
        bundle = open_bundle(Path(sys.argv[1]))
        bench(bundle, [Path(sys.argv[2])], on_progress=lambda stage, done: print(stage, flush=True))
    """
    frame = frames_of(null_bundle)[0]
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(null_bundle.folder), str(frame)], stdout=subprocess.PIPE, text=True,
    )
    assert parent.stdout is not None
    assert any(line.strip() == "measure" for line in parent.stdout)
    workers = workers_of(parent.pid)
    assert len(workers) == 1
    os.kill(workers[0], signal.SIGSTOP)  # hangs in an SDK: it will not notice a broken pipe
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone = has_ended(workers[0])
    if not gone:
        os.kill(workers[0], signal.SIGKILL)
    assert gone


def test_result_comes_back_whole(null_bundle: Bundle) -> None:
    from dataclasses import asdict

    result = bench(null_bundle, frames_of(null_bundle), quick=True)
    assert received(BenchResult, json.loads(json.dumps(asdict(result))), "board") == result
