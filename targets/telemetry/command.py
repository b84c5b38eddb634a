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
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgeseg.core.errors import ConfigError
from targets.telemetry.base import Column, Probe, Reading, Sensor

FIRST_LINE_S: Final = 10.0
"""How long a meter may take to print its first number."""
HOLD_S: Final = 5.0
"""How long its last number counts while no new line comes."""
_WANTED: Final = "give a command that prints watts, one number a line"
_START: Final = """import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit()
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Becomes the command, after asking the kernel to kill it when the measuring process dies (PR_SET_PDEATHSIG), however that comes about."""
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
        probe = _Meter(subprocess.Popen([sys.executable, "-I", "-S", "-c", _START, str(os.getpid()), *words],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        why = probe.wait_for_first()
        if why:
            probe.close()
            raise ConfigError(f"--power-command: {words[0]} {why}; {_WANTED}")
        return probe

    return Sensor(name="power-command", about="watts printed by a command of the user's", open=open_, gives_power=True)


class _Meter:
    """Mean of the numbers printed since the last reading."""

    columns = (Column(name="meter_w", role="power", covers="what the user's meter measures"),)

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._out = process.stdout.fileno()
        os.set_blocking(self._out, False)
        os.set_blocking(process.stderr.fileno(), False)
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

    def read(self) -> Mapping[str, Reading]:
        alive, now = self._take(), time.monotonic()
        if self._new:
            self._last = (now, math.fsum(self._new) / len(self._new))
            self._new.clear()
        elif self._nonsense:
            why, self._nonsense = f"it printed {self._nonsense!r}, not watts", ""
            raise ValueError(why)
        elif not alive:
            raise ValueError("the command has ended")
        if self._last is None or now - self._last[0] > HOLD_S:
            raise ValueError(f"it printed nothing for {HOLD_S:.0f} s")
        return {"meter_w": self._last[1]}

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

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
        assert self._process.stderr is not None
        try:
            said = os.read(self._process.stderr.fileno(), 4096).decode(errors="replace").strip()
        except BlockingIOError:
            said = ""
        return f" ({said.splitlines()[-1][:120]})" if said else ""
