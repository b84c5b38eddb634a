"""What an emulated board says it is. To add one: an entry in `BOARDS`.

qemu runs the board's instructions; which of them a runtime uses, it reads from files of the kernel. Those would be the host's, and on an
x86-64 host LiteRT and ONNX Runtime die of what they read there. So each board has files of its own, in the layout of Linux on arm64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CORES: Final = 4
_CPUS: Final = "sys/devices/system/cpu"
EMPTY_FOLDERS: Final = ("sys/class/thermal", "sys/class/hwmon", "sys/class/powercap", "sys/class/power_supply")
"""Shadow the host's sensors: they say nothing about the board."""


@dataclass(frozen=True, kw_only=True)
class EmulatedBoard:
    """A board with four equal cores."""

    title: str
    cpu: str
    """As qemu calls it: an instruction that this core does not have ends the process."""
    features: str
    """As the kernel lists them in /proc/cpuinfo."""
    midr: int
    """Main ID Register (Arm ARM, MIDR_EL1): implementer 31..24, variant 23..20, architecture 19..16, part 15..4, revision 3..0."""
    min_khz: int
    max_khz: int


BOARDS: Final[dict[str, EmulatedBoard]] = {
    "raspberry-pi-4": EmulatedBoard(
        title="Raspberry Pi 4", cpu="cortex-a72", features="fp asimd evtstrm crc32 cpuid", midr=0x410FD083,
        min_khz=600_000, max_khz=1_800_000,
    ),
    "raspberry-pi-5": EmulatedBoard(
        title="Raspberry Pi 5", cpu="cortex-a76",
        features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
        midr=0x414FD0B1, min_khz=1_500_000, max_khz=2_400_000,
    ),
}
"""By the name of the target."""


def machine_files(board: EmulatedBoard) -> dict[str, str]:
    """Give the files that describe the board, by path below the root."""
    every = f"0-{CORES - 1}\n"
    files = {
        "proc/cpuinfo": "".join(f"{_cpuinfo(board, core)}\n" for core in range(CORES)),
        "proc/device-tree/model": f"emulated {board.title}\0",
        **{f"{_CPUS}/{name}": every for name in ("possible", "present", "online")},
        f"{_CPUS}/kernel_max": "255\n",
    }
    for core in range(CORES):
        here = f"{_CPUS}/cpu{core}"
        files |= {
            f"{here}/regs/identification/midr_el1": f"0x{board.midr:016x}\n",
            f"{here}/cpufreq/cpuinfo_min_freq": f"{board.min_khz}\n",
            f"{here}/cpufreq/cpuinfo_max_freq": f"{board.max_khz}\n",
            f"{here}/cpufreq/scaling_governor": "",
            f"{here}/topology/physical_package_id": "0\n",
            f"{here}/topology/core_id": f"{core}\n",
            f"{here}/topology/core_siblings_list": every,
            f"{here}/topology/package_cpus_list": every,
            f"{here}/topology/thread_siblings_list": f"{core}\n",
        }
    return files


def _cpuinfo(board: EmulatedBoard, core: int) -> str:
    midr = board.midr
    return (
        f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: {board.features}\nCPU implementer\t: {midr >> 24:#x}\n"
        f"CPU architecture: 8\nCPU variant\t: {midr >> 20 & 0xF:#x}\nCPU part\t: {midr >> 4 & 0xFFF:#x}\nCPU revision\t: {midr & 0xF}\n"
    )
