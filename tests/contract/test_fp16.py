"""fp16 bundles of every format: half the size, the same answers, and what does not fit stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from export_tools import RUNTIME_OF, exported, frames_of, reference, seal

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import FORMATS
from quantization.fp16 import FP16
from targets.runtimes import RuntimeOptions, open_session
from targets.runtimes.tensorrt_model import check_model


def halved(format: str, folder: Path) -> Bundle:
    (folder / "work").mkdir(parents=True)
    return seal("fast_scnn", FP16[format](exported(format, "fast_scnn"), folder / "work"))


@pytest.mark.parametrize("format", list(FP16))
def test_half_the_size_and_the_same_answers(format: str, tmp_path: Path) -> None:
    assert format in FORMATS
    assert FP16[format].format == format
    bundle = halved(format, tmp_path)
    assert bundle.manifest.precision == "fp16"
    assert bundle.manifest.scheme["method"] == ("fp16 throughout" if format == "tensorrt" else "weights-only")
    assert bundle.size_bytes < 0.7 * exported(format, "fast_scnn").size_bytes
    frames = frames_of("fast_scnn", 4, first=9000)
    session = open_session(bundle, RUNTIME_OF[format], RuntimeOptions(num_threads=1))
    answers = [session.run(frame) for frame in frames]
    session.close()
    assert np.mean([np.mean(a == b) for a, b in zip(answers, reference("fast_scnn", frames), strict=True)]) > 0.998
    again = FP16[format](exported(format, "fast_scnn"), tmp_path)
    for name in again.files:
        assert (tmp_path / name).read_bytes() == (bundle.folder / name).read_bytes()


@pytest.mark.parametrize("format", list(FP16))
def test_only_fp32_of_its_own_format_is_halved(format: str, tmp_path: Path) -> None:
    other = next(one for one in FP16 if one != format)
    with pytest.raises(ConfigError, match=f"makes fp16 of {format}"):
        FP16[format](exported(other, "fast_scnn"), tmp_path)
    bundle = exported(format, "fast_scnn")
    int8 = Bundle(bundle.folder, dataclasses.replace(bundle.manifest, precision="int8"))
    with pytest.raises(ConfigError, match="is int8; fp16 is made of an fp32 bundle"):
        FP16[format](int8, tmp_path)


def with_a_large_weight(format: str, folder: Path) -> tuple[Bundle, str]:
    """The fp32 bundle, the first convolution's weights times 1e12; and their name."""
    import onnx

    bundle = exported(format, "fast_scnn")
    model = onnx.load(str(bundle.model_path))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == conv.input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1e12), weight.name))
    folder.mkdir()
    onnx.save(model, folder / bundle.manifest.entry)
    return Bundle(folder, bundle.manifest), str(weight.name)


def test_weights_that_fp16_cannot_hold_stay(tmp_path: Path) -> None:
    bundle, name = with_a_large_weight("onnx", tmp_path / "large")
    assert FP16["onnx"](bundle, tmp_path).scheme["kept_fp32"] == [name]


def test_tensorrt_computes_in_fp16_by_the_file_alone(tmp_path: Path) -> None:
    """But for a layer whose weights do not fit, which the converter itself would clamp."""
    import onnx
    from onnx import TensorProto, shape_inference

    bundle = halved("tensorrt", tmp_path / "plain")
    graph = shape_inference.infer_shapes(onnx.load(str(bundle.model_path)), strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert TensorProto.FLOAT16 in kinds.values()
    assert TensorProto.FLOAT not in kinds.values()
    check_model(bundle)
    large, name = with_a_large_weight("tensorrt", tmp_path / "large")
    made = FP16["tensorrt"](large, tmp_path)
    assert made.scheme["kept_fp32"] == [name]
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(str(tmp_path / made.entry)).graph.initializer}
    assert stored[name] == TensorProto.FLOAT
    assert sum(kind == TensorProto.FLOAT for kind in stored.values()) <= 2  # and its bias


