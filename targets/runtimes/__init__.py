"""One SDK a file. To add one: a file with a class that satisfies `base.Runtime`, and a line here."""

from collections.abc import Callable
from typing import Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError, TargetError
from edgeseg.core.resizers import need_resizer
from targets.runtimes.base import CheckedSession, Runtime, RuntimeOptions, Session
from targets.runtimes.litert import LiteRtRuntime
from targets.runtimes.null import NullRuntime
from targets.runtimes.onnxruntime import OnnxRuntime
from targets.runtimes.onnxruntime import available_providers as _of_onnxruntime
from targets.runtimes.openvino import OpenVinoRuntime
from targets.runtimes.openvino import available_providers as _of_openvino
from targets.runtimes.openvino import own_arithmetic as _openvino_arithmetic
from targets.runtimes.tensorrt import TensorRtRuntime
from targets.runtimes.tensorrt import available_providers as _of_tensorrt
from targets.runtimes.tflite_runtime import TfliteRuntime

__all__ = ["RUNTIMES", "CheckedSession", "Runtime", "RuntimeOptions", "Session", "available_providers", "open_session", "own_arithmetic"]

RUNTIMES: Final[dict[str, Runtime]] = {
    "null": NullRuntime(),
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVinoRuntime(),
    "litert": LiteRtRuntime(),
    "tflite_runtime": TfliteRuntime(),
    "tensorrt": TensorRtRuntime(),
}


_OWN_ARITHMETIC: Final[dict[str, Callable[[], str]]] = {"openvino": _openvino_arithmetic}
"""Runtimes that choose the arithmetic of float parts by the processor, unless told."""


def own_arithmetic(runtime: str) -> str:
    """What a runtime would compute float parts in on this processor by its own choice: a value for `RuntimeOptions.precision_hint`."""
    return _OWN_ARITHMETIC[runtime]() if runtime in _OWN_ARITHMETIC else "f32"


_PROVIDERS: Final[dict[str, Callable[[], frozenset[str]]]] = {
    "onnxruntime": _of_onnxruntime, "openvino": _of_openvino, "tensorrt": _of_tensorrt,
}
"""Runtimes that execute on more than the CPU."""


def available_providers(runtime: str) -> frozenset[str]:
    """Providers that a runtime which is installed has devices or libraries for on this machine; may import it."""
    return _PROVIDERS[runtime]() if runtime in _PROVIDERS else frozenset({"cpu"})


def open_session(bundle: Bundle, runtime: str, options: RuntimeOptions) -> CheckedSession:
    """Open a bundle with the runtime of this name.

    Raises:
        ConfigError: no runtime has this name.
        TargetError: the runtime does not execute the bundle's format.
        MissingExtraError: what brings a frame to model size for this bundle (`Contract.resizer`) is not installed: it is asked for here
            alone, and of frames that have model size already too, so that whoever opens a bundle refuses alike.
        EdgesegError: whatever `Runtime.open` raises.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime '{runtime}' is unknown; one of {', '.join(RUNTIMES)}")
    chosen = RUNTIMES[runtime]
    if bundle.manifest.format not in chosen.formats:
        fitting = [name for name, other in RUNTIMES.items() if bundle.manifest.format in other.formats]
        raise TargetError(f"{runtime} does not run {bundle.manifest.format}; {' or '.join(fitting) or 'no runtime here'} does")
    need_resizer(bundle.manifest.contract.resizer)
    return chosen.open(bundle, options)
