"""What ONNX Runtime executes: its own profile of one frame, which names the kernel of each node and the types and shapes it was given.

The profile is of the optimised graph, so a convolution that really runs in int8 appears as QLinearConv, and one whose quantization could
not be fused as Conv with floats beside DequantizeLinear.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME
from targets.executed.base import INT8, NOT_VISIBLE, ExecutedLayer, ExecutedPrecision, split_head, why_not_int8
from targets.onnx_file import INT8_TYPES, OnnxGraph, OnnxNode, read_onnx
from targets.runtimes.base import RuntimeOptions, load_errors
from targets.runtimes.onnxruntime import profiled_session

_WEIGHTED: Final = {
    "Conv": "convolution", "ConvTranspose": "transposed", "Gemm": "linear", "MatMul": "product", "QLinearConv": "convolution",
}
_KERNELS: Final = frozenset({
    "Conv", "FusedConv", "NhwcFusedConv", "NhwcConv", "QLinearConv", "ConvInteger", "ConvTranspose", "QLinearConvTranspose", "Gemm",
    "QGemm", "FusedGemm", "MatMul", "FusedMatMul", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "TransposeMatMul",
})
_MADE_BY_THE_OPTIMISER: Final = re.compile(r"(_nchwc|_nhwc|_token_\d+|/MatMulAddFusion|_transform)+$")
_BITS: Final = {"float": "f32", "float16": "f16", "bfloat16": "bf16", "double": "f64"}
_SAME_SHAPE: Final = ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear")
_MAX_FUSED: Final = 4
"""Nodes behind a convolution that may be fused into it and give it their name: an addition, an activation, a quantization pair."""


@dataclass(frozen=True)
class _Weight:
    """What a layer multiplies the frame's values by."""

    shape: tuple[int, ...] | None
    """`None` = made by nodes from which no shape can be read."""
    int8_in_file: bool


def executed(bundle: Bundle, options: RuntimeOptions) -> ExecutedPrecision:
    """See `base.Reader`."""
    graph = read_onnx(bundle.model_path.read_bytes())
    kernels = {_plain(event["name"]): event for event in _profile(bundle, options)}
    consumers: dict[str, list[OnnxNode]] = {}
    for node in graph.nodes:
        for name in node.input_names:
            consumers.setdefault(name, []).append(node)
    layers = []
    for node in graph.nodes:
        weight = _weight(graph, node)
        if weight is None:
            continue
        event = next((kernels[name] for name in _names(node, consumers) if name in kernels), None)
        layers.append(_layer(bundle, node, weight, event))
    own, head = split_head(layers, bundle.manifest.contract.task)
    return ExecutedPrecision(layers=own, head=head, source="ONNX Runtime's profile of one frame, optimised graph")


