"""A user's meter: real commands that print watts, stop, print nonsense, or do not exist."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from array import array
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from waiting_tools import comes_true, has_ended, runs

from edgeseg.core.errors import ConfigError
from targets.boards import find_target
from targets.measure import surroundings
from targets.telemetry import command as module
from targets.telemetry.base import Absent, Held, Probe
from targets.telemetry.command import KeptMeter, power_command
from targets.telemetry.energy import Energy, energy
from targets.telemetry.recorder import Recorder

ROOT = Path("/")


def python(script: str) -> str:
    return shlex.join([sys.executable, "-u", "-c", script])


def opened(command: str) -> Probe:
    probe = power_command(command).open(ROOT)
    assert not isinstance(probe, Absent), probe
    return probe


def refused(command: str) -> str:
    with pytest.raises(ConfigError) as caught:
        power_command(command).open(ROOT)
    assert "give a command that prints watts" in str(caught.value)
    return str(caught.value)


def test_watts_a_line_become_energy() -> None:
    recorder = Recorder([power_command("sh -c 'while :; do echo 4.5; echo \"5.5 W\"; sleep 0.01; done'"), "memory"], period_s=0.05)
    recorder.start()
    assert comes_true(lambda: _fresh(recorder) >= 5)
    trace = recorder.stop()
    assert trace.sensors["power-command"] == ("meter_w",)
    assert all(value is not None and 4.5 <= value <= 5.5 for value in trace.values["meter_w"])
    found = energy(trace)
    assert isinstance(found, Energy)
    assert found.mean_w == pytest.approx(5.0, abs=0.5)
    assert found.covers == "what the user's meter measures"


def test_a_reading_is_the_mean_of_the_lines_since_the_last_one(tmp_path: Path) -> None:
    pipe = tmp_path / "meter"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR)  # a named pipe opened both ways waits for nobody
    os.write(end, b"1\n")
    probe = opened(f"cat {shlex.quote(str(pipe))}")
    assert probe.read() == {"meter_w": 1.0}
    os.write(end, b"2\n4\n6\n")
    assert _until(probe, 4.0) == 4.0
    assert probe.read() == {"meter_w": 4.0}, "no new line yet: the last reading holds"
    probe.close()
    os.close(end)


def _fresh(recorder: Recorder) -> int:
    """How many new readings of the meter it has by now."""
    sampler = recorder._sampler
    assert sampler is not None
    return len(sampler._times_s) - len(sampler._held.get("meter_w", []))


def _failure(probe: Probe) -> str:
    """Read until that fails (at most 60 s); give the reason."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            probe.read()
        except ValueError as error:
            return str(error)
        time.sleep(0.01)
    return "it never failed"


