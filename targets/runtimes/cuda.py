"""The little of CUDA that a frame needs: what GPU there is, memory on it, and copies to and from it.

Through the driver's own library, which is there wherever a GPU works and needs no package of its own; the CUDA runtime that TensorRT brings
shares the device's primary context with it (CUDA Driver API, "Interoperability between Runtime and Driver API"). ADR 0019 says why not
cuda-python. Not yet seen on hardware.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.errors import RuntimeFailure, TargetError
from targets.machine import NOT_AVAILABLE

_LIBRARY: Final = "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""CUdevice_attribute."""
_NON_BLOCKING: Final = 1
"""CU_STREAM_NON_BLOCKING: the stream does not wait for the default one."""
_RELEASES: Final = ("proc/driver/nvidia/version", "etc/nv_tegra_release")
"""First lines of these name the driver, and the release of a Jetson's system."""


class Cuda:
    """One GPU, its primary context and a stream. Made by one thread, used by any, one at a time."""

    def __init__(self, device: str = "") -> None:
        """Take the GPU of this number, counted as CUDA does; empty = the first.

        Raises:
            TargetError: no driver, no such GPU.
        """
        self._driver = load_driver()
        if device and not device.isdigit():
            raise TargetError(f"device '{device}' is no number of a GPU; the first is 0")
        if code := self._driver.cuInit(ctypes.c_uint(0)):
            raise TargetError(f"the NVIDIA driver finds no GPU it can use on this machine ({self._words(code)}); type: edgeseg doctor")
        count = self._int("cuDeviceGetCount")
        if int(device or 0) >= count:
            raise TargetError(f"there is no GPU {device or 0} on this machine; it has {count}, the first is 0")
        self._device = ctypes.c_int(self._int("cuDeviceGet", ctypes.c_int(int(device or 0))))
        self._context = ctypes.c_void_p()
        self._stream = ctypes.c_void_p()
        self._memory: list[int] = []

    def facts(self, root: Path = Path("/")) -> dict[str, str]:
        """Everything compiled GPU code depends on; equal boards have equal facts."""
        name = ctypes.create_string_buffer(256)
        self._do("cuDeviceGetName", name, ctypes.c_int(len(name)), self._device)
        major = self._int("cuDeviceGetAttribute", ctypes.c_int(_CAPABILITY_MAJOR), self._device)
        minor = self._int("cuDeviceGetAttribute", ctypes.c_int(_CAPABILITY_MINOR), self._device)
        version = self._int("cuDriverGetVersion")
        return {
            "gpu": name.value.decode(errors="replace"), "compute_capability": f"{major}.{minor}",
            "cuda_of_driver": f"{version // 1000}.{version % 1000 // 10}", "driver": _first_line(root / _RELEASES[0]),
            "system": _first_line(root / _RELEASES[1]),
        }

    def open(self) -> int:
        """Make the context and a stream; give the stream's handle. `close` frees both."""
        self._do("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.enter()
        self._do("cuStreamCreate", ctypes.byref(self._stream), ctypes.c_uint(_NON_BLOCKING))
        assert self._stream.value is not None
        return self._stream.value

    def enter(self) -> None:
        """Make the context the calling thread's; each thread has its own."""
        self._do("cuCtxSetCurrent", self._context)

    def allocate(self, num_bytes: int) -> int:
        """Memory on the GPU: its address. `close` frees it."""
        address = ctypes.c_uint64()
        self._do("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(num_bytes))
        self._memory.append(address.value)
        return address.value

    def to_device(self, address: int, array: NDArray[np.generic]) -> None:
        """Copy a C-contiguous array to the GPU, in the stream's order."""
        self._do("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes),
                 self._stream)

    def from_device(self, array: NDArray[np.generic], address: int) -> None:
        """Copy from the GPU into a C-contiguous, writeable array, in the stream's order."""
        self._do("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes),
                 self._stream)

    def wait(self) -> None:
        """Wait for everything in the stream."""
        self._do("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Free memory, stream and context; closing twice is allowed."""
        if self._context.value is None:
            return
        self.enter()
        for address in self._memory:
            self._do("cuMemFree_v2", ctypes.c_uint64(address))
        self._memory.clear()
        if self._stream.value is not None:
            self._do("cuStreamDestroy_v2", self._stream)
        self._do("cuDevicePrimaryCtxRelease_v2", self._device)
        self._stream, self._context = ctypes.c_void_p(), ctypes.c_void_p()

    def _int(self, function: str, *arguments: ctypes._SimpleCData[int]) -> int:
        """Call what gives an int by its first argument."""
        value = ctypes.c_int()
        self._do(function, ctypes.byref(value), *arguments)
        return value.value

    def _do(self, function: str, *arguments: object) -> None:
        code = getattr(self._driver, function)(*arguments)
        if code:
            raise RuntimeFailure(f"{function} of the NVIDIA driver failed: {self._words(code)}; type: edgeseg doctor")

    def _words(self, code: int) -> str:
        name = ctypes.c_char_p()
        self._driver.cuGetErrorName(ctypes.c_int(code), ctypes.byref(name))
        return name.value.decode() if name.value else f"error {code}"


def load_driver() -> ctypes.CDLL:
    """The driver's own library, which is there wherever an NVIDIA GPU works.

    Raises:
        TargetError: it is not.
    """
    try:
        return ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise TargetError(f"there is no NVIDIA driver here ({_LIBRARY} does not load); choose a target that runs on the CPU") from error


def _first_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return NOT_AVAILABLE
    return lines[0].strip() if lines else NOT_AVAILABLE
