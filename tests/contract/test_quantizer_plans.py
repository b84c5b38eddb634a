"""A plan's forced range and its float layers are really in the file, in every format; what a format has not is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_tools import exported, frames_of

from edgeseg.core.errors import ConfigError
from quantization import QUANTIZERS, Int8Plan
from quantization.tensors import TENSORS

NAME = "unet-threshold"
LOW, HIGH = -3.0, 5.0
STEP = (HIGH - LOW) / 255


def onnx_facts(path: Path, layer: str) -> tuple[bool, list[tuple[float, float]]]:
    """Whether the layer's weights are float in the file; scale and zero point of every quantized activation."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    node = next(node for node in graph.node if node.name == layer)
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    is_float = node.input[1] in values and values[node.input[1]].dtype == np.float32
    return is_float, [(float(values[q.input[1]]), float(values[q.input[2]])) for q in quantizers if values[q.input[1]].ndim == 0]


def openvino_facts(path: Path, layer: str) -> tuple[bool, list[tuple[float, float]]]:
    import openvino as ov

    model = ov.Core().read_model(path)
    node = next(node for node in model.get_ops() if node.get_friendly_name() == layer)
    found = []
    for quantizer in (node for node in model.get_ops() if node.get_type_name() == "FakeQuantize"):
        low, high = (quantizer.input_value(i).get_node().data for i in (1, 2))
        if low.size == 1:
            scale = (float(high.reshape(())) - float(low.reshape(()))) / 255
            found.append((scale, -float(low.reshape(())) / scale))
    weights, entering = node.input_value(1).get_node(), node.input_value(0).get_node()
    return weights.get_type_name() == "Constant" and entering.get_type_name() != "FakeQuantize", found


def tflite_facts(path: Path, layer: str) -> tuple[bool, list[tuple[float, float]]]:
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(path.read_bytes()).subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    node = next(op for op in graph.operators if ";".join(names[i] for i in op.outputs) == layer)
    cut = [t.quantization for t in graph.tensors if t.type == schema.TensorType.INT8 and t.quantization is not None]
    found = [(float(q.scale[0]), float(q.zeroPoint[0]) + 128) for q in cut if q.scale is not None and len(q.scale) == 1]
    return graph.tensors[node.inputs[1]].type == schema.TensorType.FLOAT32, found


FACTS: dict[str, Any] = {"onnx": onnx_facts, "openvino": openvino_facts, "tflite": tflite_facts, "tensorrt": onnx_facts}
CUT: dict[str, tuple[float, float]] = {"tensorrt": (2 * HIGH / 254, 0)}
"""Scale and zero point of the range (LOW, HIGH) where they are not those of 256 steps from LOW: symmetric ranges."""
pytestmark = pytest.mark.parametrize("format", QUANTIZERS)


def test_forced_range_and_float_layer_are_in_the_file(format: str, tmp_path: Path) -> None:
    bundle = exported(format, NAME)
    writer = QUANTIZERS[format].prepare(bundle, frames_of(NAME, 2, first=5000))
    first_layers = [layer for layer in TENSORS[format].layers(bundle) if layer not in writer.layers][:1] if format == "tensorrt" else []
    kept, ranged = (*first_layers, *writer.layers)[1], (*first_layers, *writer.layers)[3]  # the same convolutions in every format
    plain, mixed = tmp_path / "plain", tmp_path / "mixed"
    for folder in (plain, mixed):
        folder.mkdir()
    first = writer.write(Int8Plan(), plain)
    assert first.precision == "int8"
    step, zero_point = CUT.get(format, (STEP, round(-LOW / STEP)))
    is_float, scales = FACTS[format](plain / first.entry, kept.name)
    assert not is_float
    assert not any(scale == pytest.approx(step, rel=1e-4) for scale, _ in scales)
    second = writer.write(Int8Plan(float_layers=(kept.name,), ranges={ranged.inputs[0]: (LOW, HIGH)}), mixed)
    assert second.precision == "mixed"
    assert second.scheme["float_layers"] == [kept.name]
    assert second.scheme["ranges_given"] == 1
    is_float, scales = FACTS[format](mixed / second.entry, kept.name)
    assert is_float
    zeros = [zero for scale, zero in scales if scale == pytest.approx(step, rel=1e-4)]
    assert zeros == [pytest.approx(zero_point, abs=1e-3)] * (2 if format == "tensorrt" else 1)  # there a pooling keeps its input's range
    assert not FACTS[format](mixed / second.entry, ranged.name)[0]


def test_layers_and_activations_belong_together(format: str) -> None:
    bundle = exported(format, NAME)
    layers = TENSORS[format].layers(bundle)
    found = list(TENSORS[format].observe(bundle, frames_of(NAME, 2, first=5000)))
    assert len(found) == 2
    assert not np.array_equal(found[0][layers[1].outputs[0]], found[1][layers[1].outputs[0]])
    for layer in layers:
        assert layer.macs > 0
        assert all(name in found[0] for name in (*layer.inputs, *layer.outputs))
    some = [layers[2].outputs[0], layers[0].outputs[0]]
    (only,) = TENSORS[format].observe(bundle, frames_of(NAME, 1, first=5000), some)
    assert list(only) == some[::-1]
    assert np.array_equal(only[some[0]], found[0][some[0]])
    with pytest.raises(ConfigError, match="no float tensor 'nonsense'"):
        list(TENSORS[format].observe(bundle, [], ["nonsense"]))


def test_what_is_not_there_is_refused(format: str, tmp_path: Path) -> None:
    writer = QUANTIZERS[format].prepare(exported(format, NAME), frames_of(NAME, 1, first=5000))
    for plan, message in (
        (Int8Plan(float_layers=("nonsense",)), "float layer 'nonsense' is not in the graph"),
        (Int8Plan(calibrator="nonsense"), "calibrator 'nonsense' is unknown"),
        (Int8Plan(ranges={"nonsense": (0, 1)}), "none of the 1 ranges"),
    ):
        with pytest.raises(ConfigError, match=message):
            writer.write(plan, tmp_path)
    assert not list(tmp_path.iterdir())
