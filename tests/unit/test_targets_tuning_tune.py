"""Tuning on this machine, with real runtimes; and settings that crash, hang, are refused or answer otherwise."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_bundle

from edgeseg.core.bundle import Bundle, open_bundle
from edgeseg.core.errors import BundleError, ConfigError, InputMissingError, RuntimeFailure, TargetError
from edgeseg.workflow.measure.tuning import result_lines
from targets.boards import Plan, plan
from targets.devices import Job, LocalDevice
from targets.measure.jobs.tune import TURN_CALLS, _times
from targets.measure.result import QUICK
from targets.runtimes import RuntimeOptions
from targets.tuning import tune as tuning
from targets.tuning import turns
from targets.tuning.result import TuneResult
from targets.tuning.tune import tune

HOW = Plan("null", RuntimeOptions(num_threads=1))


class Watched(LocalDevice):
    """This machine, where something happens to the results."""

    def __init__(self, change: Callable[[str, dict[str, Any]], None] = lambda job, result: None) -> None:
        self.change = change
        self.jobs: list[str] = []

    def run(self, job: Job, **how: Any) -> dict[str, Any]:
        result = super().run(job, **how)
        self.jobs.append(job.request["job"])
        self.change(self.jobs[-1], {**result, "settings": [number for number, _ in job.request.get("settings", ())]})
        return result


def let_break(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at_once: Mapping[int, int], later: Mapping[int, int] = MappingProxyType({}),
    since: int = 2,
) -> None:
    """Let workers die of a signal when they open a session with so many threads: whenever they do, or `since` that time."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(textwrap.dedent(f"""
        import os
        from pathlib import Path
        from targets.runtimes.null import NullRuntime

        plain = NullRuntime.open

        def opened(self, bundle, options):
            mark = Path({str(folder)!r}, str(options.num_threads))
            with mark.open("a") as stream:
                stream.write(".")
            number = {dict(at_once)!r}.get(options.num_threads)
            if mark.stat().st_size >= {since}:
                number = number or {dict(later)!r}.get(options.num_threads)
            if number:
                os.kill(os.getpid(), number)
            return plain(self, bundle, options)

        NullRuntime.open = opened
    """), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"), "null")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test process may have one processor only; four settings are tried all the same, and measured briefly."""
    monkeypatch.setattr("targets.tuning.knobs.thread_counts", lambda cores: (1, 2, 3, 4))
    monkeypatch.setattr(tuning, "FIRST_BLOCKS", {True: 2})
    for module in (tuning, turns):
        monkeypatch.setattr(module, "QUICK", replace(QUICK, min_pairs=8, block_seconds=0.005))


def find(bundle: Bundle, device: LocalDevice, **more: Any) -> TuneResult:
    frame = bundle.folder / bundle.manifest.golden[0].frame
    return tune(bundle, [frame], **{"device": device, "target": "host", "how": HOW, "quick": True, **more})


def quicker(times: Mapping[int, float]) -> Callable[[str, dict[str, Any]], None]:
    """Make the costs of settings in the race so many times as small; and none hopeless, however busy the machine is."""
    def change(job: str, result: dict[str, Any]) -> None:
        if job == "tune-try":
            for row in result["rows"]:
                row["cost_ms"] = 1.0
        for number, costs in zip(result["settings"], result["costs"], strict=True) if job == "tune-race" else ():
            costs[:] = [cost / times.get(number, 1.0) for cost in costs]

    return change


def test_settings_that_do_nothing_are_not_taken(bundle: Bundle) -> None:
    stages: list[str] = []
    rng = np.random.Generator(np.random.Philox(2))

    def noise(job: str, result: dict[str, Any]) -> None:
        quicker({})(job, result)
        for number, costs in zip(result["settings"], result["costs"], strict=True) if job == "tune-race" else ():
            lucky = number == 2 and device.jobs.count("tune-race") == 1
            costs[:] = rng.lognormal(-0.1 if lucky else 0, 0.05, len(costs))  # known: nothing hangs on this machine's speed

    device = Watched(change=noise)
    result = find(bundle, device, on_progress=lambda stage, done: stages.append(stage))
    assert {row.fields["num_threads"] for row in result.rows if not row.reason} == {1, 2, 3, 4}
    assert device.jobs[:3] == ["tune-look", "tune-try", "tune-race"]
    assert (result.best, result.blocks, result.faster) == ({"num_threads": 3}, 8, False)  # won the race by luck, and had none in the check
    assert result.chosen == result.default == {"num_threads": 1}
    assert result.low <= 1 <= result.high
    assert (result.runtime, result.provider, result.purpose, result.quick) == ("null", "cpu", "latency", True)
    assert result.same_answers == 1
    assert {"trying settings", "round 1, 4 settings"} <= set(stages)
    json.dumps(result.to_json(), allow_nan=False)
    entry = result.entry()
    assert (entry.fields, entry.gain, entry.low, entry.high) == (result.default, 1, 1, 1)