def _until(probe: Probe, value: float) -> float:
    """Read until the lines written have gone through the pipe (at most 60 s)."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        got = probe.read()["meter_w"]
        if got == value:
            return value
        time.sleep(0.01)
    return float("nan")


def test_a_meter_on_the_network_is_a_command_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"7.25\n" * 3)

        thread = threading.Thread(target=serve)
        thread.start()
        probe = opened(python(f"import socket, time\n"
                              f"for line in socket.create_connection(('127.0.0.1', {port})).makefile():\n    print(line, end='')\n"
                              f"time.sleep(600)"))
        assert probe.read() == {"meter_w": 7.25}
        probe.close()
        thread.join()


def test_a_meter_that_ends_has_no_more_answers() -> None:
    probe = opened("echo 4")
    assert probe.read() == {"meter_w": 4.0}
    assert _failure(probe) == "the command has ended"
    probe.close()


def test_a_meter_that_falls_silent_becomes_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = opened("sh -c 'echo 4; exec sleep 600'")
    assert probe.read() == {"meter_w": 4.0}
    monkeypatch.setattr(module, "HOLD_S", 0.05)
    time.sleep(0.1)
    with pytest.raises(ValueError, match="printed nothing for"):
        probe.read()
    probe.close()


def test_commands_that_are_no_meters_are_refused_and_nothing_else_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no program /no/such/meter" in refused("/no/such/meter --watts")
    assert "sh ended without a number (no meter here)" in refused("sh -c 'echo no meter here >&2; exit 3'")
    assert "'230 V', not watts" in refused("echo 230 V")
    monkeypatch.setattr(module, "FIRST_LINE_S", 0.1)
    assert "printed no number within" in refused("sleep 30")


def test_nonsense_between_the_numbers_is_a_gap_with_its_text(tmp_path: Path) -> None:
    go = tmp_path / "go"
    probe = opened(f"sh -c 'echo 4; while [ ! -e {shlex.quote(str(go))} ]; do sleep 0.02; done; echo error 7; exec sleep 600'")
    assert probe.read() == {"meter_w": 4.0}
    go.touch()
    assert _failure(probe) == "it printed 'error 7', not watts"
    probe.close()


def test_no_meter_is_left_behind() -> None:
    probe = opened(python("import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                          "print(os.getpid(), flush=True)\ntime.sleep(600)"))
    pid = int(probe.read()["meter_w"])
    assert os.getsid(pid) == os.getsid(0), "the terminal's: what sudo was allowed holds"
    probe.close()
    assert has_ended(pid), "one that ignores SIGTERM is killed"


def test_a_meter_that_talks_on_stderr_goes_on() -> None:
    probe = opened(python("import sys, time\nprint(1, flush=True)\nsys.stderr.write('x' * 200_000)\n"
                          "while True:\n    print(2, flush=True)\n    time.sleep(0.01)"))
    assert _until(probe, 2.0) == 2.0
    probe.close()


def test_what_a_meter_started_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    probe = opened(f"sh -c 'sleep 600 & echo $! > {shlex.quote(str(note))}; echo 4; wait'")
    assert runs(int(note.read_text(encoding="utf-8")))
    probe.close()
    assert has_ended(int(note.read_text(encoding="utf-8")))


def test_a_meter_is_started_once_and_measures_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "LOOK_S", {True: 0.1})
    monkeypatch.setattr(surroundings, "REST_S", {True: 0.3})
    starts, busy, noticed = tmp_path / "starts", tmp_path / "busy", tmp_path / "noticed"
    meter = python(f"import os, time\nopen({str(starts)!r}, 'a').write('x')\nwhile not os.path.exists({str(busy)!r}):\n"
                   f"    print(5, flush=True)\n    time.sleep(0.01)\nprint(15, flush=True)\nopen({str(noticed)!r}, 'w').close()\n"
                   f"while True:\n    print(15, flush=True)\n    time.sleep(0.01)")
    with closing(surroundings.Watch(find_target("host"), time.perf_counter_ns, True, meter, period_s=0.05)) as watch:
        seen = watch.rest()
        busy.touch()
        assert comes_true(noticed.exists)
        with watch.around(seen):
            assert comes_true(lambda: _fresh(watch.recorder) >= 30)
    assert starts.read_text(encoding="utf-8") == "x"
    found = seen.facts([10**8] * 10)
    assert found["energy"] is not None, found["energy_absent"]
    assert (found["energy"]["idle_w"], found["energy"]["mean_w"]) == (pytest.approx(5), pytest.approx(15, abs=1))


def test_a_kept_meter_says_nothing_of_the_time_nobody_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says 5 W so often that most of it waits behind the pipe, then 15 W."""
    monkeypatch.setattr(module, "CATCH_UP_S", 5.0)
    go = tmp_path / "go"
    kept = KeptMeter(python(f"import os, sys, time\nprint(5, flush=True)\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n"
                            "sys.stdout.write('5\\n' * 200_000)\nwhile True:\n    print(15, flush=True)\n    time.sleep(0.01)"))
    first = kept.sensor.open(ROOT)
    assert not isinstance(first, Absent)
    assert first.read() == {"meter_w": 5.0}
    first.close()
    go.touch()
    pipe, waiting = kept._probe._out, array("i", [0])  # type: ignore[union-attr]

    def is_full() -> bool:
        fcntl.ioctl(pipe, termios.FIONREAD, waiting)
        return waiting[0] >= 50_000

    assert comes_true(is_full)
    again = kept.sensor.open(ROOT)
    assert not isinstance(again, Absent)
    again.read()
    while isinstance(watts := again.read()["meter_w"], Held):
        time.sleep(0.01)
    assert watts == 15
    kept.close()


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_no_meter_outlives_a_killed_measurement(kill: Callable[[int, int], None], tmp_path: Path) -> None:
    """The process alone, as the kernel does when memory runs out, or its group, as the keeper of a board does."""
    note = tmp_path / "pids"
    meter = f"sh -c '(echo 1; trap \"\" TERM; sleep 600 & echo $$ $! > {shlex.quote(str(note))}; wait) | cat'"
    measuring = subprocess.Popen([sys.executable, "-c", f"""
import time
from pathlib import Path
from targets.telemetry.command import power_command
probe = power_command({meter!r}).open(Path("/"))
print("open", flush=True)
time.sleep(600)
"""], stdout=subprocess.PIPE, start_new_session=True)
    assert measuring.stdout is not None
    assert measuring.stdout.readline() == b"open\n"
    pids = _pids(note)
    assert len(pids) == 2
    assert all(map(runs, pids))
    kill(measuring.pid, signal.SIGKILL)
    measuring.wait()
    measuring.stdout.close()
    assert all(map(has_ended, pids))


def _pids(note: Path) -> list[int]:
    """Wait until the numbers are written."""
    assert comes_true(lambda: note.exists() and note.read_text(encoding="utf-8").endswith("\n"))
    return [int(word) for word in note.read_text(encoding="utf-8").split()]


@pytest.mark.parametrize("command", ["", "   ", "echo 'unfinished"])
def test_a_command_that_cannot_be_read(command: str) -> None:
    with pytest.raises(ConfigError, match="--power-command"):
        power_command(command)
