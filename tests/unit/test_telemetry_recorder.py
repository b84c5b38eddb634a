"""Traces: samples on time, gaps said, the way through JSON and back, and what recording costs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from board_trees import jetson_orin_nano, raspberry_pi_4, raspberry_pi_5, write
from waiting_tools import comes_true

from targets.boards import TARGETS
from targets.telemetry.base import Column, Reading, Sensor
from targets.telemetry.recorder import Recorder, Sampler, measure_idle
from targets.telemetry.sensors import SENSORS, find_sensors
from targets.telemetry.trace import Trace
from targets.telemetry.verdict import throttling_verdict


class Seconds:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> int:
        return int(self.now_s * 1e9)


def test_samples_and_their_summary(tmp_path: Path) -> None:
    root, clock = jetson_orin_nano(tmp_path), Seconds()
    sampler = Sampler(find_sensors(["temperature", "jetson-oc", "cpu-clock"]), root, clock)
    for celsius, events in ((50_000, 179), (60_000, 179), (70_000, 189)):
        write(root, {"sys/class/thermal/thermal_zone0/temp": str(celsius), "sys/class/hwmon/hwmon3/oc3_event_cnt": str(events)})
        sampler.sample()
        clock.now_s += 2
    trace = sampler.close()
    assert trace.times_s == (0.0, 2.0, 4.0)
    assert trace.start_ns == 100_000_000_000
    assert trace.values["cpu_thermal_c"] == (50.0, 60.0, 70.0)
    summary = trace.summary()
    assert summary["cpu_thermal_c"] == {"min": 50.0, "mean": 60.0, "max": 70.0, "samples": 3}
    assert summary["oc3_instantaneous_over_current_events"] == {"total": 10, "per_s": 2.5, "samples": 3}
    assert not trace.gaps
    assert trace.sensors["cpu-clock"] == ("cpu_0_to_3_mhz", "cpu_4_to_5_mhz")


def test_a_sensor_that_stops_in_the_middle_is_a_gap(tmp_path: Path) -> None:
    root, clock = jetson_orin_nano(tmp_path), Seconds()
    sampler = Sampler(find_sensors(["temperature", "power-rails"]), root, clock)
    for second in range(5):
        if second == 2:
            shutil.move(root / "sys/class/hwmon/hwmon1", root / "away")
        if second == 4:
            shutil.move(root / "away", root / "sys/class/hwmon/hwmon1")
        sampler.sample()
        clock.now_s += 1
    trace = sampler.close()
    assert trace.values["VDD_IN_w"] == (pytest.approx(8.0), pytest.approx(8.0), None, None, pytest.approx(8.0))
    assert trace.values["cpu_thermal_c"] == (52.343,) * 5
    gap = next(gap for gap in trace.gaps if gap.column == "VDD_IN_w")
    assert (gap.start_s, gap.end_s, gap.samples) == (2.0, 3.0, 2)
    assert "no such file" in gap.why
    assert trace.summary()["VDD_IN_w"]["min"] > 0
    assert {gap.column for gap in trace.between(3.5, 9.0).gaps} == set()


def test_firmware_is_asked_every_third_second(tmp_path: Path) -> None:
    root, clock = raspberry_pi_4(tmp_path), Seconds()
    sampler = Sampler(find_sensors(["pi-clock"]), root, clock)
    for number in range(5):
        write(root, {"firmware/measure_clock": f"frequency(0)={600 + number}000000"})
        sampler.sample()
        clock.now_s += 1
    trace = sampler.close()
    assert trace.values["arm_mhz"] == (600, 600, 600, 603, 603), "an answer holds for two more samples"
    assert trace.held == {"arm_mhz": (1, 2, 4)}
    assert trace.fresh("arm_mhz") == [(0.0, 600), (3.0, 603)]


def test_firmware_is_asked_when_a_loop_begins_and_when_it_has_ended(tmp_path: Path) -> None:
    """It remembers what happened in between (bits 16 and higher)."""
    recorder = Recorder(["pi-throttled"], raspberry_pi_5(tmp_path), period_s=0.05)
    recorder.start()
    write(tmp_path, {"firmware/get_throttled": "throttled=0x60000"})
    trace = recorder.stop()
    assert (trace.values["pi_throttled_bits"][0], trace.values["pi_throttled_bits"][-1]) == (0, 0x60000)
    assert throttling_verdict(trace, ()).evidence == ("firmware: ARM frequency capped, throttled",)


def test_a_whole_sensor_that_fails_takes_no_other_along(tmp_path: Path) -> None:
    root, clock = raspberry_pi_4(tmp_path), Seconds()
    sampler = Sampler(find_sensors(["pi-throttled", "temperature"]), root, clock)
    sampler.sample()
    (root / "usr/bin/vcgencmd").unlink()
    write(root, {"sys/class/thermal/thermal_zone0/temp": "no number"})
    sampler.sample(anew=True)
    trace = sampler.close()
    assert trace.values == {"pi_throttled_bits": (0xE0000, None), "cpu_thermal_c": (47.25, None)}
    assert {gap.column: gap.why for gap in trace.gaps} == {
        "pi_throttled_bits": "vcgencmd: no such file or directory", "cpu_thermal_c": "temp says 'no number', not a number"}


def test_json_and_back(tmp_path: Path) -> None:
    root, clock = jetson_orin_nano(tmp_path), Seconds()
    sampler = Sampler(find_sensors(list(SENSORS)), root, clock)
    for _ in range(3):
        sampler.sample()
        clock.now_s += 0.7
        (root / "sys/class/devfreq/17000000.gpu/cur_freq").unlink(missing_ok=True)
    trace = sampler.close()
    raw = json.loads(json.dumps(trace.to_json()))
    assert Trace.from_json(raw) == trace
    assert raw["absent"]["rapl"].startswith("no RAPL")
    assert raw["summary"]["VDD_IN_w"]["mean"] == pytest.approx(8.0)
    assert "gpu_mhz" in {gap["column"] for gap in raw["gaps"]}


def test_a_piece_of_a_trace(tmp_path: Path) -> None:
    root, clock = raspberry_pi_4(tmp_path), Seconds()
    sampler = Sampler(find_sensors(["cpu-clock"]), root, clock)
    for _ in range(6):
        sampler.sample()
        clock.now_s += 1
    piece = sampler.close().between(1.5, 4.0)
    assert piece.times_s == (2.0, 3.0, 4.0)
    assert piece.values["cpu_0_to_3_mhz"] == (1800.0,) * 3
    assert piece.duration_s == 2.0


@dataclass
class _Counting:
    """A probe that says how often it was asked, and whether it was closed."""

    columns: tuple[Column, ...] = (Column(name="asked_events", kind="counter"),)
    asked: int = 0
    closed: int = 0
    slow: int = 5
    """This reading takes 0.2 s."""
    slow_end_ns: int = 0

    def read(self) -> Mapping[str, Reading]:
        self.asked += 1
        if self.asked == self.slow:
            time.sleep(0.2)
            self.slow_end_ns = time.perf_counter_ns()
        return {"asked_events": self.asked}

    def close(self) -> None:
        self.closed += 1


def test_the_thread_samples_between_start_and_stop_and_can_go_again(tmp_path: Path) -> None:
    probe = _Counting()
    counting = Sensor(name="counting", about="", open=lambda root: probe)
    recorder = Recorder([counting, "temperature"], raspberry_pi_4(tmp_path), period_s=0.02)
    traces = []
    for run in (1, 2):
        recorder.start()
        before = probe.asked
        assert comes_true(lambda before=before: probe.asked >= before + 14)
        traces.append(recorder.stop())
        asked = probe.asked
        time.sleep(0.06)
        assert probe.asked == asked, "the thread has ended"
        assert probe.closed == run
    assert traces[0].values["asked_events"][0] == 1
    assert traces[1].values["asked_events"][0] == len(traces[0].times_s) + 1
    for trace in traces:
        assert list(trace.times_s) == sorted(trace.times_s)
        assert _no_closer_than(0.02, trace.times_s[:-1], trace.times_s[0]), "the last one is taken when it is stopped"
    slow_end_s = (probe.slow_end_ns - traces[0].start_ns) / 1e9
    assert _no_closer_than(0.02, traces[0].times_s[probe.slow:-1], slow_end_s), "a sample that took long is not made up for"


def _no_closer_than(period_s: float, times_s: Sequence[float], since_s: float) -> bool:
    """A busy machine makes a sample late, and the next one is on time: so each is held against when it was due at the earliest."""
    return all(time_s >= since_s + number * period_s - 0.001 for number, time_s in enumerate(times_s))


def test_recording_costs_less_than_a_hundredth_of_a_processor(tmp_path: Path) -> None:
    """At a sample a second. Twenty samples of all that a Jetson has are taken at once, so the test is short; each may take 10 ms."""
    sampler = Sampler(find_sensors(TARGETS["jetson-orin-nano"].sensors), jetson_orin_nano(tmp_path), time.perf_counter_ns)
    for _ in range(20):
        sampler.sample()
    trace = sampler.close()
    assert len(trace.columns) > 15
    assert 0 < trace.cost_cpu_s / 20 < 0.01


def test_idle_is_recorded_while_nothing_happens(tmp_path: Path) -> None:
    slept: list[float] = []
    trace = measure_idle(Recorder(["temperature"], str(raspberry_pi_4(tmp_path))), 3.0, slept.append)
    assert slept == [3.0]
    assert trace.values["cpu_thermal_c"] == (47.25, 47.25), "one sample at each end"
