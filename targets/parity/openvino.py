"""OpenVINO graphs: every float port becomes a result of a copy that is compiled with the same options."""

from __future__ import annotations

from typing import Any

from edgeseg.core.bundle import Bundle
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from targets.parity.graph import Graph, Op, Values, real
from targets.runtimes.base import RuntimeOptions, load_errors
from targets.runtimes.openvino import compile_model


class OpenVinoObserver:
    """See `graph.Observer`. A tensor is named after its node, ":1" and so on for further ports."""

    format = "openvino"

    def graph(self, bundle: Bundle) -> Graph:
        """See `graph.Observer`."""
        with load_errors("openvino", bundle):
            model = require("openvino", extra="intel").Core().read_model(bundle.model_path)
            nodes = _moving(model)
            known = {_name(port) for node in [*nodes, *model.get_parameters()] for port in node.outputs()}
            ops = tuple(
                Op(index=index, name=node.get_friendly_name(), kind=node.get_type_name(),
                   inputs=tuple(_name(source) for source in node.input_values() if _name(source) in known),
                   outputs=tuple(map(_name, node.outputs())), detail=_detail(node))
                for index, node in enumerate(nodes)
            )
        return Graph(ops=ops, settled={op.inputs[0]: op.outputs[0] for op in ops if op.kind == "FakeQuantize"})

    def values(self, bundle: Bundle, options: RuntimeOptions, frame_HWC: Frame) -> Values:
        """See `graph.Observer`."""
        with load_errors("openvino", bundle):
            ov = require("openvino", extra="intel")
            model = ov.Core().read_model(bundle.model_path)
            ports = {
                _name(port): port for node in _moving(model) for port in node.outputs()
                if port.get_element_type().get_type_name() == "f32" and port.get_partial_shape().is_static
            }
            first = len(model.outputs)
            model.add_outputs(list(ports.values()))
            results = compile_model(ov, model, options).create_infer_request().infer([frame_HWC[None]])
            return {name: real(results[first + index]) for index, name in enumerate(ports)}


def _moving(model: Any) -> list[Any]:  # noqa: ANN401 - an SDK object
    """Nodes that compute something from the frame, in the order of the graph, but for results."""
    moving = {node.get_friendly_name() for node in model.get_parameters()}
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Result" and any(source.get_node().get_friendly_name() in moving for source in node.input_values()):
            moving.add(node.get_friendly_name())
            found.append(node)
    return found


def _name(port: Any) -> str:  # noqa: ANN401
    name: str = port.get_node().get_friendly_name()
    return name if port.get_index() == 0 else f"{name}:{port.get_index()}"


def _detail(node: Any) -> str:  # noqa: ANN401
    if node.get_type_name() != "Interpolate":
        return ""
    attributes = node.get_attributes()
    return f"in coordinate mode {attributes.get('coordinate_transformation_mode', '?')}, {attributes.get('mode', '?')}"
