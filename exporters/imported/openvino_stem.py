"""The first convolution of an OpenVINO model takes raw frames; see `exporters.imported.stem`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.lazy import require
from exporters.imported.base import Reading
from exporters.imported.stem import FirstConv, Stem, fold


def fold_openvino(model: Any, reading: Reading) -> Stem | str:  # noqa: ANN401
    """Change `model` in place to take raw frames [1, 3, P, Q] and give the stem; or say why not, the model unchanged."""
    parameter = model.get_parameters()[0]
    readers = _readers(parameter)
    if reading.layout == "NHWC":
        if any(node.get_type_name() != "Transpose" or _constant(node, 1).reshape(-1).tolist() != [0, 3, 1, 2] for node in readers):
            return "the input does not enter one convolution"
        readers = [reader for node in readers for reader in _readers(node)]
    if any(node.get_type_name() != "Convolution" or _stored(node, 1) is None for node in readers):
        return "the input does not enter one convolution"
    stem = fold([_conv(node) for node in readers], reading)
    if isinstance(stem, str):
        return stem
    ov, ops = require("openvino", extra="export"), require("openvino.opset13", extra="export")
    top, bottom, left, right = stem.borders
    shape = [1, 3, reading.contract.height + top + bottom, reading.contract.width + left + right]
    raw = ops.parameter(shape, np.float32, name=parameter.get_friendly_name())
    for node, weight, bias in zip(readers, stem.weights, stem.biases, strict=True):
        attributes = node.get_attributes()
        conv = ops.convolution(
            raw, ops.constant(weight), attributes["strides"], [stem.zeros[0], stem.zeros[2]], [stem.zeros[1], stem.zeros[3]],
            attributes["dilations"],
        )
        conv.set_friendly_name(node.get_friendly_name())
        add = _bias_of(node)
        if add is not None:
            index = 1 - next(i for i in (0, 1) if add.input_value(i).get_node() == node)
            bias = bias + _constant(add, index).reshape(-1)
        whole = ops.add(conv, ops.constant(bias.reshape(1, -1, 1, 1)))
        whole.set_friendly_name(f"{node.get_friendly_name()}/folded_bias" if add is None else add.get_friendly_name())
        (node if add is None else add).output(0).replace(whole.output(0))
    model.replace_parameter(0, raw)
    assert isinstance(model, ov.Model)
    model.validate_nodes_and_infer_types()
    return stem


def _readers(node: Any) -> list[Any]:  # noqa: ANN401
    return [port.get_node() for port in node.output(0).get_target_inputs()]


def _stored(node: Any, index: int) -> Any:  # noqa: ANN401
    """The Constant behind an input, also where it is stored in float16; `None` where there is none."""
    found = node.input_value(index).get_node()
    if found.get_type_name() == "Convert":
        found = found.input_value(0).get_node()
    kinds = ("f32", "f16", "i32", "i64")
    return found if found.get_type_name() == "Constant" and found.get_element_type().get_type_name() in kinds else None


def _constant(node: Any, index: int) -> NDArray[np.float32]:  # noqa: ANN401
    found = _stored(node, index)
    return np.zeros(0, np.float32) if found is None else np.array(found.data, np.float32)


def _bias_of(node: Any) -> Any:  # noqa: ANN401
    """The Add of one constant a channel that alone reads a convolution; `None` where there is none."""
    readers = _readers(node)
    if len(readers) != 1 or readers[0].get_type_name() != "Add":
        return None
    add = readers[0]
    channels = int(node.output(0).get_partial_shape()[1].get_length())
    other = next((i for i in (0, 1) if add.input_value(i).get_node() != node), None)
    if other is None or _stored(add, other) is None:
        return None
    shape = list(_stored(add, other).get_output_shape(0))
    return add if shape == [1, channels, 1, 1] else None


def _conv(node: Any) -> FirstConv:  # noqa: ANN401
    attributes = node.get_attributes()
    (top, left), (bottom, right) = attributes["pads_begin"], attributes["pads_end"]
    auto = str(attributes.get("auto_pad", "explicit")).upper()
    strides, dilations = attributes["strides"], attributes["dilations"]
    return FirstConv(
        weight_OIhw=_constant(node, 1), bias_O=None, strides=(strides[0], strides[1]), dilations=(dilations[0], dilations[1]),
        padding=(top, bottom, left, right) if auto in ("EXPLICIT", "NOTSET") else auto,
    )
