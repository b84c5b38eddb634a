"""Bundles of format `tensorrt` have the form TensorRT takes, float and int8; those of format `onnx` do not and are refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from export_tools import exported, quantized, trained
from tiny_models import tiny_bundle, tiny_frame

from edgeseg.core.errors import ConfigError, TargetError
from edgeseg.core.manifest import Contract
from exporters import EXPORTERS
from quantization import QUANTIZERS
from targets.boards import plan
from targets.runtimes import RuntimeOptions, open_session
from targets.runtimes.tensorrt_model import check_model

NAME = "unet-thresholds"
_QUANTIZING = ("QuantizeLinear", "DequantizeLinear")


def test_bytes_lie_at_the_ends_only() -> None:
    bundle = exported("tensorrt", NAME)
    check_model(bundle)
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(bundle.model_path))).graph
    assert {value.name for value in graph.value_info if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8} <= {"class_map"}
    assert [(node.op_type, node.output[0]) for node in graph.node][-1] == ("Cast", "class_map")
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert types[graph.node[-1].input[0]] == onnx.TensorProto.FLOAT  # TensorRT casts to bytes from floats only


def test_int8_is_symmetric_with_float_biases() -> None:
    bundle, model = quantized("tensorrt", NAME)
    check_model(bundle)
    graph = onnx.load(str(bundle.model_path)).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in _QUANTIZING]
    assert len(pairs) > 20
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    first = next(node for node in graph.node if node.op_type == "Conv")
    made_by = {output: node.op_type for node in graph.node for output in node.output}
    assert made_by.get(first.input[0]) not in _QUANTIZING, "bytes 0..255 would lose a bit"
    assert all(node.input[2] in constants for node in graph.node if node.op_type == "Conv" and len(node.input) > 2)
    assert model.scheme["activations"] == "int8, per tensor, symmetric"


def _write_pooling(folder: Path, height: int, width: int) -> tuple[str, ...]:
    helper, kinds = onnx.helper, onnx.TensorProto
    identity = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "weight")
    nodes = [
        helper.make_node("Cast", ["frame"], ["real"], "cast", to=kinds.FLOAT),
        helper.make_node("Transpose", ["real"], ["x"], "turn", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "weight"], ["a"], "first"),
        helper.make_node("Conv", ["a", "weight"], ["b"], "middle"),
        helper.make_node("AveragePool", ["b"], ["c"], "pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        helper.make_node("Conv", ["c", "weight"], ["scores"], "classes"),
        helper.make_node("ArgMax", ["scores"], ["index"], "best", axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["class_map"], "bytes", to=kinds.UINT8),
    ]
    graph = helper.make_graph(
        nodes, "pooling", [helper.make_tensor_value_info("frame", kinds.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info("class_map", kinds.UINT8, [1, height, width])], [identity],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx")
    return ("model.onnx",)


@pytest.mark.parametrize(("format", "kind"), [("onnx", "Conv"), ("tensorrt", "AveragePool")])
def test_a_pooling_becomes_a_convolution_for_the_cpu_only(tmp_path: Path, format: str, kind: str) -> None:
    bundle = tiny_bundle(tmp_path, format, write=_write_pooling)
    (tmp_path / "int8").mkdir()
    made = QUANTIZERS[format](bundle, [tiny_frame(seed) for seed in range(2)], tmp_path / "int8")
    nodes = {node.name: node.op_type for node in onnx.load(str(made.folder / made.entry)).graph.node}
    assert nodes["pool"] == kind


def test_format_onnx_is_refused_with_the_operator_and_the_way_out() -> None:
    with pytest.raises(TargetError, match=r"'.*' reads the uint8 frame.*\[export\] formats = \[\"tensorrt\"\]"):
        check_model(exported("onnx", NAME))
    options = RuntimeOptions(provider="tensorrt")
    with pytest.raises(TargetError, match=r"activations in uint8.*symmetric ranges.*formats = \[\"tensorrt\"\]"):
        open_session(quantized("onnx", NAME)[0], "onnxruntime", options)


def test_a_jetson_prefers_tensorrt_by_itself() -> None:
    runtime, options = plan("jetson-orin-nano", "tensorrt", "int8", here=lambda run: True)
    assert (runtime, options.provider, options.precision_hint) == ("tensorrt", "tensorrt", "f32")
    for format in ("tensorrt", "onnx"):  # the arithmetic is what was asked for, whatever the weights are kept in
        assert plan("jetson-orin-nano", format, "fp16", here=lambda run: True).options.precision_hint == "f32"
        assert plan("jetson-orin-nano", format, "fp16", precision_hint="f16", here=lambda run: True).options.precision_hint == "f16"
    assert plan("jetson-orin-nano", "onnx", "fp32", here=lambda run: True).runtime == "onnxruntime"


def test_objects_are_not_offered(tmp_path: Path) -> None:
    contract = Contract(height=32, width=32, task="instance", max_instances=4)
    with pytest.raises(ConfigError, match="for objects choose format onnx"):
        EXPORTERS["tensorrt"](trained(NAME), contract, tmp_path)
