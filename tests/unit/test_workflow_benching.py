"""`edgeseg bench`: scenarios, two against each other, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import tiny_bundle

from edgeseg.core.errors import ConfigError, RuntimeFailure, TargetError
from edgeseg.workflow.measure import benching
from edgeseg.workflow.measure.benching import Against, BenchRequest, Scenarios, bench, versus
from edgeseg.workflow.places import HERE
from edgeseg.workflow.ui import Silent
from targets.boards import plan
from targets.machine import describe_machine
from targets.runtimes import RUNTIMES
from targets.tuned import Entry, fingerprint, save_tuned


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> BenchRequest:
    return BenchRequest(folder=tiny_bundle(tmp_path_factory.mktemp("bundle"), "null").folder, quick=True, threads=1)


def test_all_scenarios_of_one_bundle(request_: BenchRequest) -> None:
    outcome = bench(replace(request_, scenarios=Scenarios(offline=True, fps=4, cold=True)), Silent())
    facts = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    assert facts["offline"]["at_once"] == 1
    assert facts["paced"]["frames"] == 4
    assert outcome.passed == facts["paced"]["held"] == (facts["paced"]["missed"] == 0)
    assert facts["cold"]["without"]["total_ms"] > 0
    said = "\n".join(outcome.lines)
    assert all(facts[name]["quick"] for name in ("offline", "paced", "cold"))
    assert facts["offline"]["settings"] == facts["paced"]["settings"] == facts["settings"]
    assert facts["lost"] is outcome.lost is None
    for begin in ("offline: ", "at 4 per second: ", "cold start QUICK: ", "energy: ", "other programs: ", "end to end by MLPerf's"):
        assert f"\n{begin}" in said
    assert " QUICK" in said


def test_what_makes_no_sense_is_refused(request_: BenchRequest) -> None:
    with pytest.raises(ConfigError, match="--streams goes with --offline"):
        bench(replace(request_, scenarios=Scenarios(streams=2)), Silent())
    with pytest.raises(ConfigError, match="--fps 0: expected a rate above 0"):
        bench(replace(request_, scenarios=Scenarios(fps=0)), Silent())
    with pytest.raises(ConfigError, match="--minutes -1: expected a time above 0"):
        bench(replace(request_, minutes=-1), Silent())
    with pytest.raises(ConfigError, match=r"--minutes 0.5: expected at least 1; for a shorter look, which is stamped so, type --quick"):
        bench(replace(request_, quick=False, minutes=0.5), Silent())
    with pytest.raises(ConfigError, match="both are the same bundle with the same settings"):
        versus(request_, Against(folder=request_.folder), Silent())
    with pytest.raises(ConfigError, match="--vs compares two and nothing else"):
        versus(replace(request_, minutes=1), Against(threads=2), Silent())


def test_streams_that_a_runtime_has_not_are_refused_before_anything_is_measured(request_: BenchRequest) -> None:
    stages: list[str] = []

    class Listening(Silent):
        def progress(self, label: str, done: int, total: int, detail: str = "") -> None:
            stages.append(label)

    with pytest.raises(TargetError, match="the null runtime has no streams to choose"):
        bench(replace(request_, scenarios=Scenarios(offline=True, streams=2)), Listening())
    assert stages == ["measuring: open"]


def test_a_scenario_that_fails_takes_nothing_along(request_: BenchRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeFailure("the board went away")

    monkeypatch.setattr(benching, "measure_cold", fail)
    outcome = bench(replace(request_, scenarios=Scenarios(cold=True)), Silent())
    assert isinstance(outcome.lost, RuntimeFailure)
    assert outcome.facts["lost"] == "the board went away"
    assert outcome.facts["inference"]["num_frames"] >= 50
    assert any(line.startswith("  end to end ") for line in outcome.lines)
    assert "cold" not in outcome.facts


def bench_command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeseg", "bench", *map(str, words), "--quick", "--threads", "1", "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_rate_that_is_not_held_exits_with_1(request_: BenchRequest) -> None:
    done = bench_command(request_.folder, "--fps", "100000")
    assert (done.returncode, done.stderr) == (1, "")
    facts = json.loads(done.stdout)["paced"]
    assert not facts["held"]
    assert facts["missed"] == facts["late"] + facts["lost"] > 0
    assert 1 <= facts["longest_run"] <= facts["missed"]


def test_two_bundles_against_each_other(request_: BenchRequest, tmp_path: Path) -> None:
    """The second takes a frame in tiles: several calls of the same network, which cannot be faster."""
    tiles = tiny_bundle(tmp_path, "null", resize="tile")
    outcome = versus(request_, Against(folder=tiles.folder), Silent())
    facts = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    assert facts["verdict"] in {"restless", "no difference", "slower"}
    assert outcome.undecided == (not outcome.passed) == (facts["verdict"] == "restless")
    assert facts["pairs"] >= 15
    assert facts["a"]["bundle_sha256"] != facts["b"]["bundle_sha256"]
    assert [line.partition(":")[0] for line in outcome.lines[:2]] == ["A", "B"]
    assert any(line.startswith("A against itself: ") for line in outcome.lines)
    assert outcome.lines[-1].startswith("verdict: ")


def test_the_same_bundle_otherwise_keeps_what_was_tuned(tmp_path: Path) -> None:
    """Only what was given differs: the ratio is of the arithmetic alone."""
    bundle = tiny_bundle(tmp_path, "null")
    cores = plan("host", "null", "fp32").options.num_threads
    save_tuned(bundle, Entry(
        machine=fingerprint(describe_machine()), target="host", runtime="null", provider="cpu", version=RUNTIMES["null"].version() or "",
        purpose="latency", fields={"num_threads": 1}, default={"num_threads": cores}, gain=1.4, low=1.3, high=1.5, same_answers=1.0,
        quick=True,
    ))
    request = BenchRequest(folder=bundle.folder)
    a = benching._way(request, HERE, "host")
    b = benching._second(request, Against(arithmetic="bf16"), a, HERE, "host")
    assert (a.how.options.num_threads, a.how.options.precision_hint) == (1, "f32")
    assert b.how == a.how._replace(options=replace(a.how.options, precision_hint="bf16"))
    assert a.tuned.startswith("tuned for latency (num_threads=1; ")
    assert b.tuned == f"{a.tuned}; then --vs-arithmetic bf16"
    other = benching._second(request, Against(folder=bundle.folder, threads=2), a, HERE, "host")
    assert (other.how.options.num_threads, other.tuned) == (2, "not the tuned ones: --vs-threads 2 was given")
