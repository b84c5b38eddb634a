"""The first convolution of an ONNX graph takes raw frames; see `exporters.imported.stem`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edgeseg.core.lazy import require
from exporters.imported.base import Reading
from exporters.imported.stem import FirstConv, Stem, fold


def fold_onnx(model: Any, reading: Reading) -> Stem | str:  # noqa: ANN401
    """Change `model` in place to take raw frames [1, 3, P, Q] and give the stem; or say why not, the model unchanged."""
    helper, arrays = require("onnx.helper", extra="export"), require("onnx.numpy_helper", extra="export")
    graph = model.graph
    x = graph.input[0].name
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute) or model.functions:
        return "the graph holds inner graphs"
    transposes = [node for node in graph.node if x in node.input and node.op_type == "Transpose" and _ints(node, "perm") == (0, 3, 1, 2)]
    readers = [node for node in graph.node if x in node.input and node not in transposes]
    if reading.layout == "NHWC":
        if readers:
            return "the input does not enter one convolution"
        turned = {node.output[0] for node in transposes}
        readers = [node for node in graph.node if turned & set(node.input)]
        inputs = turned
    else:
        if transposes:
            return "the input does not enter one convolution"
        inputs = {x}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(port.name for port in graph.output)
    if any(port.name in inputs for port in graph.output):
        return "the input does not enter one convolution"
    for node in readers:
        own = list(node.input[1:])
        if node.op_type != "Conv" or node.input[0] not in inputs or any(name not in weights or uses[name] != 1 for name in own if name):
            return "the input does not enter one convolution"
        if weights[node.input[1]].data_type != helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)):
            return "the first convolution is not in float32"
    convs = [_conv(node, [None if not name else arrays.to_array(weights[name]) for name in node.input[1:]]) for node in readers]
    stem = fold(convs, reading)
    if isinstance(stem, str):
        return stem
    for node, weight, bias in zip(readers, stem.weights, stem.biases, strict=True):
        names = [node.input[1], node.input[2] if len(node.input) > 2 and node.input[2] else f"{node.input[1]}/folded_bias"]
        for name, value in zip(names, (weight, bias), strict=True):
            if name in weights:
                weights[name].CopyFrom(arrays.from_array(value, name))
            else:
                graph.initializer.append(arrays.from_array(value, name))
        node.input[:] = [x, *names]
        for attribute in [one for one in node.attribute if one.name in ("pads", "auto_pad")]:
            node.attribute.remove(attribute)
        top, bottom, left, right = stem.zeros
        node.attribute.append(helper.make_attribute("pads", [top, left, bottom, right]))
    for node in transposes:
        graph.node.remove(node)
    return stem


def _conv(node: Any, values: list[Any]) -> FirstConv:  # noqa: ANN401
    auto = next((attribute.s.decode() for attribute in node.attribute if attribute.name == "auto_pad"), "NOTSET")
    top, left, bottom, right = _ints(node, "pads") or (0, 0, 0, 0)
    strides, dilations = _ints(node, "strides") or (1, 1), _ints(node, "dilations") or (1, 1)
    return FirstConv(
        weight_OIhw=values[0], bias_O=values[1] if len(values) > 1 else None, strides=(strides[0], strides[1]),
        dilations=(dilations[0], dilations[1]), padding=(top, bottom, left, right) if auto == "NOTSET" else auto,
    )


def _ints(node: Any, name: str) -> tuple[int, ...]:  # noqa: ANN401
    return next((tuple(int(value) for value in attribute.ints) for attribute in node.attribute if attribute.name == name), ())
