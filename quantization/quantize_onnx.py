"""Int8 for ONNX Runtime: static QDQ, uint8 activations, int8 weights per output channel.

Chosen by measurement (one thread, x86-64 with VNNI): int8 activations cost 1.3 times as much as uint8 ones. Jacob et al. 2018,
arXiv:1712.05877, has the arithmetic; every quantized convolution becomes one QLinearConv.

The ranges are ours (`quantization.ranges`), handed over as the calibration cache that `quantize_static` reads: ONNX Runtime's own
histograms keep every activation of every frame in memory (3.5 GB for Fast-SCNN with 32 frames of 360x480).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import FRAME_END, INPUT_NAME, OUTPUT_NAME
from edgeseg.core.vendors import quiet, versions
from quantization.base import FLOAT_REASON, Int8Writer, check_request, plan_facts, resolve
from quantization.calibrators import Ranges
from quantization.graph_onnx import read_pixels_in_blocks
from quantization.instances import FLOAT_REASON as INSTANCE_REASON
from quantization.instances import Operation, float_operations
from quantization.plan import AUTO, Int8Plan
from quantization.pools_onnx import pools_as_convolutions
from quantization.ranges import RangeFinder, check_float_layers
from quantization.tensors import TENSORS
from quantization.tensors.onnx import activations, float_activations

_CONVOLUTIONS = ("Conv", "ConvTranspose")
OFFERS = tuple(
    Int8Plan(calibrator=name)
    for name in ("mean of the frames' min-max", "percentile 99.99", "min-max", "percentile 99.9", "squared error", "entropy")
)


class OnnxQuantizer:
    """`model.onnx` -> int8 `model.onnx`."""

    format = "onnx"
    offers = OFFERS

    def prepare(self, bundle: Bundle, frames: Sequence[Frame]) -> Int8Writer:
        """See `quantization.base.Quantizer`."""
        check_request(bundle, frames, self.format)
        return OnnxWriter(bundle, frames)

    def __call__(self, bundle: Bundle, frames: Sequence[Frame], workdir: Path, *, plan: Int8Plan = AUTO) -> ModelFiles:
        """See `quantization.base.Quantizer`."""
        return self.prepare(bundle, frames).write(plan, workdir)


class OnnxWriter:
    """See `quantization.base.Int8Writer`."""

    activation_type = "QUInt8"
    float_reason = FLOAT_REASON
    pools_to_convolutions = True
    """ONNX Runtime's int8 kernels on a CPU want it so (`quantization.pools_onnx`)."""

    def __init__(self, bundle: Bundle, frames: Sequence[Frame]) -> None:
        self.bundle, self.num_frames = bundle, len(frames)
        self.instances = bundle.manifest.contract.task == "instance"
        model = require("onnx", extra="export").load(str(bundle.model_path))
        graph = model.graph
        self.floats = _float_nodes_of_instances(graph) if self.instances else self.float_nodes(graph)
        self.raw = _raw_frame(graph)
        self.layers = tuple(layer for layer in TENSORS[bundle.manifest.format].layers(bundle) if layer.name not in self.floats)
        touched = {name for node in graph.node if node.name not in self.floats for name in (*node.input, *node.output)}
        self.ranges = RangeFinder(bundle, frames, [name for name in float_activations(model) if name in touched])

    def write(self, plan: Int8Plan, workdir: Path) -> ModelFiles:
        """See `quantization.base.Int8Writer`."""
        plan = resolve(plan, OFFERS)
        floats = check_float_layers(plan, self.layers, self.floats)
        path = workdir / "model.onnx"
        with vendor_errors("onnxruntime.quantization"), quiet():
            self._quantize(plan, self.ranges.find(plan), sorted(self.floats | self._with_followers(floats)), path)
        scheme = {
            **plan_facts(plan, floats, used=self.ranges.names), "form": "QDQ", "activations": self.activation_words(plan),
            "num_frames": self.num_frames, "frame": "as it is, scale 1, zero point 0" if self.raw else "float, then quantized",
            "float_ops": sorted(self.floats), "float_reason": INSTANCE_REASON if self.instances else self.float_reason,
        }
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format=self.bundle.manifest.format,
            precision="mixed" if floats else "int8", scheme=scheme, tools=versions("onnx", "onnxruntime"),
        )

    def float_nodes(self, graph: Any) -> set[str]:  # noqa: ANN401
        """Names of the nodes that stay float."""
        return _float_nodes(graph)

    def activation_words(self, plan: Int8Plan) -> str:
        """What the manifest says of activations."""
        return f"uint8, per tensor, {plan.activations}"

    def extra_options(self) -> dict[str, Any]:
        """Of `quantize_static`."""
        return {"TensorQuantOverrides": _as_it_is(self.raw)} if self.raw else {}

    def _with_followers(self, layers: Sequence[str]) -> set[str]:
        """Float layers, and the operations without weights that only they feed: between two of them nothing is rounded."""
        graph = require("onnx", extra="export").load(str(self.bundle.model_path)).graph
        weighted, moving = {layer.name for layer in self.layers}, set(activations(graph))
        producer = {output: node.name for node in graph.node for output in node.output}
        found = set(layers)
        for node in graph.node:
            sources = [producer[name] for name in node.input if name in moving]
            if node.name not in weighted and sources and all(source in found for source in sources):
                found.add(node.name)
        return found

    def _quantize(self, plan: Int8Plan, ranges: dict[str, Ranges], excluded: list[str], output: Path) -> None:
        onnx, ort_quantization = require("onnx", extra="export"), require("onnxruntime.quantization", extra="export")
        float_model = onnx.load(str(self.bundle.model_path))
        if self.pools_to_convolutions:
            pools_as_convolutions(float_model)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".ranges-", suffix=".tmp") as folder:
            cache = Path(folder) / "ranges.json"
            _write_cache(ranges, cache)
            ort_quantization.quantize_static(
                float_model, str(output), None, quant_format=ort_quantization.QuantFormat.QDQ,
                activation_type=ort_quantization.QuantType[self.activation_type], weight_type=ort_quantization.QuantType.QInt8,
                per_channel=plan.weights == "per-channel", calibrate_method=ort_quantization.CalibrationMethod.MinMax,
                nodes_to_exclude=excluded, extra_options=self.extra_options(),
                calibration_cache_path=cache,
            )
        model = onnx.load(str(output))
        if self.raw:
            _feed_uint8(model.graph, self.raw)
        read_pixels_in_blocks(model)
        for node in model.graph.node:
            node.ClearField("doc_string")
        model.graph.ClearField("value_info")
        onnx.checker.check_model(model, full_check=True)
        onnx.save_model(model, str(output))


