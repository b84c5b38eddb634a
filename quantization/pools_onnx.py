"""Average pooling as a depthwise convolution of equal weights, which ONNX Runtime's int8 kernels run many times faster.

`targets/executed/gains.py` has the numbers. Left float, a pooling between int8 layers would be fused into the slow kernel all the same.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from edgeseg.core.lazy import require

_PLAIN: Final[dict[str, Any]] = {"auto_pad": b"NOTSET", "ceil_mode": 0}
_AS_THEY_ARE: Final = ("kernel_shape", "strides", "pads")


def pools_as_convolutions(model: Any) -> int:  # noqa: ANN401 - an SDK object
    """Replace every AveragePool that divides by the same count everywhere; gives how many were.

    Names of nodes and values stay. 1/count is exact to half a step of float32, and per channel in int8 it is the largest weight, so it is
    not rounded at all. A pooling that leaves padding out of the count (`count_include_pad = 0`), rounds its size up or dilates stays.
    """
    onnx = require("onnx", extra="export")
    graph = model.graph
    shapes = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    changed = 0
    for node in [node for node in graph.node if node.op_type == "AveragePool"]:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        channels = shapes.get(node.input[0], (0, 0))[1]
        padded = any(attributes.get("pads", ())) and not attributes.get("count_include_pad", 0)
        plain = all(attributes.get(name, value) == value for name, value in _PLAIN.items())
        plain = plain and set(attributes.get("dilations", (1,))) == {1}
        if padded or not plain or not channels:
            continue
        kernel = tuple(attributes["kernel_shape"])
        weights = np.full((channels, 1, *kernel), 1 / np.prod(kernel), np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(weights, f"{node.name}_equal_weights"))
        kept = {name: attributes[name] for name in _AS_THEY_ARE if name in attributes}
        node.CopyFrom(onnx.helper.make_node(
            "Conv", [node.input[0], f"{node.name}_equal_weights"], list(node.output), name=node.name, group=channels, **kept,
        ))
        changed += 1
    return changed
