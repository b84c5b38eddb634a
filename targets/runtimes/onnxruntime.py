"""ONNX Runtime. Provider, threads and graph optimisation are pinned; a provider that fell back is an error.

IO binding: on the CPU the frame is read where it lies and the answer written where the caller wants it, nothing is copied.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import EdgesegError, TargetError, telling_line, vendor_errors
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME
from targets.runtimes.again import Again
from targets.runtimes.base import (
    Answers,
    CheckedSession,
    Port,
    RuntimeOptions,
    check_ports,
    contract_outputs,
    installed_version,
    load_errors,
)
from targets.runtimes.cache import cache_folder, intact, tensorrt_version
from targets.runtimes.cuda import Cuda
from targets.runtimes.options import refuse_options

EXECUTION_PROVIDERS: Final = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
"""Asked for in this order. TensorRT leaves the operators it does not know to CUDA, never to the CPU."""
_HAS: Final = {"cpu": (), "cuda": ("device",), "tensorrt": ("device", "cache_dir")}
"""Options a provider has besides those all of them have."""
_EXTRA: Final = {"cpu": ("session.intra_op.allow_spinning",), "cuda": ("prefer_nhwc",), "tensorrt": ()}
"""What may be set besides (`RuntimeOptions.extra`); `prefer_nhwc` is CUDA's layout."""


def available_providers() -> frozenset[str]:
    """Providers (`cpu`, `cuda`, `tensorrt`) that the ONNX Runtime installed here was built with; imports it."""
    with vendor_errors("onnxruntime"):
        built_in = require("onnxruntime", extra="onnx").get_available_providers()
    return frozenset(name for name, wanted in EXECUTION_PROVIDERS.items() if wanted[0] in built_in)


class OnnxRuntime:
    """Executes formats `onnx` and `tensorrt`, both ONNX files, on the CPU, with CUDA, or with TensorRT."""

    formats = frozenset({"onnx", "tensorrt"})

    def version(self) -> str | None:
        """Version of whichever build of ONNX Runtime is installed."""
        return installed_version("onnxruntime", "onnxruntime-gpu")

    def open(self, bundle: Bundle, options: RuntimeOptions) -> CheckedSession:
        """See `Runtime.open`."""
        with load_errors("onnxruntime", bundle):
            ort = require("onnxruntime", extra="onnx")
            _refuse_asymmetric(bundle, options)
            self._refuse_what_is_not_here(ort, options)
            session_options, pinned = _session_options(ort, options)
            sdk = _open(ort, bundle, options, session_options)
            executing = sdk.get_providers()
            wanted = EXECUTION_PROVIDERS[options.provider][0]
            if executing[0] != wanted:
                raise TargetError(
                    f"onnxruntime fell back from {wanted} to {executing[0]}; its CUDA or TensorRT libraries do not load here; "
                    "type: edgeseg doctor"
                )
            check_ports(bundle, [_port(p) for p in sdk.get_inputs()], [_port(p) for p in sdk.get_outputs()])
            settings = {"runtime": "onnxruntime", **pinned, "executing": ", ".join(executing)}
            return _bind(bundle, ort, sdk, settings, shared=options.provider == "cpu")

    def _refuse_what_is_not_here(self, ort: Any, options: RuntimeOptions) -> None:  # noqa: ANN401 - an SDK module
        if options.provider not in EXECUTION_PROVIDERS:
            raise TargetError(f"onnxruntime runs on {', '.join(EXECUTION_PROVIDERS)}, not on {options.provider}; choose one of them")
        refuse_options(f"onnxruntime on {options.provider}", options, has=_HAS[options.provider], extra=_EXTRA[options.provider])
        here = ort.get_available_providers()
        missing = [name for name in EXECUTION_PROVIDERS[options.provider] if name not in here]
        if missing:
            raise TargetError(
                f"onnxruntime {ort.__version__} on this machine has no {missing[0]} (it has {', '.join(here)}); "
                "install the GPU build of onnxruntime for this board (docs/targets.md), or choose a target that runs on the CPU"
            )
        if options.provider == "cpu" and options.precision_hint != "f32":
            raise TargetError(f"onnxruntime on the CPU computes in f32, not in {options.precision_hint}; leave the precision hint out")
        if options.precision_hint == "bf16":
            raise TargetError("onnxruntime has no bf16 mode; ask for f32 or f16")


