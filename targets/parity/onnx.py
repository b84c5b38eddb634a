"""ONNX graphs by ONNX Runtime alone: every tensor becomes an output of a copy that is run unoptimised."""

from __future__ import annotations

from typing import Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME
from targets.onnx_file import OnnxGraph, OnnxNode, read_onnx, with_outputs
from targets.parity.graph import Graph, Op, Values, real
from targets.runtimes.base import RuntimeOptions, load_errors

_SHAPES: Final = ("Shape", "Size", "ConstantOfShape")
_DEFAULT_MODE: Final = "half_pixel"


class OnnxObserver:
    """See `graph.Observer`."""

    def __init__(self, format: str = "onnx") -> None:
        self.format = format

    def graph(self, bundle: Bundle) -> Graph:
        """See `graph.Observer`."""
        return _graph(read_onnx(bundle.model_path.read_bytes()))

    def values(self, bundle: Bundle, options: RuntimeOptions, frame_HWC: Frame) -> Values:
        """See `graph.Observer`."""
        data = bundle.model_path.read_bytes()
        names = tuple(name for op in _moving(read_onnx(data)) for name in op.outputs if name)
        with load_errors("onnxruntime", bundle):
            ort = require("onnxruntime", extra="onnx")
            session_options = ort.SessionOptions()
            session_options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            session_options.intra_op_num_threads, session_options.log_severity_level = options.num_threads, 3
            session = ort.InferenceSession(with_outputs(data, names), session_options, providers=["CPUExecutionProvider"])
            floats = [port.name for port in session.get_outputs() if port.type in ("tensor(float)", "tensor(float16)")]
            results = session.run(floats, {INPUT_NAME: frame_HWC[None]})
        return {name: real(value) for name, value in zip(floats, results, strict=True)}


def _moving(graph: OnnxGraph) -> list[OnnxNode]:
    """Nodes that compute something from the frame."""
    known = set(graph.inputs)
    found = []
    for node in graph.nodes:
        if node.kind not in _SHAPES and known.intersection(node.inputs):
            known.update(node.outputs)
            found.append(node)
    return found


def _graph(read: OnnxGraph) -> Graph:
    nodes = _moving(read)
    known = {name for node in nodes for name in node.outputs} | set(read.inputs)
    ops = tuple(
        Op(index=index, name=node.name, kind=node.kind, inputs=tuple(name for name in node.inputs if name in known),
           outputs=tuple(name for name in node.outputs if name), detail=_detail(node))
        for index, node in enumerate(nodes)
    )
    quantized = {node.outputs[0]: node.inputs[0] for node in nodes if node.kind == "QuantizeLinear"}
    settled = {
        quantized[node.inputs[0]]: node.outputs[0] for node in nodes if node.kind == "DequantizeLinear" and node.inputs[0] in quantized
    }
    return Graph(ops=ops, settled=settled)


def _detail(node: OnnxNode) -> str:
    if node.kind != "Resize":
        return ""
    mode = node.attributes.get("mode", "nearest")
    return f"in coordinate mode {node.attributes.get('coordinate_transformation_mode', _DEFAULT_MODE)}, {mode}"
