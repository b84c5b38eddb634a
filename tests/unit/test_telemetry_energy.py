"""Energy: integrals and counter differences against numbers worked out by hand, and no number where it would be a guess."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from waiting_tools import comes_true

from targets.telemetry.base import Absent, Column, Sensor
from targets.telemetry.energy import Energy, FrameEnergy, energy, energy_per_frame
from targets.telemetry.recorder import Recorder, measure_idle
from targets.telemetry.trace import Gap, Trace

WHOLE = Column(name="VDD_IN_w", role="power", covers="the module's input")
PART = Column(name="VDD_SOC_w", role="power")
PACKAGE = Column(name="package_0_j", kind="counter", role="power", covers="processor package")
MEMORY = Column(name="dram_j", kind="counter", role="power", covers="memory")


def trace(times_s: Sequence[float], **series: Sequence[float | None]) -> Trace:
    known = {column.name: column for column in (WHOLE, PART, PACKAGE, MEMORY)}
    sensors = {sensor: tuple(name for name in series if name.endswith(unit)) for sensor, unit in (("power-rails", "_w"), ("rapl", "_j"))}
    return Trace(start_ns=0, times_s=tuple(times_s), columns=tuple(known[name] for name in series),
                 values={name: tuple(values) for name, values in series.items()}, sensors={k: v for k, v in sensors.items() if v})


def joules(of: Trace) -> Energy:
    found = energy(of)
    assert isinstance(found, Energy), found
    return found


def test_power_is_integrated_by_trapezoids_over_unequal_steps() -> None:
    found = joules(trace([0, 1, 3], VDD_IN_w=[4, 6, 10], VDD_SOC_w=[1, 1, 1]))
    assert found.energy_j == pytest.approx(5 * 1 + 8 * 2), "VDD_SOC is part of VDD_IN and not added"
    assert found.mean_w == pytest.approx(7.0)
    assert (found.source, found.covers, found.covered_share) == ("power-rails", "the module's input", 1.0)


def test_counters_of_one_sensor_add_up() -> None:
    found = joules(trace([0, 1, 2], package_0_j=[10, 22, 30], dram_j=[0, 1, 3]))
    assert found.energy_j == pytest.approx(23.0)
    assert found.covers == "processor package and memory"


def test_the_first_sensor_that_answers_counts() -> None:
    assert joules(trace([0, 10], VDD_IN_w=[8, 8], package_0_j=[0, 1])).energy_j == pytest.approx(80.0)


def test_a_short_gap_counts_with_the_mean_and_a_long_one_is_refused() -> None:
    times = list(range(41))
    short = [5.0] * 20 + [None] + [5.0] * 20
    found = joules(trace(times, VDD_IN_w=short))
    assert found.energy_j == pytest.approx(200.0)
    assert found.covered_share == pytest.approx(38 / 40)
    long = [5.0] * 20 + [None] * 5 + [5.0] * 16
    refused = energy(trace(times, VDD_IN_w=long))
    assert isinstance(refused, Absent)
    assert "85%" in refused.why


def test_a_counter_bridges_its_gaps() -> None:
    assert joules(trace([0, 1, 2, 3], package_0_j=[0, None, None, 30])).energy_j == pytest.approx(30.0)


@pytest.mark.parametrize("empty", [
    trace([0, 1]), trace([0], VDD_IN_w=[4]), trace([0, 1], VDD_IN_w=[None, None]), trace([0, 1], VDD_SOC_w=[1, 1]),
])
def test_no_power_is_not_available_and_not_zero(empty: Trace) -> None:
    found = energy(empty)
    assert isinstance(found, Absent)
    assert found.why


def test_a_frame_costs_what_is_drawn_above_idle() -> None:
    busy, idle = trace(range(11), VDD_IN_w=[9] * 11), trace([0, 5], VDD_IN_w=[4, 4])
    found = energy_per_frame(busy, idle, 250)
    assert isinstance(found, FrameEnergy)
    assert found.per_frame_j == pytest.approx((9 - 4) * 10 / 250)
    assert found.per_frame_with_idle_j == pytest.approx(90 / 250)
    assert (found.mean_w, found.idle_w, found.seconds) == (9, 4, 10)
    shorter = energy_per_frame(busy, idle, 250, seconds=8.0)
    assert isinstance(shorter, FrameEnergy)
    assert shorter.per_frame_j == pytest.approx(5 * 8 / 250)


def test_frames_without_an_answer() -> None:
    busy, idle = trace(range(11), VDD_IN_w=[9] * 11), trace([0, 5], VDD_IN_w=[9, 9])
    for found, word in (
        (energy_per_frame(busy, idle, 10), "not above"),
        (energy_per_frame(busy, trace([0, 1]), 10), "while idle"),
        (energy_per_frame(trace([0, 1]), idle, 10), "no power sensor"),
        (energy_per_frame(busy, trace([0, 5], package_0_j=[0, 1]), 1), "rapl"),
        (energy_per_frame(busy, idle, 10, during_s=(0.5, 9.5)), "power-rails gave 9 new values of VDD_IN_w in 8 s, at least 10 are needed"),
        (energy_per_frame(busy, idle, 10, during_s=(0.5, 0.9)), "gave 0 new values"),
        (energy_per_frame(trace([0, 1, 2], VDD_SOC_w=[1, 1, 1]), idle, 10), "power-rails: no rail of the whole machine"),
        (energy_per_frame(busy, trace([0, 5], VDD_IN_w=[1, 1]), 0), "no frames"),
    ):
        assert isinstance(found, Absent)
        assert word in found.why


def stepping(busy: list[bool], asked: list[bool]) -> Sensor:
    """15 W while `busy` holds something, else 5 W; `asked` gets an entry each time it has been asked."""

    class Power:
        columns = (WHOLE,)

        def read(self) -> dict[str, float]:
            asked.append(bool(busy))
            return {"VDD_IN_w": 15.0 if asked[-1] else 5.0}

        def close(self) -> None:
            pass

    return Sensor(name="power-rails", about="", open=lambda root: Power(), gives_power=True)


def test_what_was_drawn_before_and_after_the_loop_is_not_in_it() -> None:
    """The first sample of a recorder is taken before the loop and the last one after it."""
    busy: list[bool] = []
    asked: list[bool] = []
    recorder = Recorder([stepping(busy, asked)], period_s=0.02)
    idle = measure_idle(recorder, 0.1)
    recorder.start()
    busy.append(True)
    start_ns = time.perf_counter_ns()
    assert comes_true(lambda: sum(asked) >= 30)
    end_ns, by_then = time.perf_counter_ns(), len(asked)
    assert comes_true(lambda: len(asked) >= by_then + 2)  # a sample that was begun before the end reads after it
    busy.clear()
    trace = recorder.stop()
    assert (trace.values["VDD_IN_w"][0], trace.values["VDD_IN_w"][-1]) == (5.0, 5.0)
    found = energy_per_frame(trace, idle, 10, seconds=0.6, during_s=((start_ns - trace.start_ns) / 1e9, (end_ns - trace.start_ns) / 1e9))
    assert isinstance(found, FrameEnergy), found
    assert (found.mean_w, found.idle_w) == (pytest.approx(15.0), pytest.approx(5.0))
    assert found.per_frame_j == pytest.approx(10 * 0.6 / 10)


def test_an_answer_that_is_repeated_is_no_sample() -> None:
    """5 W were read before the loop and are repeated in it; then 15 W, asked for at every third sample."""
    seen = trace(range(8), VDD_IN_w=[5, 5, 5, 15, 15, 15, 15, 15])
    whole = energy(replace(seen, held={"VDD_IN_w": (1, 2, 4, 5)}), during_s=(0.5, 6.5))
    assert isinstance(whole, Energy)
    assert (whole.mean_w, whole.samples) == (pytest.approx(15.0), 2)


def test_a_mean_counts_for_the_time_it_is_the_mean_of() -> None:
    mean = replace(WHOLE, averages=True)
    seen = Trace(start_ns=0, times_s=(0.0, 1.0, 3.0), columns=(mean,), values={"VDD_IN_w": (5.0, 15.0, 12.0)},
                 sensors={"power-rails": ("VDD_IN_w",)})
    assert joules(seen).energy_j == pytest.approx(15 * 1 + 12 * 2)
    slow = replace(seen, times_s=tuple(range(9)), values={"VDD_IN_w": (5, 5, 5, 5, 15, 15, 15, 15, 14)},
                   held={"VDD_IN_w": (1, 2, 3, 5, 6, 7)})
    assert joules(slow).mean_w == pytest.approx((15 * 4 + 14 * 4) / 8), "a line every four seconds, each the mean of its four"


def test_gaps_are_facts_of_the_trace() -> None:
    piece = replace(trace(range(4), VDD_IN_w=[1, 1, 2, 2]), held={"VDD_IN_w": (1, 3)}).between(1, 3)
    assert (piece.held, piece.fresh("VDD_IN_w")) == ({"VDD_IN_w": (0, 2)}, [(2, 2)])
    assert Trace.from_json(piece.to_json()) == piece
    gap = Gap(column="VDD_IN_w", start_s=1, end_s=2, samples=2, why="it printed nothing")
    assert Trace.from_json(Trace(start_ns=0, times_s=(), columns=(), values={}, sensors={}, gaps=(gap,)).to_json()).gaps == (gap,)
