"""Hold a process to some processors, so that two bundles are compared on the same ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

LOOK_S: Final = 0.5


def pin(count: int, root: Path = Path("/"), sleep: Callable[[float], None] = time.sleep) -> tuple[int, ...] | None:
    """Hold this process, and the threads it starts from now on, to `count` processors; give their numbers.

    `None` where the system cannot (only Linux can).
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    chosen = choose(count, os.sched_getaffinity(0), root, sleep)
    os.sched_setaffinity(0, chosen)
    return chosen


def choose(count: int, allowed: Collection[int], root: Path, sleep: Callable[[float], None]) -> tuple[int, ...]:
    """Choose processors: one a core first, then the faster kind (`cpu_capacity` of ARM), then those least busy just now."""
    before = _busy_ticks(root)
    sleep(LOOK_S)
    after = _busy_ticks(root)
    chosen: list[int] = []
    cores: list[tuple[str, str]] = []

    def cost(cpu: int) -> tuple[int, int, int, int]:
        return (cores.count(_core(root, cpu)), -_capacity(root, cpu), after.get(cpu, 0) - before.get(cpu, 0), -cpu)

    for _ in range(min(count, len(allowed))):
        best = min((cpu for cpu in allowed if cpu not in chosen), key=cost)
        chosen.append(best)
        cores.append(_core(root, best))
    return tuple(sorted(chosen))


def _busy_ticks(root: Path) -> dict[int, int]:
    """Ticks each processor did not idle (proc(5)); empty where the system does not say."""
    found = {}
    for line in _text(root / "proc/stat").splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, values[:8])
            found[int(name[3:])] = user + nice + system + irq + softirq + stolen
    return found


def _core(root: Path, cpu: int) -> tuple[str, str]:
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return _text(topology / "physical_package_id"), _text(topology / "core_id") or f"cpu{cpu}"


def _capacity(root: Path, cpu: int) -> int:
    text = _text(root / f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity")
    return int(text) if text.isdigit() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
