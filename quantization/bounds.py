"""The FakeQuantize operations of an OpenVINO model: where they are, moving their bounds, taking them away.

FakeQuantize maps [low, high] to `levels` equal steps. Bounds are moved so that 0 is a value of its own: Jacob et al. 2018,
arXiv:1712.05877, eq. (1), with scale S = (high - low) / (levels - 1) and zero point Z = round(-low / S); then low = -Z S.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.lazy import require
from quantization.calibrators import Ranges

_SMALLEST: Final = 1e-5
"""A range is at least so wide: a channel that is 0 on all frames has one too."""


def activation_quantizers(model: Any) -> list[Any]:  # noqa: ANN401 - an SDK object
    """FakeQuantize operations of activations, in the order of the graph; those of weights have become 8-bit constants."""
    nodes = (node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize")
    return [node for node in nodes if node.input_value(0).get_node().get_type_name() != "Constant"]


def tensor_of(quantizer: Any) -> str:  # noqa: ANN401
    """Name of the float tensor that is quantized, as `quantization.tensors` names it."""
    port = quantizer.input_value(0)
    name: str = port.get_node().get_friendly_name()
    return name if port.get_index() == 0 else f"{name}:{port.get_index()}"


def set_bounds(model: Any, ranges: Mapping[str, Ranges]) -> None:  # noqa: ANN401
    """Give each quantizer of a tensor in `ranges` its range. What enters one Concat keeps one range, the union, as the kernel needs it."""
    quantizers = activation_quantizers(model)
    together: dict[str, list[Any]] = {}
    for node in quantizers:
        for port in node.output(0).get_target_inputs():
            if port.get_node().get_type_name() == "Concat":
                together.setdefault(port.get_node().get_friendly_name(), []).append(node)
    joint: dict[str, Ranges] = {}
    for nodes in together.values():
        known = [ranges[tensor_of(node)] for node in nodes if tensor_of(node) in ranges]
        if known:
            union = np.array([min(low.min() for low, _ in known)]), np.array([max(high.max() for _, high in known)])
            joint.update({node.get_friendly_name(): union for node in nodes})
    for node in quantizers:
        found = joint.get(node.get_friendly_name(), ranges.get(tensor_of(node)))
        if found is not None:
            _move(node, *found)


def _move(quantizer: Any, low_K: NDArray[np.float64], high_K: NDArray[np.float64]) -> None:  # noqa: ANN401
    """Replace the four bounds; one row is a scalar for all channels, several keep the shape that is there."""
    opset = require("openvino.opset13", extra="export")
    low, high = with_zero(low_K, high_K, levels=int(quantizer.get_attributes()["levels"]))
    shape = tuple(quantizer.input_value(1).get_shape()) if len(low) > 1 else ()
    for place, values in ((1, low), (2, high), (3, low), (4, high)):
        constant = opset.constant(values.reshape(shape).astype(np.float32))
        constant.set_friendly_name(f"{quantizer.get_friendly_name()}/bound_{place}")
        quantizer.input(place).replace_source_output(constant.output(0))


def with_zero(low_K: NDArray[np.float64], high_K: NDArray[np.float64], *, levels: int) -> Ranges:
    """Move ranges so that one of the `levels` values is exactly 0; where nothing is negative, the lowest.

    A symmetric range (-m, m) becomes (-128 s, 127 s) with s = m / 127, for 256 levels.
    """
    low, high = np.minimum(low_K, 0.0), np.maximum(high_K, 0.0)
    high = np.where(high - low < _SMALLEST, low + _SMALLEST, high)
    symmetric = (low < 0) & (np.abs(low + high) <= 1e-9 * high)
    half = levels // 2
    scale = np.where(symmetric, high / (half - 1), (high - low) / (levels - 1))
    zero = np.where(symmetric, half, np.clip(np.round(-low / scale), 0, levels - 1))
    return -zero * scale, (levels - 1 - zero) * scale


def restore_float(model: Any, original: Any, layers: Sequence[str]) -> None:  # noqa: ANN401
    """Make `layers` float again: their input unquantized, weights and bias those of the `original` model."""
    own = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    before = {node.get_friendly_name(): node for node in original.get_ordered_ops()}
    for name in layers:
        layer, was = own[name], before[name]
        for place in (0, 1):
            source = was.input_value(place).get_node()
            if _is_constant(source):
                layer.input(place).replace_source_output(_copy(source, f"{name}/float_weights").output(0))
            elif layer.input_value(place).get_node().get_type_name() == "FakeQuantize":
                quantizer = layer.input_value(place).get_node()
                layer.input(place).replace_source_output(quantizer.input_value(0))
        _restore_bias(layer, was)


def _restore_bias(layer: Any, was: Any) -> None:  # noqa: ANN401
    """Undo a bias correction, which spoke of 8-bit weights; NNCF adds a bias where there was none."""
    adding, added = _bias_of(layer), _bias_of(was)
    if adding is None:
        return
    place = 1 if _is_constant(adding.input_value(1).get_node()) else 0
    if added is not None:
        constant = added.input_value(1).get_node()
        source = constant if _is_constant(constant) else added.input_value(0).get_node()
        restored = _copy(source, f"{layer.get_friendly_name()}/float_bias")
    else:
        opset = require("openvino.opset13", extra="export")
        restored = opset.constant(np.zeros(tuple(adding.input_value(place).get_shape()), np.float32))
        restored.set_friendly_name(f"{layer.get_friendly_name()}/float_bias")
    adding.input(place).replace_source_output(restored.output(0))


def _bias_of(layer: Any) -> Any | None:  # noqa: ANN401
    """The one Add of a constant behind a layer."""
    behind = _consumers(layer)
    if len(behind) != 1 or behind[0].get_type_name() != "Add":
        return None
    return behind[0] if any(_is_constant(source.get_node()) for source in behind[0].input_values()) else None


def _consumers(node: Any) -> list[Any]:  # noqa: ANN401
    return [port.get_node() for port in node.output(0).get_target_inputs()]


def _is_constant(node: Any) -> bool:  # noqa: ANN401
    """Whether it is a constant, converted or reshaped perhaps."""
    while node.get_type_name() in ("Convert", "Reshape") and node.get_input_size():
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def _copy(node: Any, name: str) -> Any:  # noqa: ANN401
    """A float32 constant with the values of another model's."""
    opset = require("openvino.opset13", extra="export")
    constant = node
    while constant.get_type_name() != "Constant":
        constant = constant.input_value(0).get_node()
    copied = opset.constant(np.array(constant.data, dtype=np.float32).reshape(tuple(node.output(0).get_shape())))
    copied.set_friendly_name(name)
    return copied
