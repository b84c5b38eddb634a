"""What runtimes execute in int8, read back from them: real int8 files, and files that are int8 in name only."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from export_tools import CASES, RUNTIME_OF, exported, quantized, trained
from tiny_models import tiny_bundle

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, seal_bundle
from edgeseg.core.errors import BundleError, TargetError
from edgeseg.models.macs import count_macs
from targets import onnx_file
from targets.executed import EXECUTED, executed, executed_facts
from targets.executed.base import ExecutedLayer, ExecutedPrecision, split_head, why_not_int8
from targets.executed.gains import GAINS, without_gain
from targets.onnx_file import read_onnx, with_outputs
from targets.runtimes import RUNTIMES, RuntimeOptions, own_arithmetic

ONE_THREAD = RuntimeOptions(num_threads=1)


def test_every_runtime_with_an_sdk_shows_what_it_executes() -> None:
    assert set(EXECUTED) == set(RUNTIMES) - {"null", "tensorrt"}  # an engine cannot be looked into


FORMATS = [format for format in RUNTIME_OF if format != "tensorrt"]
"""ONNX Runtime has int32 biases in int8 and those of format tensorrt are float: it gives its answers in float arithmetic."""


@pytest.mark.parametrize("format", FORMATS)
def test_an_int8_bundle_runs_in_int8(format: str) -> None:
    bundle, _ = quantized(format, "fast_scnn")
    found = executed(bundle, RUNTIME_OF[format], ONE_THREAD)
    assert found is not None
    case = CASES["fast_scnn"]
    macs = count_macs(trained("fast_scnn"), (case.contract.height, case.contract.width))
    assert macs <= sum(layer.macs for layer in found.layers) < 1.25 * macs  # an int8 file may pad the frame's three channels
    assert found.share_int8 is not None
    assert found.share_int8 > 0.9
    for layer in found.layers:
        assert layer.precision == "int8" or "kept float" in layer.reason


@pytest.mark.parametrize("format", FORMATS)
def test_float_under_the_name_int8_is_seen(format: str) -> None:
    """A float file whose manifest says int8: what the runtime executes decides, not the name."""
    bundle = exported(format, "fast_scnn")
    named = Bundle(bundle.folder, dataclasses.replace(bundle.manifest, precision="int8"))
    found = executed(named, RUNTIME_OF[format], ONE_THREAD)
    assert found is not None
    assert found.share_int8 == 0
    assert {layer.precision for layer in found.layers} == {"f32"}
    case = CASES["fast_scnn"]
    assert sum(layer.macs for layer in found.layers) == count_macs(trained("fast_scnn"), (case.contract.height, case.contract.width))
    facts = found.to_json()
    assert len(facts["not_int8"]) == len(found.layers)
    assert sum(one["share"] for one in facts["not_int8"]) == pytest.approx(1)
    assert all(one["reason"] == "float in the file" for one in facts["not_int8"])


def test_openvinos_own_choice_is_seen() -> None:
    own = own_arithmetic("openvino")
    if own == "f32":
        pytest.skip("OpenVINO computes in f32 on this processor")
    found = executed(exported("openvino", "fast_scnn"), "openvino", RuntimeOptions(num_threads=1, precision_hint=own))
    assert found is not None
    assert {layer.precision for layer in found.layers} == {own}


def test_a_quantized_file_whose_layer_the_runtime_runs_in_float(tmp_path) -> None:  # noqa: ANN001
    """8-bit weights, but activations that stay float: ONNX Runtime cannot fuse that, and says so in its profile."""
    onnx = pytest.importorskip("onnx")

    def write(folder, height: int, width: int) -> tuple[str, ...]:  # noqa: ANN001
        helper, tensors = onnx.helper, onnx.TensorProto
        weight = onnx.numpy_helper.from_array(np.full((3, 3, 1, 1), 5, np.int8), "weight")
        scale = onnx.numpy_helper.from_array(np.array(0.1, np.float32), "scale")
        nodes = [
            helper.make_node("Cast", ["frame"], ["real"], to=tensors.FLOAT),
            helper.make_node("Transpose", ["real"], ["x"], perm=[0, 3, 1, 2]),
            helper.make_node("DequantizeLinear", ["weight", "scale"], ["weight_real"]),
            helper.make_node("Conv", ["x", "weight_real"], ["scores"], name="layer"),
            helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
            helper.make_node("Cast", ["index"], ["class_map"], to=tensors.UINT8),
        ]
        graph = helper.make_graph(
            nodes, "mixed", [helper.make_tensor_value_info("frame", tensors.UINT8, [1, height, width, 3])],
            [helper.make_tensor_value_info("class_map", tensors.UINT8, [1, height, width])], [weight, scale],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx")
        return ("model.onnx",)

    found = executed(tiny_bundle(tmp_path, "onnx", precision="int8", write=write), "onnxruntime", ONE_THREAD)
    assert found is not None
    assert found.share_int8 == 0
    assert found.layers[0].reason.startswith("int8 in the file, and the runtime chose f32: Conv of float")
    assert found.layers[0].macs == 24 * 32 * 9


def test_the_null_runtime_has_nothing_to_show(tmp_path) -> None:  # noqa: ANN001
    bundle = tiny_bundle(tmp_path, "null")
    assert executed(bundle, "null", ONE_THREAD) is None
    assert executed_facts(bundle, "null", ONE_THREAD) is None


def test_another_format_is_refused_and_recorded_as_not_known(tmp_path) -> None:  # noqa: ANN001
    bundle = tiny_bundle(tmp_path, "null")
    with pytest.raises(TargetError, match="openvino does not run null"):
        executed(bundle, "openvino", ONE_THREAD)
    facts = executed_facts(bundle, "openvino", ONE_THREAD)
    assert facts is not None
    assert facts["share_int8"] is None
    assert "openvino does not run null" in facts["source"]


@pytest.mark.parametrize("error", [IndexError("list index out of range"), KeyError("input_type_shape"), StopIteration(), OSError("gone")])
def test_a_reader_that_breaks_does_not_take_a_finished_measurement_along(
    error: Exception, tmp_path, monkeypatch: pytest.MonkeyPatch,  # noqa: ANN001
) -> None:
    def breaks(bundle: Bundle, options: RuntimeOptions) -> ExecutedPrecision:
        raise error

    monkeypatch.setitem(EXECUTED, "onnxruntime", breaks)
    facts = executed_facts(tiny_bundle(tmp_path, "onnx", write=_float_convolutions("constant")), "onnxruntime", ONE_THREAD)
    assert facts is not None
    assert facts["share_int8"] is None
    assert facts["source"].startswith("not known: ")


def _float_convolutions(weights_by: str):  # noqa: ANN202
    """A writer of a 1x1 convolution of 3 to 9 channels with an initializer, and one of 9 to 3 whose weight is made in another way."""
    onnx = pytest.importorskip("onnx")

    def write(folder, height: int, width: int) -> tuple[str, ...]:  # noqa: ANN001
        helper, tensors, array = onnx.helper, onnx.TensorProto, onnx.numpy_helper.from_array
        values = np.random.default_rng(0).normal(size=(3, 9, 1, 1)).astype(np.float32)
        given = [array(np.ones((9, 3, 1, 1), np.float32), "first")]
        made = {
            "constant": ([], [helper.make_node("Constant", [], ["second"], value=array(values))]),
            "identity": ([array(values, "held")], [helper.make_node("Identity", ["held"], ["second"])]),
            "transpose": (
                [array(np.ascontiguousarray(values.transpose(1, 0, 2, 3)), "held")],
                [helper.make_node("Transpose", ["held"], ["second"], perm=[1, 0, 2, 3])],
            ),
            "reshape": (
                [array(values.reshape(3, 9), "held"), array(np.array([0, -1, 1, 1], np.int64), "sizes")],
                [helper.make_node("Reshape", ["held", "sizes"], ["second"])],
            ),
            "concat": (
                [array(values[:1], "top"), array(values[1:], "rest")], [helper.make_node("Concat", ["top", "rest"], ["second"], axis=0)],
            ),
        }[weights_by]
        nodes = [
            helper.make_node("Cast", ["frame"], ["real"], to=tensors.FLOAT),
            helper.make_node("Transpose", ["real"], ["x"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["x", "first"], ["wide"], name="first_layer"),
            *made[1],
            helper.make_node("Conv", ["wide", "second"], ["scores"], name="second_layer"),
            helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
            helper.make_node("Cast", ["index"], ["class_map"], to=tensors.UINT8),
        ]
        graph = helper.make_graph(
            nodes, "made", [helper.make_tensor_value_info("frame", tensors.UINT8, [1, height, width, 3])],
            [helper.make_tensor_value_info("class_map", tensors.UINT8, [1, height, width])], [*given, *made[0]],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx")
        return ("model.onnx",)

    return write


@pytest.mark.parametrize("weights_by", ["constant", "identity", "transpose", "reshape"])
def test_a_weight_is_found_behind_the_nodes_that_make_it(weights_by: str, tmp_path) -> None:  # noqa: ANN001
    found = executed(tiny_bundle(tmp_path, "onnx", write=_float_convolutions(weights_by)), "onnxruntime", ONE_THREAD)
    assert found is not None
    assert [(layer.name, layer.precision, layer.macs) for layer in found.layers] == [
        ("first_layer", "f32", 24 * 32 * 27), ("second_layer", "f32", 24 * 32 * 27),
    ]
    assert found.share_int8 == 0


def test_no_share_where_the_size_of_a_layer_is_not_known(tmp_path) -> None:  # noqa: ANN001
    found = executed(tiny_bundle(tmp_path, "onnx", write=_float_convolutions("concat")), "onnxruntime", ONE_THREAD)
    assert found is not None
    assert [(layer.name, layer.macs) for layer in found.layers] == [("first_layer", 24 * 32 * 27), ("second_layer", 0)]
    assert "their shape cannot be read" in found.layers[1].reason
    assert found.share_int8 is None


def _layer(name: str, kind: str, precision: str = "int8") -> ExecutedLayer:
    return ExecutedLayer(name=name, kind=kind, precision=precision, macs=10)


def test_the_head_is_what_follows_the_last_convolution_or_carries_its_name() -> None:
    layers = [
        _layer("fc", "linear"), _layer("__module.head/x", "product"), _layer("__module.head/scaled", "convolution"), _layer("m", "product"),
    ]
    own, head = split_head(layers, "semantic")
    assert [one.name for one in own] == ["fc", "__module.head/scaled"]
    assert [one.name for one in head] == ["__module.head/x", "m"]
    assert split_head(layers, "instance")[1] == ()


def test_no_share_where_a_layer_is_not_visible() -> None:
    shown = ExecutedPrecision(layers=(_layer("a", "convolution"), _layer("b", "convolution", "not visible")), source="x")
    assert shown.share_int8 is None
    assert ExecutedPrecision(layers=(), source="x").share_int8 is None


def test_why_in_words(tmp_path) -> None:  # noqa: ANN001
    work = tmp_path / "work"
    work.mkdir()
    (work / "m").write_text("{}")
    model = ModelFiles(
        folder=work, files=("m",), entry="m", format="null", precision="mixed", tools={},
        scheme={"float_layers": ["a"], "float_reason": "why"},
    )
    info = BundleInfo(
        name="x", contract=CASES["fast_scnn"].contract, classes=("a", "b"), palette=((0, 0, 0), (1, 1, 1)), reference=None, parents=(),
        config_sha256="0" * 64,
    )
    bundle = seal_bundle(tmp_path / "b", model, info, golden_frames=[], answer=lambda _: ("none", lambda frame: frame[:, :, 0]))
    assert why_not_int8(bundle, "a", "f32", int8_in_file=False) == "mixed: kept float by the rescue ladder"
    assert why_not_int8(bundle, "b", "f32", int8_in_file=False) == "kept float by the quantizer (why)"
    assert why_not_int8(bundle, "b", "f32", int8_in_file=True, near="fed by Resize") == (
        "int8 in the file, and the runtime chose f32: fed by Resize"
    )


def test_the_small_onnx_reader_agrees_with_onnx() -> None:
    onnx = pytest.importorskip("onnx")
    path = exported("onnx", "fast_scnn").model_path
    graph, model = read_onnx(path.read_bytes()), onnx.load(str(path)).graph
    assert [(n.name, n.kind, n.inputs, n.outputs) for n in graph.nodes] == [
        (n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in model.node
    ]
    given = {node.output[0]: a.t for node in model.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"}
    held = {**{tensor.name: tensor for tensor in model.initializer}, **given}
    assert {name: (c.shape, c.dtype) for name, c in graph.constants.items()} == {n: (tuple(t.dims), t.data_type) for n, t in held.items()}
    for name, constant in graph.constants.items():
        integers = onnx.numpy_helper.to_array(held[name]).ravel().tolist() if constant.dtype == onnx.TensorProto.INT64 else []
        assert list(constant.integers) == integers
    for mine, theirs in zip(graph.nodes, model.node, strict=True):
        for attribute in theirs.attribute:
            value = onnx.helper.get_attribute_value(attribute)
            if isinstance(value, bytes):
                assert mine.attributes[attribute.name] == value.decode()
            elif isinstance(value, (int, float)):
                assert mine.attributes[attribute.name] == pytest.approx(value)
            elif isinstance(value, (list, tuple)) and value and isinstance(value[0], (int, float)):
                assert mine.attributes[attribute.name] == pytest.approx(tuple(value))


def test_added_outputs_can_be_asked_for() -> None:
    import onnxruntime as ort

    bundle = exported("onnx", "fast_scnn")
    data = bundle.model_path.read_bytes()
    inner = next(node.outputs[0] for node in read_onnx(data).nodes if node.kind == "Conv")
    session = ort.InferenceSession(with_outputs(data, (inner,)), providers=["CPUExecutionProvider"])
    assert [port.name for port in session.get_outputs()] == ["class_map", inner]


def test_the_file_is_read_once_however_many_outputs_are_added(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    data = tiny_bundle(tmp_path, "onnx", write=_float_convolutions("constant")).model_path.read_bytes()
    names = tuple(node.outputs[0] for node in read_onnx(data).nodes)
    read: list[int] = []

    def counted(data: bytes) -> onnx_file.OnnxGraph:
        read.append(len(data))
        return read_onnx(data)

    monkeypatch.setattr(onnx_file, "read_onnx", counted)
    assert set(names) <= set(read_onnx(with_outputs(data, names)).outputs)
    assert len(read) == 1


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", b"\x3a\x05ab", b"not a model at all"])
def test_bytes_that_are_no_onnx_file(data: bytes) -> None:
    with pytest.raises(BundleError, match="no ONNX file"):
        read_onnx(data)


def test_kinds_that_int8_does_not_make_faster_are_named_with_their_share() -> None:
    layers = (
        ExecutedLayer(name="a", kind="convolution", precision="int8", macs=60),
        ExecutedLayer(name="b", kind="depthwise", precision="int8", macs=30),
        ExecutedLayer(name="c", kind="depthwise", precision="f32", macs=10),
    )
    found = ExecutedPrecision(layers=layers, source="here")
    (only,) = without_gain(found, "onnxruntime")
    assert (only["kind"], only["share"], only["version"]) == ("depthwise", 0.3, GAINS["onnxruntime"].version)
    assert only["gain"] < 1
    assert [one["kind"] for one in without_gain(found, "litert")] == ["depthwise"]
    assert without_gain(found, "a runtime nobody measured") == []


def test_what_int8_gains_is_known_for_every_runtime_that_shows_its_layers() -> None:
    assert set(EXECUTED) - set(GAINS) == {"tflite_runtime"}  # the same kernels as litert, years older; not measured
