"""OpenVINO on exactly one device. Left alone it computes in bf16 where the processor has it (1.5 % of pixels change); here it is told.

The precision it executes in is read back after compilation: a hint that was not honoured (f16 on a processor without it becomes
bf16, silently) is an error. GPU and NPU follow OpenVINO's documentation and have not been seen on hardware yet.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import TargetError, vendor_errors
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
from targets.runtimes.cache import cache_folder, intact, processor_facts
from targets.runtimes.options import refuse_options

_DEVICES: Final = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
"""Provider -> device. AUTO, MULTI and HETERO choose by themselves and are never used."""
_PINNED: Final = {
    "CPU": ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS", "PERFORMANCE_HINT", "NUM_STREAMS"),
    "GPU": ("INFERENCE_PRECISION_HINT", "PERFORMANCE_HINT", "NUM_STREAMS"),
    "NPU": ("INFERENCE_PRECISION_HINT", "PERFORMANCE_HINT"),
}
"""What is set on each kind of device; the others do not have the rest."""
_EXTRA: Final = {"CPU": ("ENABLE_HYPER_THREADING", "ENABLE_CPU_PINNING", "SCHEDULING_CORE_TYPE"), "GPU": (), "NPU": ()}
"""What may be set besides (`RuntimeOptions.extra`)."""
_RECORDED: Final = ("NUM_STREAMS", "INFERENCE_NUM_THREADS", "PERFORMANCE_HINT", "EXECUTION_MODE_HINT", "ENABLE_CPU_PINNING",
                    "ENABLE_HYPER_THREADING", "SCHEDULING_CORE_TYPE", "RUNTIME_REQUIREMENTS")


class OpenVinoRuntime:
    """Executes format `openvino` on CPU, GPU or NPU, in f32 unless bf16 or f16 is asked for."""

    formats = frozenset({"openvino"})

    def version(self) -> str | None:
        """Version of the openvino package."""
        return installed_version("openvino")

    def open(self, bundle: Bundle, options: RuntimeOptions) -> CheckedSession:
        """See `Runtime.open`."""
        kind = _kind_of(options)
        has = ("device", "cache_dir") if kind == "NPU" else ("device", "cache_dir", "streams")
        refuse_options(f"openvino on {kind}", options, has=has, extra=_EXTRA[kind])
        with load_errors("openvino", bundle):
            ov = require("openvino", extra="intel")
            compiled = compile_bundle(ov, bundle, options)
            readable = set(compiled.get_property("SUPPORTED_PROPERTIES"))
            executed = compiled.get_property("INFERENCE_PRECISION_HINT").to_string() if "INFERENCE_PRECISION_HINT" in readable else "?"
            if executed != options.precision_hint:
                raise TargetError(
                    f"openvino computes in {executed} on this {_NOUNS[kind]} where {options.precision_hint} was asked for; "
                    f"ask for {executed}" + (" or f32" if kind == "CPU" else "")
                )
            if options.streams > 1 and int(compiled.get_property("NUM_STREAMS")) != options.streams:
                raise TargetError(f"openvino makes {_text(compiled.get_property('NUM_STREAMS'))} streams with the {kind}s it may use where "
                                  f"{options.streams} were asked for; ask for fewer")
            names = [str(port.name) for port in contract_outputs(bundle.manifest.contract)]
            places = check_ports(bundle, [_port(p, [INPUT_NAME]) for p in compiled.inputs], [_port(p, names) for p in compiled.outputs])
            return _bind(bundle, ov, compiled, options, places, {
                "runtime": "openvino", "provider": options.provider, "device": ", ".join(compiled.get_property("EXECUTION_DEVICES")),
                "precision_hint": options.precision_hint, "executed_precision": executed,
                "executed_operators": _operator_precisions(compiled), "cache_dir": options.cache_dir or "none", **options.extra,
                **{name: _text(compiled.get_property(name)) for name in _RECORDED if name in readable},
            })


_NOUNS: Final = {"CPU": "processor", "GPU": "GPU", "NPU": "NPU"}


def own_arithmetic() -> str:
    """What OpenVINO computes float parts in on this processor when nobody tells it: `f32`, `bf16` or `f16`; imports it."""
    with vendor_errors("openvino"):
        ov = require("openvino", extra="intel")
        return str(ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string())


def available_providers() -> frozenset[str]:
    """Providers (`cpu`, `gpu`, `npu`) that OpenVINO sees devices for on this machine; imports it."""
    with vendor_errors("openvino"):
        here = {name.split(".")[0] for name in require("openvino", extra="intel").Core().available_devices}
    return frozenset(provider for provider, kind in _DEVICES.items() if kind in here)


def compile_bundle(ov: Any, bundle: Bundle, options: RuntimeOptions) -> Any:  # noqa: ANN401 - an SDK
    """Compile with every choice pinned, or take what an earlier compilation of exactly this left in the cache."""
    return compile_model(ov, str(bundle.model_path), options, model_sha256=bundle.manifest.sha256)


def compile_model(ov: Any, model: Any, options: RuntimeOptions, *, model_sha256: str = "") -> Any:  # noqa: ANN401
    """The same for a model that was read already, or the path of one; cached only where its hash is given."""
    core = ov.Core()
    device = _device(core, options)
    wishes = {
        "INFERENCE_PRECISION_HINT": options.precision_hint,
        "INFERENCE_NUM_THREADS": options.num_threads,
        "PERFORMANCE_HINT": "LATENCY" if options.streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": options.streams,
    }
    settings: dict[str, Any] = {**{name: wishes[name] for name in _PINNED[_kind_of(options)]}, **options.extra}
    if options.cache_dir and model_sha256:
        # Its own key holds the model's path and time, not its bytes; so each model has a folder of its own.
        facts = {"model_sha256": model_sha256, "openvino": str(ov.__version__), "settings": json.dumps(settings, sort_keys=True),
                 "device": device, "device_name": str(core.get_property(device, "FULL_DEVICE_NAME")), **processor_facts()}
        folder = cache_folder(options.cache_dir, "openvino", facts)
        with intact(folder):
            return core.compile_model(model, device, {**settings, "CACHE_DIR": str(folder)})
    return core.compile_model(model, device, settings)


def _kind_of(options: RuntimeOptions) -> str:
    if options.provider not in _DEVICES:
        raise TargetError(f"openvino runs on {', '.join(_DEVICES)}, not on {options.provider}; choose one of them")
    kind = _DEVICES[options.provider]
    if options.device and options.device.split(".")[0] != kind:
        raise TargetError(f"openvino: '{options.device}' is no {kind} device, as provider {options.provider} asks for; leave device out")
    return kind


def _device(core: Any, options: RuntimeOptions) -> str:  # noqa: ANN401 - an SDK object
    """The one device that was asked for. The processor is always there; to look for others loads their drivers."""
    kind = _kind_of(options)
    wanted = options.device or kind
    if wanted == "CPU":
        return wanted
    here = [str(name) for name in core.available_devices]
    found = wanted if wanted in here else next((name for name in here if wanted == kind and name.startswith(f"{kind}.")), "")
    if not found:
        raise TargetError(f"openvino sees no {wanted} on this machine; it sees {', '.join(here)}; install Intel's driver for it, or choose "
                          "one of these")
    return found


def _text(value: object) -> str:
    return str(getattr(value, "name", value))


def _port(declared: Any, wanted: Sequence[str]) -> Port:  # noqa: ANN401 - an SDK object
    """A port may have several names; the contract's own is taken where it is among them."""
    names = sorted(declared.get_names())
    shape = tuple(int(d.get_length()) if d.is_static else "?" for d in declared.get_partial_shape())
    name = next((name for name in wanted if name in names), names[0] if names else "without a name")
    return Port(name=name, dtype=declared.get_element_type().to_dtype().name, shape=shape)


