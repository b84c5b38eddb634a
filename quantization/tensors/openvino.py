"""Activations and layers of an OpenVINO graph: every float port becomes a result of a copy that is compiled in f32."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import prod
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import vendor_errors
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from quantization.tensors.base import Activations, LayerFacts, as_float32, check_format, choose_names, convolution_macs

KINDS: Final = {
    "Convolution": "convolution", "GroupConvolution": "depthwise", "ConvolutionBackpropData": "transposed",
    "GroupConvolutionBackpropData": "transposed", "MatMul": "linear",
}


class OpenVinoTensors:
    """See `quantization.tensors.base.Tensors`. A tensor is named after its node, ":1" and so on for further ports."""

    format = "openvino"
    channels_first = True

    def observe(self, bundle: Bundle, frames: Sequence[Frame], names: Collection[str] | None = None) -> Iterator[Activations]:
        """See `quantization.tensors.base.Tensors`."""
        check_format(bundle, self.format)
        ov = require("openvino", extra="export")
        with vendor_errors("openvino"):
            core = ov.Core()
            model = core.read_model(bundle.model_path)
            ports = {port_name(port): port for node in activations(model) for port in node.outputs() if _is_float(port)}
            chosen = choose_names(list(ports), names)
            first = len(model.outputs)
            model.add_outputs([ports[name] for name in chosen])
            compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
            request = compiled.create_infer_request()
            for frame in frames:
                results = request.infer([frame[None]])
                yield {name: as_float32(results[first + index]) for index, name in enumerate(chosen)}

    def layers(self, bundle: Bundle) -> tuple[LayerFacts, ...]:
        """See `quantization.tensors.base.Tensors`."""
        check_format(bundle, self.format)
        ov = require("openvino", extra="export")
        with vendor_errors("openvino"):
            model = ov.Core().read_model(bundle.model_path)
            nodes = activations(model)
            moving = {node.get_friendly_name() for node in (*nodes, *model.get_parameters())}
            return tuple(_facts(node, moving) for node in nodes if is_layer(node, moving))


def activations(model: Any) -> list[Any]:  # noqa: ANN401 - an SDK object
    """Nodes that compute something from the frame, in the order of the graph, but for results."""
    moving = {node.get_friendly_name() for node in model.get_parameters()}
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Result":
            continue
        if any(port.get_source_output().get_node().get_friendly_name() in moving for port in node.inputs()):
            moving.add(node.get_friendly_name())
            found.append(node)
    return found


def is_layer(node: Any, moving: Collection[str]) -> bool:  # noqa: ANN401
    """Whether one of its two inputs is weights; `moving` = names of the nodes that depend on the frame."""
    if node.get_type_name() not in KINDS:
        return False
    return sum(source.get_node().get_friendly_name() in moving for source in node.input_values()[:2]) == 1


def port_name(port: Any) -> str:  # noqa: ANN401
    """Name of a tensor: that of its node, with the port's index where there are several."""
    name: str = port.get_node().get_friendly_name()
    return name if port.get_index() == 0 else f"{name}:{port.get_index()}"


def _is_float(port: Any) -> bool:  # noqa: ANN401
    return bool(port.get_element_type().get_type_name() == "f32" and port.get_partial_shape().is_static)


def _facts(node: Any, moving: Collection[str]) -> LayerFacts:  # noqa: ANN401
    kind = KINDS[node.get_type_name()]
    sources = list(node.input_values()[:2])
    entering, weights = sources if sources[0].get_node().get_friendly_name() in moving else sources[::-1]
    weight, output, source = tuple(weights.get_shape()), tuple(node.output(0).get_shape()), tuple(sources[0].get_shape())
    if node.get_type_name() == "GroupConvolution":  # [groups, outputs a group, inputs a group, ...]
        kind = "depthwise" if weight[1] == 1 and weight[2] == 1 else "convolution"
        macs = convolution_macs(output, weight, outputs=weight[0] * weight[1])
    elif kind == "transposed":
        macs = prod(source) * prod(weight[2:] if node.get_type_name().startswith("Group") else weight[1:])
    elif kind == "linear":
        macs = prod(output) * source[-2 if node.get_attributes().get("transpose_a") else -1]
    else:
        macs = convolution_macs(output, weight, outputs=weight[0])
    return LayerFacts(
        name=node.get_friendly_name(), kind=kind, inputs=(port_name(entering),), outputs=(port_name(node.output(0)),), macs=macs,
        weight_shape=weight,
    )
