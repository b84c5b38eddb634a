"""Activations and layers of an ONNX graph: every float tensor becomes an output of a copy that ONNX Runtime runs unoptimised."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import prod
from typing import Any

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import vendor_errors
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME
from quantization.tensors.base import Activations, LayerFacts, as_float32, check_format, choose_names, convolution_macs

_FLOAT = 1
"""`onnx.TensorProto.FLOAT`."""
_CONSTANT = ("Constant", "ConstantOfShape", "Shape", "Range")


class OnnxTensors:
    """See `quantization.tensors.base.Tensors`."""

    channels_first = True

    def __init__(self, format: str = "onnx") -> None:
        self.format = format

    def observe(self, bundle: Bundle, frames: Sequence[Frame], names: Collection[str] | None = None) -> Iterator[Activations]:
        """See `quantization.tensors.base.Tensors`."""
        check_format(bundle, self.format)
        onnx, ort = require("onnx", extra="export"), require("onnxruntime", extra="export")
        model = onnx.load(str(bundle.model_path))
        chosen = choose_names(float_activations(model), names)
        present = {output.name for output in model.graph.output}
        for name in chosen:
            if name not in present:
                model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        with vendor_errors("onnxruntime"):
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.intra_op_num_threads, options.log_severity_level = 1, 3
            session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            for frame in frames:
                yield {n: as_float32(v) for n, v in zip(chosen, session.run(chosen, {INPUT_NAME: frame[None]}), strict=True)}

    def layers(self, bundle: Bundle) -> tuple[LayerFacts, ...]:
        """See `quantization.tensors.base.Tensors`."""
        check_format(bundle, self.format)
        model = require("onnx", extra="export").load(str(bundle.model_path))
        weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        _, shapes = _types_and_shapes(model)
        found = (_layer(node, weights, shapes) for node in model.graph.node)
        return tuple(layer for layer in found if layer is not None)


def activations(graph: Any) -> list[str]:  # noqa: ANN401 - an SDK object
    """Names of what nodes compute from the frame, in the order of the graph; constants and sums of constants are left out."""
    known = {graph_input.name for graph_input in graph.input} - {tensor.name for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type not in _CONSTANT and any(name in known for name in node.input):
            known.update(node.output)
            found += [name for name in node.output if name]
    return found


def float_activations(model: Any) -> list[str]:  # noqa: ANN401
    """Those of `activations` that are float32, as far as their types can be inferred."""
    types, _ = _types_and_shapes(model)
    return [name for name in activations(model.graph) if types.get(name) == _FLOAT]


def _types_and_shapes(model: Any) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:  # noqa: ANN401
    """Element type and shape of every tensor that has one."""
    graph = require("onnx", extra="export").shape_inference.infer_shapes(model).graph
    types, shapes = {}, {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        types[value.name] = tensor.elem_type
        shapes[value.name] = tuple(max(1, dim.dim_value) for dim in tensor.shape.dim)
    return types, shapes


def _layer(node: Any, weights: dict[str, tuple[int, ...]], shapes: dict[str, tuple[int, ...]]) -> LayerFacts | None:  # noqa: ANN401
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    shape = next((weights[name] for name in node.input[1:2] if name in weights), None)
    if shape is None:
        return None
    output, source = shapes.get(node.output[0], ()), shapes.get(node.input[0], ())
    if node.op_type == "Conv":
        group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        kind = "depthwise" if group > 1 and shape[1] == 1 else "convolution"
        macs = convolution_macs(output, shape, outputs=shape[0])
    elif node.op_type == "ConvTranspose":
        kind, macs = "transposed", prod(source) * prod(shape[1:])
    else:
        transposed = node.op_type == "Gemm" and any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        kind, macs = "linear", prod(output) * shape[1 if transposed else -2]
    return LayerFacts(
        name=node.name, kind=kind, inputs=tuple(n for n in node.input[:1]), outputs=tuple(node.output), macs=macs, weight_shape=shape,
    )
