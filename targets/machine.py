"""What this machine is: every fact a measurement needs beside it. A fact the machine does not offer is "not available", never 0.

`root` is an argument everywhere, so that recorded trees of real boards can be read in tests.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

from edgeseg.core.stats import ABOVE_0
from targets import machine_state as state

NOT_AVAILABLE: Final = state.NOT_AVAILABLE

# Linux on ARM gives part numbers, not names (ARM, "Main ID Register", bits 15..4).
_ARM_PARTS: Final = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd42": "Cortex-A78AE"}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine as it describes itself."""

    cpu: str
    """Model of the processor, for example `AMD EPYC` or `4x Cortex-A76`."""
    cpu_vendor: str
    """As in /proc/cpuinfo (`GenuineIntel`, `AuthenticAMD`), `ARM` for ARM parts."""
    arch: str
    board: str
    """Model of the board from the device tree, else of the computer from DMI."""
    cores: Annotated[int, ABOVE_0]
    """Processors this process may use (its affinity), not those that exist."""
    cores_total: int
    memory_bytes: int | None
    os: str
    kernel: str
    python: str
    governor: str
    """Frequency governor of the first processor."""
    governors: str = NOT_AVAILABLE
    """Of every cpufreq policy; this and what follows is not in results of before it was recorded."""
    power_mode: str = NOT_AVAILABLE
    """nvpmodel of a Jetson, platform profile of a PC."""
    boost: str = NOT_AVAILABLE
    """Clocks above the base clock: `on` or `off`."""
    smt: str = NOT_AVAILABLE
    """Two processors a core: `on` or `off`."""
    firmware: str = NOT_AVAILABLE
    """Bootloader of a Raspberry Pi, Jetson Linux's release, BIOS and microcode of a PC."""
    virtual: str = NOT_AVAILABLE
    """`virtual machine`, `container`, both, or `no`."""
    cpu_limit: str = NOT_AVAILABLE
    """Processors' worth of time the control group may use, or `none`."""
    accelerators: str = NOT_AVAILABLE
    """GPUs and NPUs that the kernel has drivers for, with their PCI numbers: `Intel GPU 56a0, Intel NPU 7d1d`."""

    def to_json(self) -> dict[str, object]:
        """Give all facts as JSON values."""
        return {name: NOT_AVAILABLE if value is None else value for name, value in asdict(self).items()}


def describe_machine(root: Path = Path("/")) -> Machine:
    """Read what the machine below `root` says about itself; nothing raises, absent facts are "not available"."""
    cpuinfo = _read(root / "proc/cpuinfo")
    available, total = _cores()
    return Machine(
        cpu=_cpu_model(cpuinfo), cpu_vendor=_cpu_vendor(cpuinfo), arch=platform.machine() or NOT_AVAILABLE, board=_board(root),
        cores=available, cores_total=total, memory_bytes=_memory_bytes(_read(root / "proc/meminfo")),
        os=_os_name(_read(root / "etc/os-release")), kernel=platform.release() or NOT_AVAILABLE, python=platform.python_version(),
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or NOT_AVAILABLE,
        governors=state.governors(root), power_mode=state.power_mode(root), boost=state.boost(root), smt=state.smt(root),
        firmware=state.firmware(root), virtual=state.virtual(root), cpu_limit=state.cpu_limit(root),
        accelerators=state.accelerators(root),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _values(text: str, key: str) -> list[str]:
    return [v.strip() for v in re.findall(rf"^{re.escape(key)}\s*:[ \t]*(.*)$", text, flags=re.MULTILINE) if v.strip()]


def _cpu_model(cpuinfo: str) -> str:
    named = _values(cpuinfo, "model name")
    parts = _values(cpuinfo, "CPU part")
    if parts:
        kinds: Mapping[str, int] = {part: parts.count(part) for part in parts}
        return " + ".join(f"{count}x {_ARM_PARTS.get(part, f'ARM part {part}')}" for part, count in kinds.items())
    return named[0] if named else NOT_AVAILABLE


def _cpu_vendor(cpuinfo: str) -> str:
    vendors = _values(cpuinfo, "vendor_id")
    if vendors:
        return vendors[0]
    return "ARM" if "0x41" in _values(cpuinfo, "CPU implementer") else NOT_AVAILABLE


def _board(root: Path) -> str:
    for tree in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        if model := _read(root / tree):
            return model
    names = [_read(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name")]
    return " ".join(name for name in names if name) or NOT_AVAILABLE


def _cores() -> tuple[int, int]:
    total = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)), total
    return total, total


def _memory_bytes(meminfo: str) -> int | None:
    sizes = re.findall(r"^MemTotal:\s+(\d+) kB$", meminfo, flags=re.MULTILINE)
    return int(sizes[0]) * 1024 if sizes else None


def _os_name(os_release: str) -> str:
    names = re.findall(r'^PRETTY_NAME="?([^"\n]*)"?$', os_release, flags=re.MULTILINE)
    return names[0] if names else platform.system() or NOT_AVAILABLE