def _operator_precisions(compiled: Any) -> str:  # noqa: ANN401 - an SDK object
    """How many operators execute in which precision, the most frequent first: `f32 41, i8 30`."""
    counts: Counter[str] = Counter()
    for operator in compiled.get_runtime_model().get_ops():
        info = operator.get_rt_info()
        if "runtimePrecision" in info:
            counts[str(info["runtimePrecision"].astype(str))] += 1
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


class _Request:
    """One infer request and what is bound to it; binding costs as much as the rest of a call, so what stays the same is not bound again."""

    def __init__(self, bundle: Bundle, ov: Any, compiled: Any, places: Sequence[int]) -> None:  # noqa: ANN401 - an SDK
        contract = bundle.manifest.contract
        self._tensor, self._request = ov.Tensor, compiled.create_infer_request()
        shapes = ([int(n) for n in port.shape] for port in contract_outputs(contract))
        self._ports = list(zip(places, shapes, strict=True))
        self._copy_HWC = np.zeros((contract.height, contract.width, 3), dtype=np.uint8)
        self._frame: Frame | None = None
        self._answers: list[NDArray[np.generic] | None] = [None for _ in self._ports]
        self._again: Again[Any] = Again()

    def __call__(self, frame_HWC: Frame, answers: Answers) -> None:
        if not frame_HWC.flags.writeable:  # the SDK shares writeable memory only
            np.copyto(self._copy_HWC, frame_HWC)
            frame_HWC = self._copy_HWC
        if len(answers) == 1 and (frame_HWC is not self._frame or answers[0] is not self._answers[0]):
            self._bind_again(frame_HWC, answers[0])
        if frame_HWC is not self._frame:
            self._request.set_input_tensor(0, self._tensor(frame_HWC[np.newaxis], shared_memory=True))
            self._frame = frame_HWC
        for index, answer in enumerate(answers):
            if answer is not self._answers[index]:
                place, shape = self._ports[index]
                self._request.set_output_tensor(place, self._tensor(answer.reshape(shape), shared_memory=True))
                self._answers[index] = answer
        self._request.infer(share_outputs=True)

    def _bind_again(self, frame_HWC: Frame, answer: NDArray[np.generic]) -> None:
        """Bind arrays that came before, by tensors that were made then (38 us less at each frame); else leave them to be bound as any."""
        tensors = self._again.of(frame_HWC, answer, self._tensors)
        if tensors is None:
            return
        if frame_HWC is not self._frame:
            self._request.set_input_tensor(0, tensors[0])
            self._frame = frame_HWC
        if answer is not self._answers[0]:
            self._request.set_output_tensor(self._ports[0][0], tensors[1])
            self._answers[0] = answer

    def _tensors(self, frame_HWC: Frame, answer: NDArray[np.generic]) -> tuple[Any, Any]:
        return self._lent(frame_HWC, (1, *frame_HWC.shape)), self._lent(answer, self._ports[0][1])

    def _lent(self, array: NDArray[np.generic], shape: Sequence[int]) -> Any:  # noqa: ANN401 - an SDK object
        """A tensor of an array's memory that does not keep the array alive, as a tensor of the array would."""
        memory = {**array.__array_interface__, "shape": tuple(shape)}
        return self._tensor(np.asarray(SimpleNamespace(__array_interface__=memory)), shared_memory=True)


def _bind(
    bundle: Bundle, ov: Any, compiled: Any, options: RuntimeOptions, places: Sequence[int], settings: dict[str, str]  # noqa: ANN401 - an SDK
) -> CheckedSession:
    requests = [_Request(bundle, ov, compiled, places) for _ in range(options.streams)]
    if len(requests) == 1:
        return CheckedSession("openvino", bundle.manifest, settings, requests[0])
    free: SimpleQueue[_Request] = SimpleQueue()
    for request in requests:
        free.put(request)

    def execute(frame_HWC: Frame, answers: Answers) -> None:
        request = free.get()
        try:
            request(frame_HWC, answers)
        finally:
            free.put(request)

    return CheckedSession("openvino", bundle.manifest, settings, execute)