def test_a_faster_setting_is_found_and_checked_against_the_default(bundle: Bundle) -> None:
    device = Watched(change=quicker({2: 30.0}))
    result = find(bundle, device)
    assert result.chosen == result.best == {"num_threads": 3}
    assert 3 < result.gain < 300  # 30, on a machine that may be busy
    assert 1 < result.low <= result.gain <= result.high
    assert (result.blocks, device.jobs[-1]) == (8, "tune-race")
    assert (result.rows[0].fields, result.rows[0].ratio) == ({"num_threads": 3}, 1)


def test_settings_that_crash_or_hang_are_rows_with_their_reasons(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_break(tmp_path / "site", monkeypatch, {2: int(signal.SIGALRM), 3: int(signal.SIGSEGV)}, later={4: int(signal.SIGKILL)})
    result = find(bundle, Watched(change=quicker({})))
    rows = {row.fields["num_threads"]: row for row in result.rows}
    assert rows[2].reason == "a call did not come back within 60 s"
    assert "tuning tiny-null with null was killed by SIGSEGV at stage 'setting 2'" in rows[3].reason
    assert "was killed by SIGKILL at stage 'setting 3'" in rows[4].reason
    assert [row.cost_ms is None for _, row in sorted(rows.items())] == [False, True, True, True]
    assert result.chosen == result.default == {"num_threads": 1}
    assert result.blocks == 0


def test_a_winner_that_breaks_in_the_check_is_not_taken(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_break(tmp_path / "site", monkeypatch, {}, later={3: int(signal.SIGSEGV)}, since=3)  # tried, raced once, checked
    result = find(bundle, Watched(change=quicker({2: 900.0, 0: 30.0})))
    assert (result.chosen, result.best, result.blocks, result.faster) == (result.default, result.default, 0, False)
    winner = result.rows[0]
    assert (winner.fields, winner.ratio) == ({"num_threads": 3}, 1)
    assert "was killed by SIGSEGV at stage 'setting 2'" in winner.reason
    said = result_lines(result)
    assert said[-1] == f"the target's own settings are kept: num_threads=3 won the race and broke in the check: {winner.reason}"
    assert any(line.startswith("  num_threads=3: ") and f"; broke in the check: {winner.reason}" in line for line in said)


def test_where_the_winner_breaks_in_the_check_the_next_is_checked(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_break(tmp_path / "site", monkeypatch, {}, later={3: int(signal.SIGSEGV)}, since=3)
    result = find(bundle, Watched(change=quicker({2: 900.0, 1: 30.0})))
    assert result.chosen == result.best == {"num_threads": 2}
    assert (result.blocks, result.faster) == (8, True)
    said = result_lines(replace(result, low=0.9, chosen=result.default))[-1]
    assert "kept: num_threads=2 is the next after num_threads=3, which broke in the check, but is not clearly faster: " in said


def test_a_call_that_does_not_come_back_is_ended_by_the_kernel() -> None:
    code = "import time; from targets.measure.jobs.tune import _Limit\nwith _Limit(0.2):\n  while True: time.sleep(9)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(tuning.__file__).parents[2], timeout=300, check=False)
    assert ended.returncode == -signal.SIGALRM


@pytest.mark.parametrize(("call_s", "calls"), [(0.001, 40), (0.05, 10), (0.4, 3), (3.0, 1)])
def test_a_block_of_slow_calls_is_bounded_by_time(call_s: float, calls: int) -> None:
    now = [0.0]

    def call() -> None:
        now[0] += call_s

    assert len(_times(call, TURN_CALLS, 0.0399, lambda: round(now[0] * 1e9))) == calls


def test_a_default_that_crashes_is_an_error(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_break(tmp_path / "site", monkeypatch, {1: int(signal.SIGKILL)})
    with pytest.raises(RuntimeFailure, match="was killed by SIGKILL at stage 'setting 0'"):
        find(bundle, LocalDevice())


def test_a_setting_that_answers_otherwise_needs_leave(bundle: Bundle) -> None:
    def change(job: str, result: dict[str, Any]) -> None:
        quicker({1: 900.0, 2: 30.0})(job, result)
        if job == "tune-try":
            result["rows"][1]["same"], result["rows"][2]["golden"] = 0.985, 0.9995

    result = find(bundle, Watched(change=change))
    row = next(row for row in result.rows if row.fields == {"num_threads": 2})
    assert row.reason == "98.500% of the answers as before, below the limit of 99.9%; --allow-arithmetic takes it"
    assert (row.cost_ms, row.same_answers) == (None, 0.985)
    assert (result.chosen, result.same_answers) == ({"num_threads": 3}, 0.9995)  # within the limit: needs no leave
    taken = find(bundle, Watched(change=change), allow_arithmetic=True)
    assert taken.chosen == {"num_threads": 2}
    assert taken.same_answers == taken.entry().same_answers == 0.985


def test_a_default_that_is_not_quite_as_sealed_changes_nothing(bundle: Bundle) -> None:
    def change(job: str, result: dict[str, Any]) -> None:
        quicker({0: 30.0})(job, result)
        for number, row in enumerate(result["rows"] if job == "tune-try" else ()):
            row["golden"] = (0.9998, 0.9998, 0.9995, 1.0)[number]  # another processor rounds otherwise, whatever is set

    result = find(bundle, Watched(change=change))
    assert (result.chosen, result.same_answers, result.entry().same_answers) == (result.default, 1, 1)
    assert {row.fields["num_threads"]: row.same_answers for row in result.rows} == {1: 1, 2: 1, 3: 0.9995, 4: 1}
    assert not any(line.startswith("CHANGED ANSWERS") for line in result_lines(result))


def test_a_race_has_so_many_places(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(job: str, result: dict[str, Any]) -> None:
        for number, row in enumerate(result.get("rows", ())):
            row["cost_ms"] = 1.4 - 0.1 * number

    monkeypatch.setattr(tuning, "MAX_RACING", 2)
    rows = {row.fields["num_threads"]: row for row in find(bundle, Watched(change=change)).rows}
    assert {threads: row.reason for threads, row in rows.items()} == {1: "", 2: "2 others were faster in their first calls", 3: "", 4: ""}


def test_a_bundle_that_does_not_answer_as_sealed_is_not_tuned(bundle: Bundle) -> None:
    def change(job: str, result: dict[str, Any]) -> None:
        if job == "tune-try":
            result["rows"][0]["golden"] = 0.5

    with pytest.raises(BundleError, match=r"does not answer on local as it was sealed \(50\.0000% of the answers, at least 99\.9% are"):
        find(bundle, Watched(change=change))


def test_what_cannot_be_tuned_is_refused(bundle: Bundle) -> None:
    class Emulated(LocalDevice):
        name = address = "emulated:raspberry-pi-5"  # type: ignore[misc]

        def run(self, *args: Any, **more: Any) -> dict[str, Any]:
            raise AssertionError("nothing runs there")

    with pytest.raises(TargetError, match="emulated:raspberry-pi-5 is emulated: it gives answers only"):
        find(bundle, Emulated())
    with pytest.raises(ConfigError, match="--for speed: one of latency, throughput"):
        find(bundle, LocalDevice(), purpose="speed")
    with pytest.raises(InputMissingError, match="no frames to measure with"):
        tune(bundle, [], device=LocalDevice(), target="host", how=HOW)


@pytest.mark.parametrize("kind", ["onnx", "openvino", "tflite"])
def test_real_runtimes(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("targets.tuning.knobs.thread_counts", lambda cores: (1,))
    bundle = tiny_bundle(tmp_path, kind)
    purpose = "throughput" if kind == "openvino" else "latency"
    result = find(bundle, LocalDevice(), how=plan("host", kind, "fp32", num_threads=1), purpose=purpose)
    raced = [row for row in result.rows if row.cost_ms is not None]
    assert raced
    assert result.default in [row.fields for row in raced]
    assert all(row.reason for row in result.rows if row.cost_ms is None)
    assert not any("takes no setting" in row.reason or "leave" in row.reason for row in result.rows), result.rows
    assert result.version
    open_bundle(bundle.folder)