def _profile(bundle: Bundle, options: RuntimeOptions) -> list[dict[str, Any]]:
    """Name, operator, types and shapes of each kernel that multiplies, in the order executed."""
    ort = require("onnxruntime", extra="onnx")
    contract = bundle.manifest.contract
    with tempfile.TemporaryDirectory(prefix="edgeseg-profile-") as folder, load_errors("onnxruntime", bundle):
        session = profiled_session(ort, bundle, options, Path(folder) / "profile")
        session.run(None, {INPUT_NAME: np.zeros((1, contract.height, contract.width, 3), np.uint8)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [
        {"name": event["name"].removesuffix("_kernel_time"), **event["args"]} for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time") and event["args"].get("op_name") in _KERNELS
    ]


def _plain(name: str) -> str:
    return _MADE_BY_THE_OPTIMISER.sub("", name)


def _names(node: OnnxNode, consumers: Mapping[str, Sequence[OnnxNode]]) -> list[str]:
    """What the node may be called after optimisation: itself, its output, or what was fused behind it and its output."""
    found, current = [node.name, *node.outputs], node
    for _ in range(_MAX_FUSED):
        behind = consumers.get(current.outputs[0], ())
        if len(behind) != 1:
            break
        current = behind[0]
        if current.kind in _WEIGHTED:
            break  # a layer of its own
        found += [current.name, *current.outputs]
    return found


def _weight(graph: OnnxGraph, node: OnnxNode) -> _Weight | None:
    """What a node multiplies the frame's values by; `None` = it multiplies none, or two tensors that both depend on the frame."""
    if node.kind not in _WEIGHTED:
        return None
    factors = [node.inputs[0], node.inputs[3]] if node.kind == "QLinearConv" else list(node.inputs[:2])
    fixed = [name for name in factors if name not in graph.moving]
    return _made_of(graph, fixed[0]) if len(fixed) == 1 else None


def _made_of(graph: OnnxGraph, name: str) -> _Weight:
    """Shape of a tensor that does not depend on the frame, and whether it comes from 8 bits, by the nodes between it and the constant."""
    if name in graph.constants:
        return _Weight(graph.constants[name].shape, graph.constants[name].dtype in INT8_TYPES)
    node = graph.producer(name)
    if node is None or not node.input_names:
        return _Weight(None, False)
    source = _made_of(graph, node.inputs[0])
    quantized = source.int8_in_file or node.kind == "QuantizeLinear"
    if source.shape is None or node.kind in _SAME_SHAPE:
        return _Weight(source.shape, quantized)
    if node.kind == "Transpose":
        order = node.attributes.get("perm") or tuple(reversed(range(len(source.shape))))
        return _Weight(tuple(source.shape[int(axis)] for axis in order) if isinstance(order, tuple) else None, quantized)
    if node.kind == "Reshape" and node.inputs[1] in graph.constants:
        return _Weight(_reshaped(source.shape, graph.constants[node.inputs[1]].integers), quantized)
    return _Weight(None, quantized)


def _reshaped(shape: Sequence[int], asked: Sequence[int]) -> tuple[int, ...]:
    """Shape after Reshape: 0 keeps a size, -1 takes what is left (onnx.ai/onnx/operators/onnx__Reshape.html)."""
    sizes = [shape[axis] if size == 0 else size for axis, size in enumerate(asked)]
    known = prod(size for size in sizes if size != -1)
    return tuple(prod(shape) // known if size == -1 else size for size in sizes)


def _layer(bundle: Bundle, node: OnnxNode, weight: _Weight, event: Mapping[str, Any] | None) -> ExecutedLayer:
    shape = weight.shape
    kind = _WEIGHTED[node.kind]
    group = node.attributes.get("group", 1)
    if kind == "convolution" and isinstance(group, int) and group > 1 and shape is not None and shape[1] == 1:
        kind = "depthwise"
    if event is None:
        reason = "not in the profile: run inside another kernel, as TensorRT does with whole graphs"
        return ExecutedLayer(name=node.name, kind=kind, precision=NOT_VISIBLE, macs=prod(shape or ()), reason=reason)
    if shape is None:
        reason = "its weights are computed in the file, and their shape cannot be read from it"
        return ExecutedLayer(name=node.name, kind=kind, precision=NOT_VISIBLE, macs=0, reason=reason)
    types = [next(iter(port)) for port in event["input_type_shape"] if port]
    shapes = [next(iter(port.values())) for port in event["input_type_shape"] if port]
    output = next(iter(event["output_type_shape"][0].values()))
    precision = INT8 if any(one in ("int8", "uint8") for one in types[:4]) else _BITS.get(types[0], types[0])
    near = f"{event['op_name']} of {types[0]}, its quantization was not fused"
    reason = "" if precision == INT8 else why_not_int8(bundle, node.name, precision, int8_in_file=weight.int8_in_file, near=near)
    return ExecutedLayer(name=node.name, kind=kind, precision=precision, macs=_macs(node, shape, shapes, output), reason=reason)


def _macs(node: OnnxNode, weight: Sequence[int], shapes: Sequence[Sequence[int]], output: Sequence[int]) -> int:
    """Multiply-accumulates by the file's own channel counts: a kernel may pad them, and may hold channels last."""
    if node.kind in ("Conv", "QLinearConv"):
        held = next((shape for shape in shapes[1:] if len(shape) == len(weight)), weight)
        return prod(output) // held[0] * prod(weight)
    if node.kind == "ConvTranspose":
        return prod(shapes[0]) * prod(weight[1:])
    return prod(output) * (weight[-1] if node.kind == "Gemm" and node.attributes.get("transB") else _inner(weight, shapes))


def _inner(weight: Sequence[int], shapes: Sequence[Sequence[int]]) -> int:
    """Length of the sums of a matrix product: rows of a constant on the right, columns of one on the left."""
    on_the_left = bool(shapes) and list(shapes[0]) == list(weight)
    return weight[-1] if on_the_left or len(weight) < 2 else weight[-2]
