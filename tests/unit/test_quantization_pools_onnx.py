"""Average pooling as a convolution: the same numbers, and what cannot be put so stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from quantization.pools_onnx import pools_as_convolutions

SHAPE = (1, 5, 12, 16)


def pooling(**attributes: Any) -> onnx.ModelProto:
    node = helper.make_node("AveragePool", ["x"], ["y"], name="pool", **{"kernel_shape": [3, 5], **attributes})
    relu, back = helper.make_node("Relu", ["in"], ["x"], name="relu"), helper.make_node("Neg", ["y"], ["out"], name="neg")
    graph = helper.make_graph(
        [relu, node, back], "g", [helper.make_tensor_value_info("in", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, list("nchw"))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def answer(model: onnx.ModelProto) -> np.ndarray[Any, Any]:
    frame = np.random.Generator(np.random.Philox(0)).normal(size=SHAPE).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"in": frame})[0])


@pytest.mark.parametrize("attributes", [
    {}, {"strides": [2, 3]}, {"pads": [1, 2, 1, 2], "count_include_pad": 1, "strides": [2, 2]},
    {"pads": [0, 0, 0, 0], "count_include_pad": 0},
])
def test_a_pooling_that_divides_by_one_count_becomes_a_convolution_with_the_same_answer(attributes: dict[str, Any]) -> None:
    model = pooling(**attributes)
    expected = answer(model)
    assert pools_as_convolutions(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Relu", "Conv", "Neg"]
    assert model.graph.node[1].name == "pool"
    np.testing.assert_allclose(answer(model), expected, atol=1e-6)


@pytest.mark.parametrize("attributes", [
    {"pads": [1, 2, 1, 2]}, {"pads": [1, 2, 1, 2], "count_include_pad": 1, "ceil_mode": 1}, {"auto_pad": "SAME_UPPER"}, {"ceil_mode": 1},
])
def test_a_pooling_whose_count_changes_at_the_border_stays(attributes: dict[str, Any]) -> None:
    model = pooling(**attributes)
    assert pools_as_convolutions(model) == 0
    assert [node.op_type for node in model.graph.node] == ["Relu", "AveragePool", "Neg"]
