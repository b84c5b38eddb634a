"""What TensorRT takes of an ONNX file, told before minutes are spent on an engine.

From NVIDIA's documentation (`DataType::kUINT8`, "Explicit Quantization"): uint8 exists at the ends of a network only, where it is cast from
and to floats, and quantized tensors are int8 with the zero point 0.
"""

from __future__ import annotations

from typing import Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import TargetError
from targets.onnx_file import OnnxGraph, OnnxNode, Value, read_onnx

_UINT8, _INT8 = 2, 3
"""TensorProto.DataType."""
_QUANTIZING: Final = ("QuantizeLinear", "DequantizeLinear")


def check_model(bundle: Bundle) -> None:
    """Refuse an ONNX file that TensorRT cannot take.

    Raises:
        TargetError: names the operator and says what TensorRT takes.
        BundleError: the file is no ONNX file.
    """
    graph = read_onnx(bundle.model_path.read_bytes())
    for node in graph.nodes:
        words = _why_not(graph, node)
        if words:
            raise TargetError(
                f"tensorrt cannot take {bundle.manifest.name}: {node.kind} '{node.name}' {words}; "
                'make the bundle with [export] formats = ["tensorrt"]'
            )


def _why_not(graph: OnnxGraph, node: OnnxNode) -> str:
    if node.kind != "Cast" and graph.inputs[0] in node.input_names:
        return "reads the uint8 frame, which must be cast to floats first"
    if node.kind == "Cast" and node.attributes.get("to") == _UINT8 and node.outputs[0] not in graph.outputs:
        return "gives uint8 inside the network, which TensorRT has at its ends only"
    return _why_not_quantized(graph, node) if node.kind in _QUANTIZING else ""


def _why_not_quantized(graph: OnnxGraph, node: OnnxNode) -> str:
    """By ONNX's rules a node without a zero point has 0; QuantizeLinear then gives uint8 unless `output_dtype` says otherwise."""
    dtype: Value
    name = node.inputs[2] if len(node.inputs) > 2 else ""
    if name:
        zero_point = graph.constants.get(name)
        dtype = _INT8 if zero_point is None else zero_point.dtype
        symmetric = zero_point is not None and not any(zero_point.integers)
    elif node.kind == "QuantizeLinear":
        dtype, symmetric = node.attributes.get("output_dtype") or _UINT8, True
    else:
        weights = graph.constants.get(node.inputs[0])  # what no constant feeds, a QuantizeLinear does
        dtype, symmetric = _INT8 if weights is None else weights.dtype, True
    if dtype != _INT8:
        return "quantizes to other than int8; TensorRT takes int8 with symmetric ranges"
    return "" if symmetric else "has a zero point other than 0; TensorRT takes int8 with symmetric ranges"
