"""What LiteRT and tflite_runtime share: one Interpreter API under two names. Not a runtime by itself.

XNNPACK does the work in both and uses one thread unless told; whether it took the model is read back from the execution plan.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import TargetError
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.vendors import quiet
from targets.runtimes.base import Answers, CheckedSession, Port, RuntimeOptions, check_ports, load_errors
from targets.runtimes.options import refuse_options


def open_interpreter(bundle: Bundle, options: RuntimeOptions, *, vendor: str, module: str, extra: str) -> CheckedSession:
    """Open a TFLite bundle with `module`.Interpreter; see `Runtime.open` for what is raised."""
    if options.provider != "cpu":
        raise TargetError(f"{vendor} runs on cpu, not on {options.provider}; choose provider cpu")
    if options.precision_hint != "f32":
        raise TargetError(f"{vendor} computes in f32, not in {options.precision_hint}; leave the precision hint out")
    refuse_options(vendor, options, has=("delegate",))
    with load_errors(vendor, bundle):
        interpreter = make_interpreter(bundle, options, module=module, extra=extra)
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        names: dict[int, str] = _output_names(interpreter) if len(outputs) > 1 else {}
        chosen = check_ports(bundle, [_port(p, None) for p in inputs], [_port(p, names.get(int(p["index"]))) for p in outputs])
        settings = {
            "runtime": vendor, "provider": "cpu", "num_threads": str(options.num_threads), "precision_hint": "f32",
            "delegate": _delegate(interpreter),
        }
        return _bind(bundle, interpreter, vendor, settings, inputs[0]["index"], [outputs[i]["index"] for i in chosen])


def make_interpreter(bundle: Bundle, options: RuntimeOptions, *, module: str, extra: str) -> Any:  # noqa: ANN401 - an SDK object
    """An interpreter with its tensors allocated, XNNPACK having taken what it takes."""
    sdk = require(module, extra=extra)
    kernels = sdk.OpResolverType.AUTO if options.delegate else sdk.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with quiet():  # it greets on stderr
        interpreter = sdk.Interpreter(
            model_path=str(bundle.model_path), num_threads=options.num_threads, experimental_op_resolver_type=kernels,
        )
        interpreter.allocate_tensors()
    return interpreter


def _port(details: dict[str, Any], name: str | None) -> Port:
    """Converters prefix names (`serving_default_frame:0`); the only port of its kind needs none (`None`)."""
    return Port(name=name, dtype=np.dtype(details["dtype"]).name, shape=tuple(int(d) for d in details["shape"]))


def _output_names(interpreter: Any) -> dict[int, str]:  # noqa: ANN401 - an SDK object
    """Name of each output by its index: as the signature says (converters rename the tensors), else the tensor's own."""
    names = {int(details["index"]): str(details["name"]) for details in interpreter.get_output_details()}
    if len(interpreter.get_signature_list()) == 1:
        signed = interpreter.get_signature_runner().get_output_details()
        names |= {int(details["index"]): str(name) for name, details in signed.items()}
    return names


def _delegate(interpreter: Any) -> str:  # noqa: ANN401 - an SDK object
    """What executes: operators handed to XNNPACK leave DELEGATE nodes in the plan."""
    list_operators = getattr(interpreter, "_get_ops_details", None)
    if list_operators is None:
        return "not available"
    count = sum(operator["op_name"] == "DELEGATE" for operator in list_operators())
    return f"XNNPACK ({count} partition{'s' if count != 1 else ''})" if count else "none"


def _bind(
    bundle: Bundle, interpreter: Any, vendor: str, settings: dict[str, str], index_in: int, indices_out: list[int]  # noqa: ANN401
) -> CheckedSession:
    views = [interpreter.tensor(index) for index in indices_out]

    def execute(frame_HWC: Frame, answers: Answers) -> None:
        interpreter.set_tensor(index_in, frame_HWC[np.newaxis])
        interpreter.invoke()
        for answer, view in zip(answers, views, strict=True):
            np.copyto(answer, view().reshape(answer.shape))  # a view must not outlive the call: the SDK refuses to go on

    return CheckedSession(vendor, bundle.manifest, settings, execute)
