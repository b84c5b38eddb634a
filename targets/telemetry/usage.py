"""Memory of this process and of the machine, and what other programs take of the processors (proc(5)).

A Jetson's GPU has no memory of its own: it is part of the system's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from targets.telemetry.base import Absent, Column, Probe, Reading, Sensor, read_text, text_or


@dataclass(frozen=True)
class _Memory:
    root: Path
    columns: tuple[Column, ...] = (Column(name="process_rss_bytes"), Column(name="system_available_bytes"))

    def read(self) -> Mapping[str, Reading]:
        return {"process_rss_bytes": _kilobytes(read_text(self.root / "proc/self/status"), "VmRSS"),
                "system_available_bytes": _kilobytes(read_text(self.root / "proc/meminfo"), "MemAvailable")}

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class _Load:
    """Processor seconds since boot: of other programs, and taken by the machine below a virtual one."""

    root: Path
    columns: tuple[Column, ...] = (Column(name="other_cpu_s", kind="counter"), Column(name="stolen_cpu_s", kind="counter"))

    def read(self) -> Mapping[str, Reading]:
        ticks_per_s = os.sysconf("SC_CLK_TCK")
        all_cpus = read_text(self.root / "proc/stat").split("\n", 1)[0].split()
        user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, all_cpus[1:9])
        after_name = read_text(self.root / "proc/self/stat").rpartition(")")[2].split()
        own = int(after_name[11]) + int(after_name[12])  # utime and stime, fields 14 and 15
        return {"other_cpu_s": (user + nice + system + irq + softirq - own) / ticks_per_s, "stolen_cpu_s": stolen / ticks_per_s}

    def close(self) -> None:
        pass


def pss_bytes(root: Path = Path("/")) -> int | None:
    """Memory of this process with shared pages counted by their share; `None` where the kernel does not say.

    The kernel walks all pages for it, which takes milliseconds: ask before or after a measurement, not during it.
    """
    found = re.search(r"^Pss:\s+(\d+) kB$", text_or(root / "proc/self/smaps_rollup"), flags=re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def _kilobytes(text: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"no {field}")
    return int(found.group(1)) * 1024


def _open_memory(root: Path) -> Probe | Absent:
    return _if_it_answers(_Memory(root), "no /proc/self/status and /proc/meminfo")


def _open_load(root: Path) -> Probe | Absent:
    return _if_it_answers(_Load(root), "no /proc/stat")


def _if_it_answers(probe: Probe, absent: str) -> Probe | Absent:
    try:
        probe.read()
    except (OSError, ValueError):
        return Absent(absent)
    return probe


MEMORY: Final = Sensor(name="memory", about="resident memory of the measured process, available memory of the machine", open=_open_memory)
LOAD: Final = Sensor(name="load", about="processor time of other programs, and stolen by the host of a virtual machine", open=_open_load)
