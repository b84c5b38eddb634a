"""A meter by a command: anything that prints watts, one number a line, until it is stopped.

A USB meter's own tool, `cat /dev/ttyUSB0`, `nc meter 5000`, `nvidia-smi --query-gpu=power.draw --format=csv,noheader,nounits -l 1`: what
runs on the measuring machine and prints lines is a meter, so there is one interface and no driver.
"""

from __future__ import annotations

import math
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Final

from edgeseg.core.errors import ConfigError
from targets.telemetry.base import Column, Held, Probe, Reading, Sensor

FIRST_LINE_S: Final = 10.0
"""How long a meter may take to print its first number."""
HOLD_S: Final = 5.0
"""How long its last number counts while no new line comes."""
CATCH_UP_S: Final = 0.05
"""How long one that has much to say may pause while it is caught up with."""
_MUCH: Final = 100
_WANTED: Final = "give a command that prints watts, one number a line"
_START: Final = """import os, signal, sys, time
os.setpgid(0, 0)
meter = os.fork()
if not meter:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
os.close(1)
os.read(0, 1)
os.kill(0, signal.SIGTERM)
until = time.monotonic() + 2
while not os.waitpid(meter, os.WNOHANG)[0] and time.monotonic() < until:
    time.sleep(0.02)
os.kill(0, signal.SIGKILL)
"""
"""Starts the command in a process group of its own and ends all of it when stdin ends. That is a pipe from the measuring process: it
ends with `close`, and with that process, however it dies. The session stays the terminal's, for what `sudo` was allowed there holds there.
"""
_LINE: Final = re.compile(r"^\s*([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*W?\s*$")


def power_command(command: str) -> Sensor:
    """Give the sensor of a command that prints watts; it is split as a shell would, and run without one.

    Opening it raises `ConfigError` where no number comes: the power of something else is not what was asked for.

    Raises:
        ConfigError: the command is empty or its quotes do not match.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"--power-command {command!r} cannot be split into words: {error}") from None
    if not words:
        raise ConfigError(f"--power-command is empty; {_WANTED}")

    def open_(root: Path) -> Probe:
        if shutil.which(words[0]) is None:
            raise ConfigError(f"--power-command: there is no program {words[0]} on the machine that measures; {_WANTED}")
        said = tempfile.TemporaryFile()  # noqa: SIM115 - the meter's; a pipe that nobody reads would stop one that writes to stderr
        probe = _Meter(subprocess.Popen([sys.executable, "-I", "-S", "-c", _START, *words], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=said), said)
        why = probe.wait_for_first()
        if why:
            probe.close()
            raise ConfigError(f"--power-command: {words[0]} {why}; {_WANTED}")
        return probe

    return Sensor(name="power-command", about="watts printed by a command of the user's", open=open_, gives_power=True)


class KeptMeter:
    """The sensor of a command that is started once and goes on from one trace to the next, until `close`."""

    def __init__(self, command: str) -> None:
        """Start nothing yet.

        Raises:
            ConfigError: see `power_command`.
        """
        self._own = power_command(command)
        self._probe: _Meter | None = None
        self.sensor: Sensor = replace(self._own, open=self._open)

    def _open(self, root: Path) -> Probe:
        if self._probe is None:
            probe = self._own.open(root)
            assert isinstance(probe, _Meter), "a meter answers or is refused"
            self._probe = probe
        else:
            self._probe.catch_up()
        return _Lent(self._probe)

    def close(self) -> None:
        """End the command."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None


class _Lent:
    """A probe that its trace does not close."""

    def __init__(self, probe: Probe) -> None:
        self.columns, self.read = probe.columns, probe.read

    def close(self) -> None:
        pass


class _Meter:
    """Mean of the numbers printed since the last reading."""

    columns = (Column(name="meter_w", role="power", covers="what the user's meter measures", averages=True),)

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        assert process.stdout is not None
        self._process = process
        self._said = said
        self._out = process.stdout.fileno()
        os.set_blocking(self._out, False)
        self._rest = b""
        self._new: list[float] = []
        self._nonsense = ""
        self._last: tuple[float, float] | None = None  # when, watts

    def wait_for_first(self) -> str:
        """Wait for the first number; say why none came, or nothing."""
        until = time.monotonic() + FIRST_LINE_S
        while not self._new:
            ready, _, _ = select.select([self._out], [], [], max(0.0, until - time.monotonic()))
            ended = not self._take() if ready else False
            if self._nonsense:
                return f"printed {self._nonsense!r}, not watts"
            if ended and not self._new:
                return f"ended without a number{self._last_words()}"
            if time.monotonic() >= until and not self._new:
                return f"printed no number within {FIRST_LINE_S:.0f} s{self._last_words()}"
        return ""

    def catch_up(self) -> None:
        """Drop what was printed while nobody read but for the newest: it may be more than the pipe holds, behind a socket for example."""
        until = time.monotonic() + HOLD_S
        self._take()
        while len(self._new) >= _MUCH and time.monotonic() < until:
            del self._new[:-1]
            select.select([self._out], [], [], CATCH_UP_S)
            self._take()

    def read(self) -> Mapping[str, Reading]:
        alive, now = self._take(), time.monotonic()
        if self._new:
            self._last = (now, math.fsum(self._new) / len(self._new))
            self._new.clear()
            return {"meter_w": self._last[1]}
        if self._nonsense:
            why, self._nonsense = f"it printed {self._nonsense!r}, not watts", ""
            raise ValueError(why)
        if not alive:
            raise ValueError("the command has ended")
        if self._last is None or now - self._last[0] > HOLD_S:
            raise ValueError(f"it printed nothing for {HOLD_S:.0f} s")
        return {"meter_w": Held(self._last[1])}

    def close(self) -> None:
        """End the command and what it started."""
        for pipe in (self._process.stdout, self._process.stdin):  # one that runs as root, and may not be signalled, ends at its next line
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._said.close()

    def _take(self) -> bool:
        """Take the lines that are there; False at the end of the output."""
        while True:
            try:
                chunk = os.read(self._out, 65536)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace").strip()
                found = _LINE.match(text)
                if found:
                    self._new.append(float(found.group(1)))
                elif text:
                    self._nonsense = text[:40]

    def _last_words(self) -> str:
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 4096))
        said = self._said.read().decode(errors="replace").strip()
        return f" ({said.splitlines()[-1][:120]})" if said else ""
