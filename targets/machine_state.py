"""How a machine is set up now: what moves its speed without being part of its hardware. Every function gives words, never 0.

Sources: docs.kernel.org (cpufreq, intel_pstate, cgroup-v1 and -v2), NVIDIA's Jetson Linux developer guide (nvpmodel), Raspberry Pi's
rpi-eeprom (`/proc/device-tree/chosen/bootloader`).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from targets.telemetry.base import numbered, text_or

NOT_AVAILABLE: Final = "not available"
_MAKERS: Final = {"0x8086": "Intel", "0x10de": "NVIDIA", "0x1002": "AMD"}
"""PCI vendor numbers (pci-ids.ucw.cz)."""


def governors(root: Path) -> str:
    """Governor of every cpufreq policy, with the energy preference where there is one: `powersave/balance_power (8 policies)`."""
    policies: dict[str, list[str]] = {}
    for policy in numbered(root / "sys/devices/system/cpu/cpufreq", "policy*"):
        kept = [text_or(policy / name) for name in ("scaling_governor", "energy_performance_preference")]
        if words := "/".join(word for word in kept if word):
            policies.setdefault(words, []).append(policy.name)
    counted = [f"{words} ({names[0] if len(names) == 1 else f'{len(names)} policies'})" for words, names in policies.items()]
    return ", ".join(counted) or NOT_AVAILABLE


def power_mode(root: Path) -> str:
    """Power mode: a Jetson's nvpmodel (`15W (mode 0)`), else the platform profile of a PC's firmware."""
    if mode := re.search(r"pmode:0*(\d+)", text_or(root / "var/lib/nvpmodel/status")):
        number = mode.group(1)
        name = re.search(rf"^<\s*POWER_MODEL\s+ID={number}\s+NAME=(\S+)", text_or(root / "etc/nvpmodel.conf"), flags=re.MULTILINE)
        return f"{name.group(1)} (mode {number})" if name else f"mode {number}"
    return text_or(root / "sys/firmware/acpi/platform_profile") or NOT_AVAILABLE


def boost(root: Path) -> str:
    """`on` or `off`: whether the processor may go above its base clock."""
    no_turbo = text_or(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    allowed = text_or(root / "sys/devices/system/cpu/cpufreq/boost")
    return {"0": "on", "1": "off"}.get(no_turbo) or {"1": "on", "0": "off"}.get(allowed) or NOT_AVAILABLE


def smt(root: Path) -> str:
    """`on` or `off`: whether two processors share one core."""
    return {"1": "on", "0": "off"}.get(text_or(root / "sys/devices/system/cpu/smt/active"), NOT_AVAILABLE)


def accelerators(root: Path) -> str:
    """GPUs (`/sys/class/drm`) and NPUs (`/sys/class/accel`) on the PCI bus, by maker and device number: `Intel GPU 56a0`."""
    found = []
    for kind, folder, names in (("GPU", "drm", "renderD*"), ("NPU", "accel", "accel*")):
        for node in numbered(root / "sys/class" / folder, names):
            maker = _MAKERS.get(text_or(node / "device/vendor"))
            if maker:
                found.append(f"{maker} {kind} {text_or(node / 'device/device').removeprefix('0x')}".rstrip())
    return ", ".join(found) or NOT_AVAILABLE


def firmware(root: Path) -> str:
    """Raspberry Pi's bootloader (date and version), Jetson Linux's release, a PC's BIOS and microcode."""
    for tree in ("proc/device-tree", "sys/firmware/devicetree/base"):
        bootloader = root / tree / "chosen/bootloader"
        try:
            built = int.from_bytes((bootloader / "build-timestamp").read_bytes(), "big")
        except OSError:
            continue
        day = datetime.datetime.fromtimestamp(built, datetime.timezone.utc).strftime("%Y-%m-%d")
        return f"bootloader {day} {text_or(bootloader / 'version')[:12]}".strip()
    if release := re.search(r"^# (R\d+) \(release\), REVISION: ([\d.]+)", text_or(root / "etc/nv_tegra_release")):
        return f"Jetson Linux {release.group(1)}.{release.group(2)}"
    bios = [text_or(root / "sys/class/dmi/id" / name) for name in ("bios_vendor", "bios_version", "bios_date")]
    microcode = re.search(r"^microcode\s*:\s*(\S+)", text_or(root / "proc/cpuinfo"), flags=re.MULTILINE)
    parts = [f"BIOS {' '.join(word for word in bios if word)}" if any(bios) else "", f"microcode {microcode.group(1)}" if microcode else ""]
    return ", ".join(part for part in parts if part) or NOT_AVAILABLE


def virtual(root: Path) -> str:
    """`virtual machine`, `container`, both, or `no`."""
    cpuinfo = text_or(root / "proc/cpuinfo")
    if not cpuinfo:
        return NOT_AVAILABLE
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, flags=re.MULTILINE)
    found = ["virtual machine"] if (flags and "hypervisor" in flags.group(1).split()) or text_or(root / "sys/hypervisor/type") else []
    if any((root / mark).exists() for mark in (".dockerenv", "run/.containerenv", "run/systemd/container")):
        found.append("container")
    return ", ".join(found) or "no"


def cpu_limit(root: Path) -> str:
    """Processors' worth of time this process may use by its control group: `1.50 processors`, or `none`."""
    groups = text_or(root / "proc/self/cgroup")
    if not groups or not any((root / "sys/fs/cgroup").glob("*")):
        return NOT_AVAILABLE
    limits = [quota / period for quota, period in _quotas(root / "sys/fs/cgroup", groups) if quota > 0 and period > 0]
    return f"{min(limits):.2f} processors" if limits else "none"


def _quotas(mount: Path, groups: str) -> Iterator[tuple[float, float]]:
    """Quota and period of the group and of all above it; in a container, the mount itself is the group."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        own = Path(path.lstrip("/"))
        base = mount / controllers if controllers else mount
        for folder in (base / own, *(base / parent for parent in own.parents)):
            words = text_or(folder / "cpu.max").split()  # version 2; version 1 has two files
            if controllers:
                words = [text_or(folder / "cpu.cfs_quota_us"), text_or(folder / "cpu.cfs_period_us")]
            if len(words) == 2 and words[0] not in ("max", "") and words[1]:
                yield float(words[0]), float(words[1])
