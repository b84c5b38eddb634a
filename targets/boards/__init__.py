"""Boards as data, one a file. To add one: a file with a `Target`, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgeseg.core.errors import ConfigError, TargetError
from targets.boards.base import MeasuredOn, Plan, Run, Target, Wishes
from targets.boards.host import HOST
from targets.boards.intel_cpu import INTEL_CPU
from targets.boards.intel_gpu import INTEL_GPU
from targets.boards.intel_npu import INTEL_NPU
from targets.boards.jetson_orin_nano import JETSON_ORIN_NANO
from targets.boards.raspberry_pi_4 import RASPBERRY_PI_4
from targets.boards.raspberry_pi_5 import RASPBERRY_PI_5
from targets.machine import NOT_AVAILABLE, Machine, describe_machine
from targets.runtimes import RUNTIMES, RuntimeOptions, available_providers

__all__ = ["TARGETS", "MeasuredOn", "Plan", "Run", "Target", "Wishes", "find_target", "measured_on", "plan"]

TARGETS: Final[dict[str, Target]] = {
    target.name: target for target in (HOST, INTEL_CPU, INTEL_GPU, INTEL_NPU, RASPBERRY_PI_4, RASPBERRY_PI_5, JETSON_ORIN_NANO)
}


def find_target(name: str) -> Target:
    """Give the target of this name, or raise `ConfigError` with the nearest one."""
    if name in TARGETS:
        return TARGETS[name]
    import difflib  # not loaded by who errs in nothing

    near = difflib.get_close_matches(name, TARGETS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(TARGETS)}"
    raise ConfigError(f"target '{name}' is unknown; {hint}")


def plan(
    target: Target | str, format: str, precision: str, *, num_threads: int = 0, precision_hint: str = "", machine: Machine | None = None,
    here: Callable[[Run], bool] | None = None,
) -> Plan:
    """Decide how a target executes a bundle of this format and precision.

    Of the ways the board knows, the first whose runtime and provider are here; where none is, the first of all, and opening it
    says what is missing. Threads are those asked for, else the target's, never more than this process may use; so is the arithmetic of
    float parts (`precision_hint`). `machine` and `here` (whether a way can be gone) are another machine's where the plan is for it.

    Raises:
        ConfigError: no such target.
        TargetError: the board does not run the format or the precision, or has no f32 where that is asked for; says what it runs.
    """
    if isinstance(target, str):
        target = find_target(target)
    ways = [run for run in target.runs if run.format == format]
    if not ways:
        raise TargetError(f"{target.name} does not run {format}; it runs {', '.join(target.formats)}")
    if precision not in target.precisions:
        raise TargetError(f"{target.name} does not run {precision}; it runs {', '.join(target.precisions)}")
    if precision_hint == "f32" != target.arithmetic:
        raise TargetError(f"{target.name} computes float parts in {target.arithmetic} and has no f32; leave --arithmetic out")
    run = next((way for way in ways if (here or is_here)(way)), ways[0])
    cores = (machine or describe_machine()).cores
    threads = num_threads or min(target.num_threads or cores, cores)
    options = RuntimeOptions(num_threads=threads, provider=run.provider, precision_hint=precision_hint or target.arithmetic)
    return Plan(run.runtime, options)


def is_here(run: Run) -> bool:
    """Tell whether this machine has the runtime and the provider of a way."""
    if RUNTIMES[run.runtime].version() is None:
        return False
    return run.provider == "cpu" or run.provider in available_providers(run.runtime)


def measured_on(target: Target, machine: Machine) -> MeasuredOn:
    """Say where a measurement for `target` took place."""
    on_board = machine.board != NOT_AVAILABLE and any(machine.board.startswith(maker) for maker in ("Raspberry Pi", "NVIDIA", "emulated"))
    name = f"{machine.board} ({machine.cpu})" if on_board else machine.cpu
    return MeasuredOn(machine=name, is_target=target.matches(machine))