def _refuse_asymmetric(bundle: Bundle, options: RuntimeOptions) -> None:
    """TensorRT has symmetric int8 only, and ONNX Runtime would run the rest in float without a word."""
    activations = str(bundle.manifest.scheme.get("activations", ""))
    if options.provider == "tensorrt" and bundle.manifest.precision in ("int8", "mixed") and activations.startswith("uint8"):
        raise TargetError(
            f"{bundle.manifest.name} has activations in {activations}; TensorRT takes int8 with symmetric ranges: make the bundle with "
            '[export] formats = ["tensorrt"]'
        )


def _session_options(ort: Any, options: RuntimeOptions) -> tuple[Any, dict[str, str]]:  # noqa: ANN401 - an SDK module
    """Options with every choice pinned, and the record of them."""
    pinned = ort.SessionOptions()
    pinned.intra_op_num_threads = options.num_threads
    pinned.inter_op_num_threads = 1
    pinned.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    pinned.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    pinned.log_severity_level = 3
    entries = {"session.intra_op.allow_spinning": "1", "session.inter_op.allow_spinning": "0"}
    if options.provider != "cpu":
        entries["session.disable_cpu_ep_fallback"] = "1"
    entries |= {key: value for key, value in options.extra.items() if key.startswith("session.")}
    for key, value in entries.items():
        pinned.add_session_config_entry(key, value)
    record = {
        "provider": options.provider, "intra_op_num_threads": str(options.num_threads), "inter_op_num_threads": "1",
        "execution_mode": "sequential", "graph_optimization_level": "all", "precision_hint": options.precision_hint,
        "cache_dir": options.cache_dir or "none", **options.extra, **entries,
    }
    return pinned, record


def profiled_session(ort: Any, bundle: Bundle, options: RuntimeOptions, prefix: Path) -> Any:  # noqa: ANN401 - an SDK
    """A session opened as for an execution with these options, that writes its own profile to `prefix`_*.json.

    Weights are not repacked, so that the profile has their types and shapes too; the optimised graph is the same.
    """
    session_options, _ = _session_options(ort, options)
    session_options.add_session_config_entry("session.disable_prepacking", "1")
    session_options.enable_profiling = True
    session_options.profile_file_prefix = str(prefix)
    return _open(ort, bundle, options, session_options)


def _open(ort: Any, bundle: Bundle, options: RuntimeOptions, session_options: Any) -> Any:  # noqa: ANN401 - an SDK module
    """Open with the provider alone. Left to itself the SDK tries again on the CPU, which it prints but does not raise."""
    folder = _engine_folder(bundle, options)
    try:
        with nullcontext() if folder is None else intact(folder):
            return ort.InferenceSession(
                str(bundle.model_path), session_options, providers=_provider_list(bundle, options, folder), enable_fallback=0,
            )
    except EdgesegError:  # of the folder that keeps the engines
        raise
    except Exception as error:  # its kinds have no common base; on the CPU `load_errors` says what it is
        if options.provider == "cpu":
            raise
        raise TargetError(
            f"onnxruntime {ort.__version__} cannot run {bundle.manifest.entry} wholly with {options.provider} on this machine "
            f"({telling_line(error)}); its CUDA, cuDNN or TensorRT libraries are missing or do not match; edgeseg never falls back"
        ) from error