def test_tensorrt_whatever_the_graph_is_like(tmp_path: Path) -> None:
    """Operators the converter would leave in fp32 by itself, nodes without names, one tensor before two layers that do not fit."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = {"w": np.ones((4, 3, 1, 1)), "a": np.full((4, 4, 1, 1), 1e9), "b": np.full((4, 4, 1, 1), 1e9), "six": np.array(6.0)}
    nodes = [
        helper.make_node("Transpose", ["frame"], ["nchw"], perm=[0, 3, 1, 2]), helper.make_node("Cast", ["nchw"], ["x"], to=1),
        helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Min", ["y", "six"], ["z"]),
        helper.make_node("Conv", ["z", "a"], ["left"]), helper.make_node("Conv", ["z", "b"], ["right"]),
        helper.make_node("Add", ["left", "right"], ["sum"]), helper.make_node("ArgMax", ["sum"], ["argmax"], axis=1, keepdims=0),
        helper.make_node("Cast", ["argmax"], ["class_map"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("class_map", TensorProto.UINT8, [1, 8, 8])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    plain = exported("tensorrt", "fast_scnn")
    (tmp_path / "odd").mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "odd" / plain.manifest.entry)
    made = FP16["tensorrt"](Bundle(tmp_path / "odd", plain.manifest), tmp_path)
    assert made.scheme["kept_fp32"] == ["a", "b"]
    halved_graph = onnx.load(str(tmp_path / made.entry)).graph
    stored = {tensor.name: tensor.data_type for tensor in halved_graph.initializer}
    assert {stored[name] for name in ("a", "b")} == {TensorProto.FLOAT}
    assert {stored[name] for name in ("w", "six")} == {TensorProto.FLOAT16}


def openvino_constants(path: Path) -> dict[str, tuple[str, float]]:
    """Element type and largest magnitude of the float constants of a model, by name."""
    import openvino as ov

    nodes = [node for node in ov.Core().read_model(path).get_ordered_ops() if node.get_type_name() == "Constant"]
    kinds = {node.get_friendly_name(): (node.get_element_type().get_type_name(), np.array(node.data)) for node in nodes}
    return {name: (kind, float(np.abs(values).max(initial=0))) for name, (kind, values) in kinds.items() if kind in ("f32", "f16")}


def test_openvino_keeps_a_class_layer_that_is_half_zeros(tmp_path: Path) -> None:
    """OpenVINO itself clamps it to 65504, since only half of its values are too large."""
    import openvino as ov
    import openvino.opset13 as opset

    bundle = exported("openvino", "fast_scnn")
    model = ov.Core().read_model(bundle.model_path)
    (weights,) = [
        node for node in model.get_ordered_ops()
        if node.get_type_name() == "Constant" and node.data.size >= 64 and node.get_element_type() == ov.Type.f32
        and np.abs(node.data).max() > 65504
    ]
    values = np.array(weights.data)
    values[:, ::2] = 0
    pruned = opset.constant(values)
    pruned.set_friendly_name("class weights")
    for port in weights.output(0).get_target_inputs():
        port.replace_source_output(pruned.output(0))
    (tmp_path / "pruned").mkdir()
    ov.save_model(model, tmp_path / "pruned" / bundle.manifest.entry, compress_to_fp16=False)
    (tmp_path / "work").mkdir()
    made: ModelFiles = FP16["openvino"](Bundle(tmp_path / "pruned", bundle.manifest), tmp_path / "work")
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == sorted(made.files)
    stored = openvino_constants(tmp_path / "work" / made.entry)
    assert "class weights" in made.scheme["kept_fp32"]
    for name in made.scheme["kept_fp32"]:
        assert stored[name] == (openvino_constants(tmp_path / "pruned" / bundle.manifest.entry)[name]), name
    assert all(largest < 65504 for kind, largest in stored.values() if kind == "f16")
    assert sum(kind == "f16" for kind, _ in stored.values()) > 80
    paths, frames = (tmp_path / "pruned" / bundle.manifest.entry, tmp_path / "work" / made.entry), frames_of("fast_scnn", 3, first=9000)
    compiled = [ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) for path in paths]
    before, after = (np.stack([session([frame[None]])[0] for frame in frames]) for session in compiled)
    assert np.mean(before == after) > 0.99
