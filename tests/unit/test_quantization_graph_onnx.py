"""Int8 ONNX graphs are rewritten into a faster form; not a bit of what they answer may change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from quantization.graph_onnx import block_weights, read_pixels_in_blocks


def stem(kernel: tuple[int, int], strides: tuple[int, int], width: int, *, relu: bool = True, pads: tuple[int, ...] = (0, 0, 0, 0)) -> Any:
    """An int8 graph: frame, a border, Transpose, one convolution to 5 channels, [Relu], uint8 out."""
    rng = np.random.default_rng(1)
    constants: dict[str, Any] = {
        "border": np.full((1, 1, width, 3), 116, np.uint8), "one": np.float32(1), "nought": np.uint8(0),
        "w": rng.integers(-127, 127, (5, 3, *kernel)).astype(np.int8), "w_scale": rng.uniform(0.001, 0.01, 5).astype(np.float32),
        "w_zero": np.zeros(5, np.int8), "b": rng.integers(-900, 900, 5).astype(np.int32), "b_zero": np.zeros(5, np.int32),
        "y_scale": np.float32(3), "y_zero": np.uint8(0 if relu else 120),
    }
    nodes = [
        helper.make_node("Concat", ["border", "frame"], ["wide"], axis=1),
        helper.make_node("Transpose", ["wide"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["first", "one", "nought"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_real"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "w_scale", "b_zero"], ["b_real"], axis=0),
        helper.make_node("Conv", ["x", "w_real", "b_real"], ["sums"], strides=strides, kernel_shape=kernel, pads=pads),
        *([helper.make_node("Relu", ["sums"], ["positive"])] if relu else []),
        helper.make_node("QuantizeLinear", ["positive" if relu else "sums", "y_scale", "y_zero"], ["y8"]),
        helper.make_node("DequantizeLinear", ["y8", "y_scale", "y_zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "stem", [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 23, width, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "c", "h", "w"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def answer(model: Any) -> np.ndarray[Any, Any]:
    width = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    frame = np.random.default_rng(2).integers(0, 256, (1, 23, width, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"frame": frame})[0])


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
    ("kernel", "strides", "width"),
    [((3, 3), (2, 2), 33), ((7, 7), (2, 2), 37), ((3, 3), (1, 1), 26), ((2, 5), (1, 2), 35), ((3, 3), (2, 1), 42)],
)
def test_no_bit_changes(kernel: tuple[int, int], strides: tuple[int, int], width: int, relu: bool) -> None:
    model = stem(kernel, strides, width, relu=relu)
    expected = answer(model)
    assert read_pixels_in_blocks(model) == 1
    onnx.checker.check_model(model, full_check=True)
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == conv.input[1].replace("_real", ""))
    assert weights.shape[1] == 12
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(answer(model), expected)


@pytest.mark.parametrize(
    "model", [stem((3, 3), (2, 2), 35), stem((3, 3), (1, 1), 29), stem((8, 8), (8, 8), 64), stem((3, 3), (2, 2), 33, pads=(1, 1, 1, 1))],
    ids=["uneven outputs", "uneven outputs at stride 1", "patches", "padded by the convolution"],
)
def test_what_does_not_fit_is_left_alone(model: Any) -> None:
    before = model.SerializeToString()
    assert read_pixels_in_blocks(model) == 0
    assert model.SerializeToString() == before


def test_every_weight_is_there_as_often_as_outputs_are_made_together() -> None:
    weights = np.arange(1, 1 + 2 * 3 * 3 * 3).reshape(2, 3, 3, 3)
    blocked = block_weights(weights, stride=2)
    assert blocked.shape == (4, 12, 3, 2)
    assert np.count_nonzero(blocked) == 2 * weights.size and blocked.sum() == 2 * weights.sum()
