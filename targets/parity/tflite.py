"""TFLite graphs: the interpreter keeps every tensor. Its own kernels run then, not XNNPACK's, which keeps what lies inside to itself."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.vendors import quiet
from targets.parity.graph import Graph, Op, Values, real
from targets.runtimes.base import RuntimeOptions, load_errors

_SHOWN: Final = ("float32", "int8", "int16")


class TfliteObserver:
    """See `graph.Observer`; by ai-edge-litert."""

    format = "tflite"

    def graph(self, bundle: Bundle) -> Graph:
        """See `graph.Observer`."""
        with load_errors("litert", bundle):
            interpreter = _interpreter(bundle, RuntimeOptions())
            tensors = {int(details["index"]): details for details in interpreter.get_tensor_details()}
            moving = {int(details["index"]) for details in interpreter.get_input_details()}
            ops: list[Op] = []
            for operator in interpreter._get_ops_details():
                inputs = [int(i) for i in operator["inputs"] if int(i) in moving]
                if not inputs or operator["op_name"] == "DELEGATE":
                    continue
                outputs = [int(i) for i in operator["outputs"] if int(i) in tensors]
                moving.update(outputs)
                ops.append(Op(
                    index=len(ops), name=str(tensors[outputs[0]]["name"]), kind=str(operator["op_name"]),
                    inputs=tuple(str(tensors[i]["name"]) for i in inputs), outputs=tuple(str(tensors[i]["name"]) for i in outputs),
                ))
        held = {str(tensors[i]["name"]) for i in moving if np.dtype(tensors[i]["dtype"]).name in ("int8", "int16")}
        return Graph(ops=tuple(ops), settled={name: name for name in held})

    def values(self, bundle: Bundle, options: RuntimeOptions, frame_HWC: Frame) -> Values:
        """See `graph.Observer`."""
        with load_errors("litert", bundle):
            interpreter = _interpreter(bundle, options)
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame_HWC[None])
            interpreter.invoke()
            made = {name for op in self.graph(bundle).ops for name in op.outputs}
            return {
                str(details["name"]): _real(interpreter.get_tensor(details["index"]), details)
                for details in interpreter.get_tensor_details()
                if str(details["name"]) in made and np.dtype(details["dtype"]).name in _SHOWN
            }


def _interpreter(bundle: Bundle, options: RuntimeOptions) -> Any:  # noqa: ANN401 - an SDK object
    sdk = require("ai_edge_litert.interpreter", extra="pi")
    with quiet():
        interpreter = sdk.Interpreter(
            model_path=str(bundle.model_path), num_threads=options.num_threads, experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=sdk.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    return interpreter


def _real(values: Any, details: dict[str, Any]) -> Any:  # noqa: ANN401
    """The real values r = S (q - Z) of a tensor, eq. (1) of Jacob et al. 2018, arXiv:1712.05877."""
    if np.dtype(details["dtype"]).name == "float32":
        return real(values)
    scale, zero = details["quantization"]
    return (np.asarray(values, np.float32) - np.float32(zero)) * np.float32(scale)
