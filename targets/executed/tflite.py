"""What LiteRT (and tflite_runtime) executes: which operators XNNPACK took, and the types of their tensors.

The interpreter lists the operators of the file and, behind them, one DELEGATE for each piece of the graph that XNNPACK took, with the
tensors that enter and leave it. So an operator is XNNPACK's if it lies between a piece's ends; the others run in the interpreter itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import TargetError
from targets.executed.base import INT8, ExecutedLayer, ExecutedPrecision, split_head, why_not_int8
from targets.runtimes.base import RuntimeOptions, load_errors
from targets.runtimes.tflite import make_interpreter

_KINDS: Final = {
    "CONV_2D": "convolution", "DEPTHWISE_CONV_2D": "depthwise", "TRANSPOSE_CONV": "transposed", "FULLY_CONNECTED": "linear",
    "BATCH_MATMUL": "product",
}
_PRECISIONS: Final = {"int8": INT8, "uint8": INT8, "float32": "f32", "float16": "f16", "int16": "int16 activations"}
_SLOW: Final = "in int8, but by a kernel of {vendor} itself: XNNPACK did not take it, which is slow"
_MODULES: Final = {"litert": ("ai_edge_litert.interpreter", "pi"), "tflite_runtime": ("tflite_runtime.interpreter", "pi-legacy")}


def reader(vendor: str) -> Callable[[Bundle, RuntimeOptions], ExecutedPrecision]:
    """The `base.Reader` of a runtime with TFLite's interpreter."""
    return partial(_executed, vendor)


def _executed(vendor: str, bundle: Bundle, options: RuntimeOptions) -> ExecutedPrecision:
    module, extra = _MODULES[vendor]
    with load_errors(vendor, bundle):
        interpreter = make_interpreter(bundle, options, module=module, extra=extra)
        list_operators = getattr(interpreter, "_get_ops_details", None)
        if list_operators is None:
            raise TargetError(f"this {vendor} does not list its operators, so what runs in int8 cannot be seen; upgrade it")
        operators = [operator for operator in list_operators() if operator["op_name"] is not None]
        tensors = {int(details["index"]): details for details in interpreter.get_tensor_details()}
    pieces = [operator for operator in operators if operator["op_name"] == "DELEGATE"]
    plain = [operator for operator in operators if operator["op_name"] != "DELEGATE"]
    taken = _taken(plain, pieces)
    moving = {int(output) for operator in plain for output in operator["outputs"]}
    moving |= {int(details["index"]) for details in interpreter.get_input_details()}
    layers = [
        _layer(bundle, vendor, operator, tensors, by_xnnpack=index in taken) for index, operator in enumerate(plain)
        if operator["op_name"] in _KINDS and sum(int(i) in moving for i in operator["inputs"]) == 1
    ]
    own, head = split_head(layers, bundle.manifest.contract.task)
    count = f"{len(taken)} of {len(plain)} operators in {len(pieces)} piece{'' if len(pieces) == 1 else 's'}"
    return ExecutedPrecision(layers=own, head=head, source=f"{vendor}'s operators and tensors; XNNPACK took {count}")


def _taken(operators: Sequence[Mapping[str, Any]], pieces: Sequence[Mapping[str, Any]]) -> set[int]:
    """Indices of the operators that lie between a piece's ends."""
    producer = {int(output): index for index, operator in enumerate(operators) for output in operator["outputs"]}
    found: set[int] = set()
    for piece in pieces:
        ends, pending = {int(i) for i in piece["inputs"]}, [int(i) for i in piece["outputs"]]
        while pending:
            tensor = pending.pop()
            index = producer.get(tensor)
            if index is None or index in found or tensor in ends:
                continue
            found.add(index)
            pending += [int(i) for i in operators[index]["inputs"]]
    return found


def _layer(
    bundle: Bundle, vendor: str, operator: Mapping[str, Any], tensors: Mapping[int, Mapping[str, Any]], *, by_xnnpack: bool
) -> ExecutedLayer:
    inputs = [int(i) for i in operator["inputs"] if int(i) in tensors]
    output = tensors[int(operator["outputs"][0])]
    kind = _KINDS[operator["op_name"]]
    first, second = (tuple(int(n) for n in tensors[i]["shape"]) for i in inputs[:2])
    made = prod(int(n) for n in output["shape"])
    macs = {
        "convolution": lambda: made * prod(second[1:]), "depthwise": lambda: made * prod(second[1:3]),
        "transposed": lambda: prod(int(n) for n in tensors[inputs[2]]["shape"]) * prod(second[:3]), "linear": lambda: made * second[-1],
        "product": lambda: made * first[-1],
    }[kind]()
    source = inputs[2] if kind == "transposed" else inputs[0]
    types = {np.dtype(tensors[i]["dtype"]).name for i in (source, inputs[1])}
    precision = _PRECISIONS.get(np.dtype(tensors[source]["dtype"]).name, "f32")
    name = str(output["name"])
    if precision == INT8:
        return ExecutedLayer(name=name, kind=kind, precision=INT8, macs=macs, reason="" if by_xnnpack else _SLOW.format(vendor=vendor))
    reason = why_not_int8(bundle, name, precision, int8_in_file=bool(types & {"int8", "uint8"}), near="8-bit weights, float activations")
    return ExecutedLayer(name=name, kind=kind, precision=precision, macs=macs, reason=reason)
