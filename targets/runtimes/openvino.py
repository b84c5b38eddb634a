"""OpenVINO on the CPU. Left alone it computes in bf16 where the processor has it (1.5 % of pixels change); here it is told.

The precision it executes in is read back after compilation: a hint that was not honoured (f16 on a processor without it becomes
bf16, silently) is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import TargetError, vendor_errors
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME
from targets.runtimes.base import (
    CheckedSession,
    Outputs,
    Port,
    RuntimeOptions,
    Session,
    check_ports,
    contract_outputs,
    installed_version,
    load_errors,
    output_buffers,
)
from targets.runtimes.options import refuse_options

_DEVICE: Final = "CPU"
_RECORDED: Final = ("NUM_STREAMS", "INFERENCE_NUM_THREADS", "PERFORMANCE_HINT", "EXECUTION_MODE_HINT", "ENABLE_CPU_PINNING",
                    "ENABLE_HYPER_THREADING", "SCHEDULING_CORE_TYPE", "RUNTIME_REQUIREMENTS")


class OpenVinoRuntime:
    """Executes format `openvino` on the CPU, in f32 unless bf16 or f16 is asked for."""

    formats = frozenset({"openvino"})

    def version(self) -> str | None:
        """Version of the openvino package."""
        return installed_version("openvino")

    def open(self, bundle: Bundle, options: RuntimeOptions) -> Session:
        """See `Runtime.open`."""
        if options.provider != "cpu":
            raise TargetError(f"openvino runs on cpu here, not on {options.provider}; choose provider cpu")
        refuse_options("openvino", options)
        with load_errors("openvino", bundle):
            ov = require("openvino", extra="intel")
            compiled = compile_bundle(ov, bundle, options)
            executed = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
            if executed != options.precision_hint:
                raise TargetError(
                    f"openvino computes in {executed} on this processor where {options.precision_hint} was asked for; "
                    f"ask for f32 or {executed}"
                )
            names = [str(port.name) for port in contract_outputs(bundle.manifest.contract)]
            check_ports(bundle, [_port(p, [INPUT_NAME]) for p in compiled.inputs], [_port(p, names) for p in compiled.outputs])
            return _bind(bundle, ov, compiled, {
                "runtime": "openvino", "provider": "cpu", "device": _DEVICE, "precision_hint": options.precision_hint,
                "executed_precision": executed, "executed_operators": _operator_precisions(compiled),
                **{name: _text(compiled.get_property(name)) for name in _RECORDED},
            })


def own_arithmetic() -> str:
    """What OpenVINO computes float parts in on this processor when nobody tells it: `f32`, `bf16` or `f16`; imports it."""
    with vendor_errors("openvino"):
        ov = require("openvino", extra="intel")
        return str(ov.Core().get_property(_DEVICE, "INFERENCE_PRECISION_HINT").to_string())


def compile_bundle(ov: Any, bundle: Bundle, options: RuntimeOptions) -> Any:  # noqa: ANN401 - an SDK
    """Compile with every choice pinned."""
    return compile_model(ov, str(bundle.model_path), options)


def compile_model(ov: Any, model: Any, options: RuntimeOptions) -> Any:  # noqa: ANN401
    """The same for a model that was read already, or the path of one."""
    pinned = {
        "INFERENCE_PRECISION_HINT": options.precision_hint,
        "INFERENCE_NUM_THREADS": options.num_threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    return ov.Core().compile_model(model, _DEVICE, pinned)


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


def _bind(bundle: Bundle, ov: Any, compiled: Any, settings: dict[str, str]) -> Session:  # noqa: ANN401 - an SDK
    contract = bundle.manifest.contract
    buffers = output_buffers(contract)
    frame_NHWC = np.zeros((1, contract.height, contract.width, 3), dtype=np.uint8)  # shared memory must be writeable, a frame need not be
    request = compiled.create_infer_request()
    request.set_tensor(INPUT_NAME, ov.Tensor(frame_NHWC, shared_memory=True))
    for port, buffer in zip(contract_outputs(contract), buffers, strict=True):
        request.set_tensor(port.name, ov.Tensor(buffer, shared_memory=True))

    def execute(frame_HWC: Frame) -> Outputs:
        frame_NHWC[0] = frame_HWC
        request.infer(share_outputs=True)
        return buffers

    return CheckedSession("openvino", bundle.manifest, settings, execute)
