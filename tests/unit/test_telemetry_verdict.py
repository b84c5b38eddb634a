"""Did the board hold its speed: burst against sustained, and what the sensors say about it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from targets.telemetry.base import Column
from targets.telemetry.trace import Trace
from targets.telemetry.verdict import LatencyWindow, chart_series, latency_windows, throttling_verdict

FLAGS = Column(name="pi_throttled_bits", kind="flags", role="throttle")
EVENTS = Column(name="oc3_events", kind="counter", role="throttle")
COOLING = Column(name="cpufreq_cpu0_state", role="throttle")
CLOCK = Column(name="arm_mhz", role="clock")
HEAT = Column(name="cpu_thermal_c", role="temperature")
RAPL = Column(name="package_0_j", kind="counter", role="power", covers="processor package")


def trace(**series: Sequence[float | None]) -> Trace:
    known = {column.name: column for column in (FLAGS, EVENTS, COOLING, CLOCK, HEAT, RAPL)}
    length = len(next(iter(series.values()), ()))
    return Trace(start_ns=0, times_s=tuple(float(i) for i in range(length)), columns=tuple(known[name] for name in series),
                 values={name: tuple(values) for name, values in series.items()}, sensors={"all": tuple(series)})


def windows(*p50_ms: float) -> list[LatencyWindow]:
    return [LatencyWindow(float(i), ms) for i, ms in enumerate(p50_ms)]


STEADY = windows(*[10.0] * 12)
HALVED = windows(*[10.0] * 4, *[12.0] * 2, *[20.0] * 6)


def test_held() -> None:
    verdict = throttling_verdict(trace(pi_throttled_bits=[0] * 12, arm_mhz=[2400] * 12), STEADY)
    assert (verdict.verdict, verdict.throttled, verdict.slowdown, verdict.evidence) == ("held", False, 1.0, ())
    assert verdict.words == "held: sustained 10.00 ms, burst 10.00 ms (1.00x); no sensor saw throttling"


def test_a_board_that_halves_its_rate_with_its_clock() -> None:
    verdict = throttling_verdict(trace(arm_mhz=[2400] * 6 + [1200] * 6, cpu_thermal_c=[50, *range(60, 81, 2)]), HALVED)
    assert (verdict.verdict, verdict.throttled, verdict.slowdown) == ("throttled", True, 2.0)
    assert (verdict.burst_p50_ms, verdict.sustained_p50_ms) == (10.0, 20.0)
    assert verdict.evidence == ("arm clock fell from 2400 to 1200 MHz (cpu_thermal up to 80 °C)",)


CORES = tuple(Column(name=f"cpu_{n}_mhz", role="clock") for n in range(4))
GPU = Column(name="gpu_mhz", role="clock")


def clocks(*cpus: Sequence[float | None], gpu: Sequence[float | None] = ()) -> Trace:
    columns = (*CORES[:len(cpus)], *([GPU] if gpu else []))
    values = {column.name: tuple(one) for column, one in zip(columns, [*cpus, gpu], strict=False)}
    sensors = {"cpu-clock": tuple(column.name for column in CORES[:len(cpus)]), **({"gpu-clock": ("gpu_mhz",)} if gpu else {})}
    return Trace(start_ns=0, times_s=tuple(map(float, range(12))), columns=columns, values=values, sensors=sensors)


def test_a_clock_that_falls_since_nothing_runs_on_it_decides_nothing() -> None:
    fast, falls = [3000.0] * 12, [3000.0] * 6 + [800.0] * 6
    seen = throttling_verdict(clocks(fast, falls, fast, fast), HALVED)
    assert (seen.verdict, seen.throttled) == ("slowed", None)
    assert seen.evidence == ("cpu_1 clock fell from 3000 to 800 MHz, which had perhaps nothing to do",)
    assert throttling_verdict(clocks(fast, gpu=falls), HALVED).verdict == "slowed"
    assert throttling_verdict(clocks(fast, gpu=falls), HALVED, gpu=True).evidence == ("gpu clock fell from 3000 to 800 MHz",)


def test_processors_that_all_fall_throttle() -> None:
    """The work moves from one to the other, and none is as fast as before; one sample has no answer."""
    seen = throttling_verdict(clocks([3000] * 6 + [1500, None, 1500] * 2, [800] * 6 + [1400, 1500, 1400] * 2), HALVED)
    assert (seen.verdict, seen.throttled) == ("throttled", True)
    assert seen.evidence == ("the highest of 2 cpu-clocks fell from 3000 to 1500 MHz",)


def test_slower_with_no_reason_that_a_sensor_knows() -> None:
    seen = throttling_verdict(trace(pi_throttled_bits=[0] * 12, arm_mhz=[2400] * 12), HALVED)
    assert (seen.verdict, seen.throttled) == ("slowed", False)
    blind = throttling_verdict(trace(cpu_thermal_c=[50] * 12), HALVED)
    assert (blind.verdict, blind.throttled) == ("slowed", None)
    assert blind.words.endswith("no sensor here can tell")


@pytest.mark.parametrize(("bits", "evidence"), [
    ([0x0, 0x0, 0x20002, 0x0], "ARM frequency capped"),
    ([0x50005] * 4, "under-voltage, throttled"),
    ([0x0, 0x0, 0x0, 0x80000], "soft temperature limit active"),
    ([0xE0000] * 4, ""),
    ([0xE0000, None, 0xE0000, 0xF0000], "under-voltage"),
])
def test_firmware_flags_now_and_those_that_appeared_meanwhile(bits: list[int | None], evidence: str) -> None:
    verdict = throttling_verdict(trace(pi_throttled_bits=bits), STEADY)
    assert verdict.throttled == bool(evidence), "what happened earlier since boot does not count"
    assert verdict.evidence == ((f"firmware: {evidence}",) if evidence else ())


def test_counters_that_grew_and_cooling_that_held_back() -> None:
    assert throttling_verdict(trace(oc3_events=[179, 179, 179]), STEADY).throttled is False
    assert throttling_verdict(trace(oc3_events=[179, 180, 189]), STEADY).evidence == ("oc3 counted 10 events",)
    cooled = throttling_verdict(trace(cpufreq_cpu0_state=[0, 3, 1, 0]), STEADY)
    assert cooled.evidence == ("cpufreq_cpu0 was limited in 2 of 4 samples",)
    assert cooled.verdict == "throttled"


def test_no_sensor_and_too_short() -> None:
    verdict = throttling_verdict(trace(), windows(10.0, 11.0))
    assert (verdict.verdict, verdict.throttled, verdict.slowdown) == ("not available", None, None)
    assert "too short" in verdict.words
    assert throttling_verdict(trace(pi_throttled_bits=[None, None]), STEADY).throttled is None, "a sensor that never answered knows nothing"
    assert verdict.to_json()["words"] == verdict.words


def test_frames_in_windows() -> None:
    cut = latency_windows([100_000_000] * 25 + [300_000_000] * 5, window_s=1.0, offset_s=5.0)
    assert [window.p50_ms for window in cut] == [100.0, 100.0, 100.0, 300.0]
    assert [window.start_s for window in cut] == pytest.approx([5.0, 6.0, 7.0, 8.1])
    assert latency_windows([]) == []
    assert len(latency_windows([400_000_000] * 4)) == 1, "0.4 s at the end are too few"


def test_series_for_a_chart() -> None:
    seen = trace(cpu_thermal_c=[50.0, None, 52.0], package_0_j=[0.0, 10.0, 40.0])
    series = {one["name"]: one for one in chart_series(seen, windows(10.0, 12.0))}
    assert series["latency"] == {"name": "latency", "unit": "ms", "points": [[0.0, 10.0], [1.0, 12.0]]}
    assert series["cpu_thermal"] == {"name": "cpu_thermal", "unit": "c", "points": [[0.0, 50.0], [1.0, None], [2.0, 52.0]]}
    assert series["package_0"] == {"name": "package_0", "unit": "w", "points": [[1.0, 10.0], [2.0, 30.0]]}, "a counter is drawn as power"