def _write_cache(ranges: dict[str, Ranges], path: Path) -> None:
    """Write ranges as onnxruntime's calibration cache."""
    calibrate = require("onnxruntime.quantization.calibrate", extra="export")
    data = {name: (np.array(low_K[0], np.float32), np.array(high_K[0], np.float32)) for name, (low_K, high_K) in ranges.items()}
    calibrate.save_tensors_data(calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, data), path)


def _float_nodes(graph: Any) -> set[str]:  # noqa: ANN401
    """Names of the nodes that stay float: back from the answer to the class layers, those included, and what feeds an import."""
    producer = {output: node for node in graph.node for output in node.output}
    found: set[str] = set()
    pending = [OUTPUT_NAME]
    while pending:
        node = producer.get(pending.pop())
        if node is None or node.name in found:
            continue
        found.add(node.name)
        if node.op_type not in _CONVOLUTIONS:
            pending += node.input
    return found | {node.name for node in graph.node if node.name.startswith(FRAME_END)}


def _float_nodes_of_instances(graph: Any) -> set[str]:  # noqa: ANN401
    """The same for an instance model; see `quantization.instances`."""
    producer = {output: node.name for node in graph.node for output in node.output}
    operations = {
        node.name: Operation(
            tuple(producer[name] for name in node.input if name in producer), weighted=node.op_type in (*_CONVOLUTIONS, "Gemm"),
            selects=node.op_type == "TopK",
        )
        for node in graph.node
    }
    return float_operations(operations, [producer[output.name] for output in graph.output])


def _raw_frame(graph: Any) -> str | None:  # noqa: ANN401
    """Name of the tensor that holds the frame's values 0..255 as floats and enters convolutions only; None where there is none."""
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    tensor = INPUT_NAME
    while len(consumers.get(tensor, ())) == 1 and consumers[tensor][0].op_type in ("Concat", "Transpose"):
        tensor = consumers[tensor][0].output[0]
    casts = consumers.get(tensor, [])
    if len(casts) != 1 or casts[0].op_type != "Cast":
        return None
    values: str = casts[0].output[0]
    return values if all(node.op_type == "Conv" for node in consumers.get(values, [])) else None


def _as_it_is(tensor: str) -> dict[str, list[dict[str, Any]]]:
    return {tensor: [{"scale": np.array(1.0, np.float32), "zero_point": np.array(0, np.uint8)}]}


def _feed_uint8(graph: Any, values: str) -> None:  # noqa: ANN401
    """Replace Cast -> QuantizeLinear with scale 1 by the uint8 frame itself."""
    cast = next(node for node in graph.node if values in node.output)
    quantize = next((node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == values), None)
    if quantize is None:  # a plan keeps the first layers float
        return
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == quantize.output[0]:
                node.input[index] = cast.input[0]
    graph.node.remove(quantize)
    if not any(values in node.input for node in graph.node):
        graph.node.remove(cast)
