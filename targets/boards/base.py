"""What a board is: all its facts in one frozen value. A board is one file beside this one and one line in `TARGETS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from targets.machine import Machine, describe_machine
from targets.runtimes.base import RuntimeOptions
from targets.telemetry.sensors import GENERIC


@dataclass(frozen=True, kw_only=True)
class Run:
    """One way a board executes a format."""

    format: str
    runtime: str
    provider: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A board as data."""

    name: str
    title: str
    about: str
    runs: tuple[Run, ...]
    """In order of preference, for each format."""
    precisions: tuple[str, ...]
    num_threads: int
    """Threads a measurement uses; 0 = all processors the process may use."""
    arch: tuple[str, ...]
    """As `uname -m` says; empty = any."""
    matches: Callable[[Machine], bool]
    """Tells from a machine's own description whether it is this board."""
    arithmetic: str = "f32"
    """What it computes float parts in where no other is asked for; another than f32 where it has no f32."""
    sensors: tuple[str, ...] = GENERIC
    """What is looked for while measuring on it (`targets.telemetry.sensors.SENSORS`); what is not there is said to be not available."""

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats it runs, the preferred first."""
        return tuple(dict.fromkeys(run.format for run in self.runs))

    def detect(self, machine: Machine | None = None) -> bool:
        """Tell whether `machine` (this one, if left out) is this board."""
        return self.matches(machine or describe_machine())


class Plan(NamedTuple):
    """How a target executes a bundle: the runtime's name and its options."""

    runtime: str
    options: RuntimeOptions


class Wishes(NamedTuple):
    """What a user asked of a plan that is made where the bundle runs: the board knows what it has."""

    num_threads: int = 0
    """0 = as many as the target uses."""
    precision_hint: str = ""
    """Empty = the target's own arithmetic."""


@dataclass(frozen=True, kw_only=True)
class MeasuredOn:
    """Where a number comes from, to be shown wherever the number is shown."""

    machine: str
    """Processor (and board, where there is one) the measurement ran on."""
    is_target: bool
    """False: the machine is not the target, so the number says nothing about the target's speed."""

    @property
    def words(self) -> str:
        """`AMD EPYC, not the target`, or just the machine."""
        return self.machine if self.is_target else f"{self.machine}, not the target"
