"""What this machine is, what it has, what is missing with the command that installs it, and the traps others fell into.

Nothing heavy is imported: versions come from package metadata.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edgeseg import __version__
from targets.boards import TARGETS
from targets.machine import NOT_AVAILABLE, Machine, describe_machine
from targets.runtimes import RUNTIMES
from targets.runtimes.base import installed_version
from targets.runtimes.tensorrt import INSTALL as TENSORRT_FIX
from targets.telemetry.describe import describe_sensors
from targets.telemetry.sensors import GENERIC

VersionOf = Callable[[str], "str | None"]
HasModule = Callable[[str], bool]

_RUNTIME_FIX: Final = {
    "onnxruntime": "pip install 'edgeseg[onnx]'",
    "openvino": "pip install 'edgeseg[intel]'",
    "litert": "pip install 'edgeseg[pi]'",
    "tflite_runtime": "pip install 'edgeseg[pi-legacy]'",
    "tensorrt": TENSORRT_FIX,
}
_TOOLS: Final = {
    "torch": ("train", "training and export"),
    "safetensors": ("train", "checkpoints"),
    "torch-pruning": ("train", "pruning"),
    "onnx": ("export", "ONNX export and int8"),
    "onnxscript": ("export", "ONNX export"),
    "nncf": ("export", "OpenVINO int8"),
    "litert-torch": ("export", "TFLite export"),
    "ai-edge-quantizer": ("export", "TFLite int8"),
    "av": ("video", "predict on videos"),
}
_OPENCV: Final = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
"""All of them bring `cv2`, and so does a package of the system (python3-opencv, JetPack's), which has no metadata."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One finding."""

    what: str
    status: str
    """`ok`, `missing` or `trap`."""
    version: str
    detail: str
    fix: str
    """The command to type; empty where there is nothing to do."""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, the machine first."""

    rows: tuple[Row, ...]

    def to_json(self) -> list[dict[str, str]]:
        """Give the rows as JSON objects."""
        return [asdict(row) for row in self.rows]


def _has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def examine(
    machine: Machine | None = None, *, version_of: VersionOf = installed_version, has_module: HasModule = _has_module,
    nvidia_driver: Path = Path("/proc/driver/nvidia/version"), root: Path = Path("/"),
) -> Diagnosis:
    """Look at this machine. The arguments exist so that other machines can be played in tests; takes well under a second."""
    machine = machine or describe_machine(root)
    rows = [
        *_machine_rows(machine), *_runtime_rows(version_of), *_tool_rows(version_of), _opencv_row(version_of, has_module),
        _cuda_row(version_of, nvidia_driver), *_sensor_rows(machine, root), *_trap_rows(version_of, machine),
    ]
    return Diagnosis(tuple(rows))


def _ok(what: str, version: str, detail: str) -> Row:
    return Row(what=what, status="ok", version=version, detail=detail, fix="")


def _machine_rows(machine: Machine) -> list[Row]:
    boards = [target.name for target in TARGETS.values() if target.detect(machine)]
    memory = f"{machine.memory_bytes / 2**30:.1f} GiB" if machine.memory_bytes else f"memory {NOT_AVAILABLE}"
    rows = [
        _ok("machine", machine.arch, f"{machine.cpu}, {machine.cores} of {machine.cores_total} cores, {memory}, board {machine.board}"),
        _ok("system", machine.kernel, f"{machine.os}; firmware {machine.firmware}; virtual: {machine.virtual}"),
        _ok("speed", "", f"governor {machine.governors}; power mode {machine.power_mode}; boost {machine.boost}; SMT {machine.smt}; "
            f"processor limit {machine.cpu_limit}"),
        _ok("targets", "", f"this machine is {', '.join(boards)}"),
        _ok("edgeseg", __version__, str(Path(__file__).resolve().parent.parent)),
    ]
    version = platform.python_version()
    if sys.version_info < (3, 11):
        rows.append(_ok("python", version, "runs bundles; training and export need 3.11"))
    else:
        rows.append(_ok("python", version, sys.executable))
    if machine.governor not in (NOT_AVAILABLE, "performance"):
        rows.append(Row(what="governor", status="trap", version=machine.governor,
                        detail="clocks move while you measure, so times do not repeat", fix="sudo cpupower frequency-set -g performance"))
    return rows


def _runtime_rows(version_of: VersionOf) -> list[Row]:
    rows = []
    packages = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",), "litert": ("ai-edge-litert",),
                "tflite_runtime": ("tflite_runtime", "tflite-runtime"), "tensorrt": ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")}
    for name, runtime in RUNTIMES.items():
        found = __version__ if name == "null" else next((v for package in packages[name] if (v := version_of(package))), None)
        runs = f"runtime; runs {', '.join(sorted(runtime.formats))}"
        if name == "tflite_runtime":
            runs += "; the predecessor of litert, for Python up to 3.11 with numpy < 2; not needed beside it"
        rows.append(_ok(name, found, runs) if found else Row(what=name, status="missing", version="", detail=runs, fix=_RUNTIME_FIX[name]))
    return rows


def _tool_rows(version_of: VersionOf) -> list[Row]:
    rows = []
    for package, (extra, purpose) in _TOOLS.items():
        found = version_of(package)
        missing = Row(what=package, status="missing", version="", detail=purpose, fix=f"pip install 'edgeseg[{extra}]'")
        rows.append(_ok(package, found, purpose) if found else missing)
    return rows


def _opencv_row(version_of: VersionOf, has_module: HasModule) -> Row:
    purpose = "bundles with resizer opencv"
    if not has_module("cv2"):
        return Row(what="opencv", status="missing", version="", detail=purpose, fix="pip install 'edgeseg[opencv]'")
    return _ok("opencv", next((version for name in _OPENCV if (version := version_of(name))), ""), purpose)


def _cuda_row(version_of: VersionOf, nvidia_driver: Path) -> Row:
    torch = version_of("torch") or ""
    try:
        driver = nvidia_driver.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return _ok("cuda", "", "no NVIDIA driver here; training and measuring use the CPU")
    version = (re.findall(r"\b\d+\.\d+(?:\.\d+)?\b", driver) or [NOT_AVAILABLE])[0]
    if "+cpu" in torch:
        return Row(what="cuda", status="trap", version=version, detail=f"there is an NVIDIA driver, but torch {torch} cannot use it",
                   fix="pip install --force-reinstall torch  # a build with CUDA, from pytorch.org")
    return _ok("cuda", version, "NVIDIA driver")


def _sensor_rows(machine: Machine, root: Path) -> list[Row]:
    """What a measurement here will record beside the times, and why the rest is not available."""
    boards = [target for target in TARGETS.values() if target.name != "host" and target.detect(machine)]
    found = describe_sensors(tuple(dict.fromkeys(sensor for target in boards for sensor in target.sensors)) or GENERIC, root)
    answering = [f"{status.sensor}: {status.words}" for status in found if status.readings]
    absent = [f"{status.sensor}: {status.why}" for status in found if not status.readings and not status.fix]
    rows = [_ok("telemetry", "", "; ".join(answering) or NOT_AVAILABLE)]
    if absent:
        rows.append(_ok("no telemetry", "", "; ".join(absent)))
    return rows + [Row(what=f"sensor {s.sensor}", status="missing", version="", detail=s.why, fix=s.fix) for s in found if s.fix]


def _trap_rows(version_of: VersionOf, machine: Machine) -> list[Row]:
    """What went wrong for others with exactly what is installed here; the numbers were measured."""
    rows = []

    def trap(what: str, version: str, detail: str, fix: str) -> None:
        rows.append(Row(what=what, status="trap", version=version, detail=detail, fix=fix))

    if tflite := version_of("tflite_runtime") or version_of("tflite-runtime"):
        trap("tflite_runtime int8", tflite, "keeps int8 from XNNPACK: about 8 times slower than LiteRT (seen: 91 ms against 10)",
             _RUNTIME_FIX["litert"])
        if _major(numpy := version_of("numpy") or "0") >= 2:
            trap("tflite_runtime numpy", numpy, "tflite_runtime 2.14 was built for numpy 1 and does not load with numpy 2",
                 "pip install 'numpy<2'")
    if openvino := version_of("openvino"):
        trap("openvino precision", openvino, "left alone it computes in bf16 or f16 where the processor has it (seen: 1.5 % of pixels "
             "change); edgeseg pins INFERENCE_PRECISION_HINT=f32, your own scripts must, too", "")
    litert = version_of("ai-edge-litert")
    if litert and machine.cores > 1:
        trap("litert threads", litert, f"XNNPACK uses 1 of {machine.cores} cores unless told; edgeseg passes num_threads, "
             "your own scripts must, too", "")
    if (gpu := version_of("onnxruntime-gpu")) and version_of("onnxruntime"):
        trap("onnxruntime twice", gpu, "onnxruntime and onnxruntime-gpu overwrite each other's files; which one loads is chance",
             "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu")
    torch, torchvision = version_of("torch"), version_of("torchvision")
    if torch and torchvision and ("+cpu" in torch) != ("+cpu" in torchvision):
        trap("torchvision", torchvision, f"was built for another torch than {torch}: its import fails (torchvision::nms does not exist); "
             "edgeseg does not need it", "pip uninstall -y torchvision")
    return rows


def _major(version: str) -> int:
    digits = version.split(".")[0]
    return int(digits) if digits.isdigit() else 0
