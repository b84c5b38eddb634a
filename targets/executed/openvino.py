"""What OpenVINO executes: the runtime model of the compiled bundle, which names each operator's precision and what was fused into it."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.lazy import require
from targets.executed.base import INT8, NOT_VISIBLE, ExecutedLayer, ExecutedPrecision, split_head, why_not_int8
from targets.runtimes.base import RuntimeOptions, load_errors
from targets.runtimes.openvino import compile_bundle

_KINDS: Final = {
    "Convolution": "convolution", "GroupConvolution": "depthwise", "ConvolutionBackpropData": "transposed",
    "GroupConvolutionBackpropData": "transposed", "MatMul": "product",
}
_EXECUTED_AS: Final = {
    "convolution": ("Convolution",), "depthwise": ("Convolution",), "transposed": ("Deconvolution",),
    "product": ("FullyConnected", "MatMul"),
}
_PRECISIONS: Final = {"u8": INT8, "i8": INT8, "f32": "f32", "bf16": "bf16", "f16": "f16"}
_EIGHT_BITS: Final = ("u8", "i8")
_MAX_STEPS: Final = 6
"""Conversion, shift, scale, reshape, transposition: what lies between 8-bit weights and their layer."""


def executed(bundle: Bundle, options: RuntimeOptions) -> ExecutedPrecision:
    """See `base.Reader`."""
    with load_errors("openvino", bundle):
        ov = require("openvino", extra="intel")
        nodes = _weighted(ov.Core().read_model(bundle.model_path))
        runtime = compile_bundle(ov, bundle, options).get_runtime_model()
        kernels = [_Kernel(operator) for operator in runtime.get_ordered_ops()]
        named = {name: kernel for kernel in kernels for name in kernel.made_of}
        found = {node.get_friendly_name(): named.get(node.get_friendly_name()) for node in nodes}
        left = [kernel for kernel in kernels if not any(kernel is one for one in found.values())]
        layers = []
        for node in nodes:
            kernel = found[node.get_friendly_name()]
            if kernel is None:  # weights that something was folded into make a new operator with a name of its own
                kernel = next((one for one in left if one.could_be(node)), None)
                left = [one for one in left if one is not kernel]
            layers.append(_layer(bundle, node, kernel))
    own, head = split_head(layers, bundle.manifest.contract.task)
    return ExecutedPrecision(layers=own, head=head, source="OpenVINO's runtime model of the compiled bundle")


class _Kernel:
    """An operator of the runtime model."""

    def __init__(self, operator: Any) -> None:  # noqa: ANN401 - an SDK object
        facts = {key: str(value.astype(str)) for key, value in operator.get_rt_info().items() if key in _FACTS}
        self.kind = facts.get("layerType", "")
        self.precision = _PRECISIONS.get(facts.get("runtimePrecision", ""), facts.get("runtimePrecision", NOT_VISIBLE))
        self.made_of = [name for name in facts.get("originalLayersNames", "").split(",") if name]
        self.shape = _shape(operator)
        self.fed_by = [
            f"{source.get_node().get_friendly_name()} in {_type(source)}" for source in operator.input_values()
            if _type(source) not in _EIGHT_BITS
        ]

    def could_be(self, node: Any) -> bool:  # noqa: ANN401
        """Whether its kind and its output's shape are those of a layer of the file."""
        return self.kind in _EXECUTED_AS[_KINDS[node.get_type_name()]] and self.shape == _shape(node)


_FACTS: Final = ("layerType", "runtimePrecision", "originalLayersNames")


def _type(port: Any) -> str:  # noqa: ANN401
    return str(port.get_element_type().get_type_name())


def _shape(node: Any) -> tuple[int, ...] | None:  # noqa: ANN401
    shape = node.get_output_partial_shape(0)
    return tuple(int(size.get_length()) for size in shape) if shape.is_static else None


def _weighted(model: Any) -> list[Any]:  # noqa: ANN401
    """Operations of the file's graph with exactly one moving input among the first two, in order."""
    moving = {node.get_friendly_name() for node in model.get_parameters()}
    found = []
    for node in model.get_ordered_ops():
        inputs = [source.get_node().get_friendly_name() in moving for source in node.input_values()]
        if any(inputs):
            moving.add(node.get_friendly_name())
            if node.get_type_name() in _KINDS and sum(inputs[:2]) == 1:
                found.append(node)
    return found


def _layer(bundle: Bundle, node: Any, kernel: _Kernel | None) -> ExecutedLayer:  # noqa: ANN401
    name, kind = node.get_friendly_name(), _KINDS[node.get_type_name()]
    first, second = (tuple(source.get_shape()) for source in node.input_values()[:2])
    output = tuple(node.output(0).get_shape())
    if kind == "product":
        macs = prod(output) * first[-2 if node.get_attributes().get("transpose_a") else -1]
    elif kind == "transposed":  # [inputs, outputs, h, w], with groups in front
        macs = prod(first) * prod(second[2:] if node.get_type_name().startswith("Group") else second[1:])
    else:
        outputs = second[0] * second[1] if node.get_type_name() == "GroupConvolution" else second[0]
        macs = prod(output) * prod(second) // outputs
        if node.get_type_name() == "GroupConvolution" and not (second[1] == 1 and second[2] == 1):
            kind = "convolution"
    precision = kernel.precision if kernel is not None else NOT_VISIBLE
    reason = ""
    if kernel is None:
        reason = "no operator of the runtime model carries its name"
    elif precision != INT8:
        near = f"fed by {', '.join(kernel.fed_by[:1])}" if kernel.fed_by else ""
        reason = why_not_int8(bundle, name, precision, int8_in_file=_has_8_bit_weights(node), near=near)
    return ExecutedLayer(name=name, kind=kind, precision=precision, macs=macs, reason=reason)


def _has_8_bit_weights(node: Any) -> bool:  # noqa: ANN401
    pending: Iterable[Any] = [source.get_node() for source in node.input_values()[:2]]
    for _ in range(_MAX_STEPS):
        pending = list(pending)
        if any(one.get_type_name() == "Constant" and _type(one.output(0)) in _EIGHT_BITS for one in pending):
            return True
        pending = [
            source.get_node() for one in pending if one.get_type_name() in _STEPS for source in one.input_values()[:1]
        ]
    return False


_STEPS: Final = ("Convert", "Multiply", "Subtract", "Reshape", "Transpose", "FakeQuantize")
