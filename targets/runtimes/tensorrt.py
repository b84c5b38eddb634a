"""TensorRT by itself: the bundle's ONNX file becomes an engine on the board that runs it, and the golden frames must come out of it.

Checked against the classes of TensorRT's lean runtime; not yet seen on hardware. The GPU's memory and copies are `targets.runtimes.cuda`'s.
"""

from __future__ import annotations

import os
from math import prod
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import RuntimeFailure, TargetError
from edgeseg.core.files import cache_root
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from targets.runtimes.base import Answers, CheckedSession, Port, RuntimeOptions, check_ports, installed_version, load_errors
from targets.runtimes.cache import cache_folder
from targets.runtimes.cuda import Cuda
from targets.runtimes.options import refuse_options
from targets.runtimes.tensorrt_engine import RECIPE, build_engine, drop, kept_or_built, make_log
from targets.runtimes.tensorrt_model import check_model

_DTYPES: Final = {"UINT8": "uint8", "FLOAT": "float32", "INT32": "int32", "INT64": "int64", "HALF": "float16", "BOOL": "bool"}
"""`DataType` -> numpy."""
INSTALL: Final = "python3 -m venv --system-site-packages FOLDER  # on a Jetson: JetPack brings it for the system's Python; docs/runtimes.md"
"""No extra brings TensorRT: the Python package has to be of the version whose libraries the board has."""


def available_providers() -> frozenset[str]:
    """`tensorrt` where this machine has an NVIDIA driver and a GPU it can use; imports nothing."""
    try:
        Cuda()
    except TargetError:
        return frozenset()
    return frozenset({"tensorrt"})


class TensorRtRuntime:
    """Executes formats `tensorrt` and `onnx` (one that has the form of `tensorrt`) on an NVIDIA GPU."""

    formats = frozenset({"onnx", "tensorrt"})

    def version(self) -> str | None:
        """Version of TensorRT's Python package, which JetPack brings for the system's Python."""
        return installed_version("tensorrt", "tensorrt-cu12", "tensorrt-cu13")

    def open(self, bundle: Bundle, options: RuntimeOptions) -> CheckedSession:
        """See `Runtime.open`. The first time takes minutes: the engine is built."""
        if options.provider != "tensorrt":
            raise TargetError(f"tensorrt runs on its own, not on {options.provider}; choose provider tensorrt")
        if options.precision_hint == "bf16":
            raise TargetError("tensorrt is asked for f32 or f16 here, not for bf16")
        refuse_options("tensorrt", options, has=("device", "cache_dir"))
        with load_errors("tensorrt", bundle):
            check_model(bundle)
            cuda = Cuda(options.device)  # before the SDK: without a driver TensorRT ends the process
            trt = require("tensorrt", extra="jetson", install=INSTALL)
            facts = {"model_sha256": bundle.manifest.sha256, "tensorrt": str(trt.__version__), "precision_hint": options.precision_hint,
                     "recipe": RECIPE, **cuda.facts()}
            folder = cache_folder(options.cache_dir or str(cache_root(os.environ)), "tensorrt", facts)
            stream = cuda.open()
            try:
                log = make_log(trt)
                engine, built = kept_or_built(folder, facts, lambda: build_engine(trt, log, bundle, options.precision_hint))
                settings = {
                    "runtime": "tensorrt", "provider": "tensorrt", "precision_hint": options.precision_hint, "num_threads": "not used",
                    "engine": str(folder), "engine_was": "built now" if built else "kept",
                    **{name: value for name, value in facts.items() if name != "model_sha256"},
                }
                session = _bind(bundle, trt, log, cuda, stream, engine, settings)
            except BaseException:
                cuda.close()
                raise
        try:
            _check_golden(bundle, session)
        except BaseException as error:
            session.close()
            if isinstance(error, TargetError):  # other answers; what only broke off says nothing of the engine, which took minutes
                drop(folder)
            raise
        return session


def _check_golden(bundle: Bundle, session: CheckedSession) -> None:
    """No engine is used whose answers are not those the bundle was sealed with."""
    from targets.verify import check_golden, golden_limit  # which need a session, and so this room

    share, limit = check_golden(bundle, session), golden_limit(bundle.manifest.contract.task)
    if share < limit:
        raise TargetError(
            f"the engine that TensorRT made of {bundle.manifest.name} gives {share:.4%} of its golden frames as they were sealed where "
            f"{limit:.2%} are asked for; it is not used; choose onnxruntime with provider cuda, or a bundle of another precision"
        )


def _bind(
    bundle: Bundle, trt: Any, log: Any, cuda: Cuda, stream: int, blob: bytes, settings: dict[str, str]  # noqa: ANN401 - an SDK
) -> CheckedSession:
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(blob)
    if engine is None:
        raise RuntimeFailure(f"TensorRT does not load the engine it made ({'; '.join(log.errors[:1]) or 'it does not say why'}); "
                             f"remove {settings['engine']} and try again")
    names = [str(engine.get_tensor_name(index)) for index in range(engine.num_io_tensors)]
    ports = {name: _port(engine, name) for name in names}
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    chosen = [outputs[place] for place in check_ports(bundle, [ports[name] for name in inputs], [ports[name] for name in outputs])]
    context = engine.create_execution_context()
    addresses = {name: cuda.allocate(_num_bytes(port)) for name, port in ports.items()}
    for name, address in addresses.items():
        if not context.set_tensor_address(name, address):
            raise RuntimeFailure(f"TensorRT does not take memory for '{name}' ({'; '.join(log.errors[:1])}); type: edgeseg doctor")
    held = [context, engine, runtime]

    def execute(frame_HWC: Frame, answers: Answers) -> None:
        cuda.enter()
        cuda.to_device(addresses[inputs[0]], frame_HWC)
        if not held[0].execute_async_v3(stream):
            raise RuntimeFailure(f"TensorRT failed: {'; '.join(log.errors[-1:]) or 'it does not say why'}; type: edgeseg doctor")
        for answer, name in zip(answers, chosen, strict=True):
            cuda.from_device(answer, addresses[name])
        cuda.wait()

    def release() -> None:
        while held:  # the context first, then its engine, then the runtime
            held.pop(0)
        cuda.close()

    del context, engine, runtime
    return CheckedSession("tensorrt", bundle.manifest, settings, execute, release)


def _port(engine: Any, name: str) -> Port:  # noqa: ANN401 - an SDK object
    kind = str(engine.get_tensor_dtype(name).name)
    return Port(name=name, dtype=_DTYPES.get(kind, kind.lower()), shape=tuple(int(size) for size in engine.get_tensor_shape(name)))


def _num_bytes(port: Port) -> int:
    return int(prod(int(size) for size in port.shape)) * np.dtype(port.dtype).itemsize
