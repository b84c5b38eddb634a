"""What a Raspberry Pi's firmware tells through `vcgencmd`: throttling, the true clock, and the power of a Pi 5's rails.

raspberrypi.com/documentation/computers/os.html#vcgencmd. The firmware holds the clock back without telling cpufreq, so both
the flags and the clock are asked of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from targets.telemetry.base import Absent, Column, Probe, Reading, Sensor

MEANINGS: Final = {0: "under-voltage", 1: "ARM frequency capped", 2: "throttled", 3: "soft temperature limit active"}
"""Bits of `get_throttled` that hold now; 16 higher, the same since boot."""
CAPPING_BITS: Final = 0b1111
_FAILED: Final = 1 << 31
"""Set where the firmware's mailbox itself failed."""
_TIMEOUT_S: Final = 2.0
ASK_EVERY_S: Final = 2.9
"""Each question starts a program, so three of them a second would cost a Pi more than 1 % of a processor: at every third sample, then."""


class Throttled(NamedTuple):
    """`get_throttled` in words."""

    now: tuple[str, ...]
    since_boot: tuple[str, ...]


def decode_throttled(bits: int) -> Throttled:
    """Words for the bits of `get_throttled`."""
    return Throttled(tuple(words for bit, words in MEANINGS.items() if bits >> bit & 1),
                     tuple(words for bit, words in MEANINGS.items() if bits >> (bit + 16) & 1))


@dataclass(frozen=True)
class _Vcgencmd:
    """A `vcgencmd` call."""

    program: Path
    arguments: tuple[str, ...]
    parse: Callable[[str], dict[str, float]]
    columns: tuple[Column, ...]

    def read(self) -> Mapping[str, Reading]:
        return self.parse(_ask(self.program, *self.arguments))

    def close(self) -> None:
        pass


def _ask(program: Path, *arguments: str) -> str:
    import subprocess  # not loaded by who only names the sensor

    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"vcgencmd did not answer within {_TIMEOUT_S:.0f} s") from None
    said = done.stdout.strip()
    if done.returncode or not said or said.startswith("error="):
        raise ValueError(f"vcgencmd: {(done.stderr.strip() or said or 'no answer').splitlines()[0][:120]}")
    return said


def _opener(
    arguments: tuple[str, ...], parse: Callable[[str], dict[str, float]], columns: tuple[Column, ...],
) -> Callable[[Path], Probe | Absent]:
    def open_(root: Path) -> Probe | Absent:
        program = next((path for path in (root / "usr/bin/vcgencmd", root / "opt/vc/bin/vcgencmd") if path.is_file()), None)
        if program is None:
            return Absent("no vcgencmd here (it is Raspberry Pi OS's)")
        probe = _Vcgencmd(program, arguments, parse, columns)
        try:
            probe.read()
        except (OSError, ValueError) as error:
            fix = "sudo usermod -aG video $USER  # then log in again" if re.search("/dev/vc|VCHI", str(error)) else ""
            return Absent(str(error), fix)
        return probe

    return open_


def _parse_throttled(said: str) -> dict[str, float]:
    bits = _matched(r"^throttled=(0x[0-9a-fA-F]+)$", said)
    if int(bits, 16) & _FAILED:
        raise ValueError(f"the firmware failed to answer ({said})")
    return {"pi_throttled_bits": int(bits, 16)}


def _parse_clock(said: str) -> dict[str, float]:
    return {"arm_mhz": int(_matched(r"^frequency\(\d+\)=(\d+)$", said)) / 1e6}


def _parse_rails(said: str) -> dict[str, float]:
    """Add up amperes times volts of each rail that has both, by its name; indices of the two differ."""
    parts = {(name, kind): float(value) for name, kind, value in re.findall(r"(\w+)_[AV] (current|volt)\(\d+\)=([\d.]+)[AV]", said)}
    watts = [value * parts[(name, "volt")] for (name, kind), value in parts.items() if kind == "current" and (name, "volt") in parts]
    if not watts:
        raise ValueError("pmic_read_adc names no rail with both current and voltage")
    return {"pmic_rails_w": sum(watts)}


def _matched(pattern: str, said: str) -> str:
    found = re.search(pattern, said, flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"vcgencmd says {said[:60]!r}")
    return found.group(1)


PI_THROTTLED: Final = Sensor(
    name="pi-throttled", about="Raspberry Pi firmware: under-voltage, capped, throttled, now and since boot", every_s=ASK_EVERY_S,
    open=_opener(("get_throttled",), _parse_throttled, (Column(name="pi_throttled_bits", kind="flags", role="throttle"),)),
)
PI_CLOCK: Final = Sensor(
    name="pi-clock", about="Raspberry Pi firmware: the ARM cores' true clock", every_s=ASK_EVERY_S,
    open=_opener(("measure_clock", "arm"), _parse_clock, (Column(name="arm_mhz", role="clock"),)),
)
PI_POWER: Final = Sensor(
    name="pi-power", about="Raspberry Pi 5: power of the rails behind its power chip", gives_power=True, every_s=ASK_EVERY_S,
    open=_opener(("pmic_read_adc",), _parse_rails, (Column(name="pmic_rails_w", role="power",
                 covers="the rails behind the power chip, without its losses and without what hangs on USB"),)),
)