def _provider_list(bundle: Bundle, options: RuntimeOptions, engines: Path | None) -> list[tuple[str, dict[str, str]]]:
    cuda = {"device_id": options.device or "0"}
    settings: dict[str, dict[str, str]] = {
        "TensorrtExecutionProvider": {
            **cuda,
            # A file whose own tensors are fp16 is not taken without it; elsewhere it is a wish of the caller's.
            "trt_fp16_enable": str(int(options.precision_hint == "f16" or bundle.manifest.scheme.get("activations") == "fp16")),
            "trt_int8_enable": str(int(bundle.manifest.precision in ("int8", "mixed"))),
            **({} if engines is None else {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines),
                                           "trt_timing_cache_enable": "1", "trt_timing_cache_path": str(engines)}),
        },
        # TF32 keeps 10 bits of mantissa: not the fp32 that was asked for.
        "CUDAExecutionProvider": {**cuda, "use_tf32": "0", **options.extra},
    }
    return [(name, settings.get(name, {})) for name in EXECUTION_PROVIDERS[options.provider]]


def _engine_folder(bundle: Bundle, options: RuntimeOptions) -> Path | None:
    """Where TensorRT's engines are kept. Its own key has neither the driver nor all settings in it; the folder's name has.

    Raises:
        TargetError: the version of TensorRT is not known.
    """
    if options.provider != "tensorrt" or not options.cache_dir:
        return None
    tensorrt = tensorrt_version()
    if tensorrt is None:
        raise TargetError("the version of TensorRT is not known (its Python package is not installed), so its engines cannot be kept: "
                          "another version would be given them; leave cache_dir out, or install the package")
    facts = {
        "model_sha256": bundle.manifest.sha256, "onnxruntime": installed_version("onnxruntime", "onnxruntime-gpu") or "",
        "tensorrt": tensorrt, "precision_hint": options.precision_hint,
        **Cuda(options.device).facts(),
    }
    return cache_folder(options.cache_dir, "onnxruntime-tensorrt", facts)


def _port(declared: Any) -> Port:  # noqa: ANN401 - an SDK object
    return Port(name=declared.name, dtype=declared.type, shape=tuple(declared.shape))


def _own_binding(sdk: Any, output: str, shape: list[int], frame_HWC: Frame, answer: NDArray[np.generic]) -> Any:  # noqa: ANN401 - an SDK
    """A binding by bare pointers, which keeps nothing alive."""
    binding = sdk.io_binding()
    binding.bind_input(INPUT_NAME, "cpu", 0, np.uint8, [1, *frame_HWC.shape], frame_HWC.ctypes.data)
    binding.bind_output(output, "cpu", 0, answer.dtype.type, shape, answer.ctypes.data)
    return binding


def _bind(bundle: Bundle, ort: Any, sdk: Any, settings: dict[str, str], *, shared: bool) -> CheckedSession:  # noqa: ANN401 - an SDK
    """Bind frames and answers.

    A provider whose memory is not `shared` gets its copy of a frame when that is bound (`IOBinding::BindInput`), not when it runs, so there
    a frame is bound at each call: one in the same array would be answered as the first one was.
    """
    ports = [(str(port.name), [int(n) for n in port.shape]) for port in contract_outputs(bundle.manifest.contract)]
    binding, value_of = sdk.io_binding(), ort.OrtValue.ortvalue_from_numpy  # on the CPU it shares the array's memory
    again: Again[Any] = Again()
    own_binding = partial(_own_binding, sdk, *ports[0])
    bound_frame: Frame | None = None
    bound: list[NDArray[np.generic] | None] = [None for _ in ports]  # held, so that their memory stays theirs while it is bound

    def execute(frame_HWC: Frame, answers: Answers) -> None:
        nonlocal bound_frame
        if shared and len(answers) == 1:
            own = again.of(frame_HWC, answers[0], own_binding)
            if own is not None:
                sdk.run_with_iobinding(own)
                return
        if not shared or frame_HWC is not bound_frame:
            binding.bind_ortvalue_input(INPUT_NAME, value_of(frame_HWC[np.newaxis]))
            bound_frame = frame_HWC
        for index, answer in enumerate(answers):
            if answer is not bound[index]:
                name, shape = ports[index]
                binding.bind_ortvalue_output(name, value_of(answer.reshape(shape)))
                bound[index] = answer
        sdk.run_with_iobinding(binding)

    return CheckedSession("onnxruntime", bundle.manifest, settings, execute)
