"""Int8 for ONNX Runtime: static QDQ, uint8 activations, int8 weights per output channel.

Chosen by measurement (one thread, x86-64 with VNNI): int8 activations cost 1.3 times as much as uint8 ones. Jacob et al. 2018,
arXiv:1712.05877, has the arithmetic; every quantized convolution becomes one QLinearConv.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import DETECTIONS_NAME, FRAME_END, INPUT_NAME, OUTPUT_NAME
from edgeseg.core.vendors import quiet, versions
from quantization.base import FLOAT_REASON, check_request
from quantization.instances import FLOAT_REASON as INSTANCE_REASON
from quantization.instances import Operation, float_operations
from quantization.instances_onnx import equal_objects, find_objects
from quantization.onnx_calibrators import Calibrator, choose

_CONVOLUTIONS = ("Conv", "ConvTranspose")


class OnnxQuantizer:
    """`model.onnx` -> int8 `model.onnx`."""

    format = "onnx"

    def __call__(self, bundle: Bundle, frames: Sequence[Frame], workdir: Path) -> ModelFiles:
        """See `quantization.base.Quantizer`."""
        check_request(bundle, frames, self.format)
        path, instances = workdir / "model.onnx", bundle.manifest.contract.task == "instance"
        write = Int8Writer(bundle.model_path)
        with vendor_errors("onnxruntime.quantization"), quiet():
            if instances:
                ask = partial(find_objects, num_classes=len(bundle.manifest.classes))
                calibrator, candidate, shares = choose(write, bundle.model_path, frames, workdir, ask=ask, alike=equal_objects)
            else:
                calibrator, candidate, shares = choose(write, bundle.model_path, frames, workdir)
            candidate.replace(path)
        scheme = {
            "method": "post-training, static", "form": "QDQ", "activations": "uint8, per tensor, asymmetric",
            "weights": "int8, per output channel, symmetric", "calibrator": calibrator, "num_frames": len(frames),
            "calibrators_tried": {name: round(share, 6) for name, share in shares.items()},
            "calibrators_judged_by": f"share of {'objects' if instances else 'pixels'} as fp32, on calibration frames held out",
            "frame": "as it is, scale 1, zero point 0" if write.raw else "float, then quantized",
            "float_ops": sorted(write.floats), "float_reason": INSTANCE_REASON if instances else FLOAT_REASON,
        }
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format=self.format, precision="int8", scheme=scheme,
            tools=versions("onnx", "onnxruntime"),
        )


class Int8Writer:
    """Writes int8 models of one fp32 ONNX file: `(calibrator, frames, output)`."""

    def __init__(self, fp32: Path) -> None:
        self.fp32 = fp32
        graph = require("onnx", extra="export").load(str(fp32)).graph
        instances = any(output.name == DETECTIONS_NAME for output in graph.output)
        self.floats = _float_nodes_of_instances(graph) if instances else _float_nodes(graph)
        self.raw = _raw_frame(graph)

    def __call__(self, calibrator: Calibrator, frames: Sequence[Frame], output: Path) -> None:
        """Calibrate on `frames` and write `output`."""
        onnx, ort_quantization = require("onnx", extra="export"), require("onnxruntime.quantization", extra="export")
        ort_quantization.quantize_static(
            onnx.load(str(self.fp32)), str(output), _Reader(frames), quant_format=ort_quantization.QuantFormat.QDQ,
            activation_type=ort_quantization.QuantType.QUInt8, weight_type=ort_quantization.QuantType.QInt8, per_channel=True,
            calibrate_method=ort_quantization.CalibrationMethod[calibrator.method], nodes_to_exclude=sorted(self.floats),
            extra_options={**calibrator.options, **({"TensorQuantOverrides": _as_it_is(self.raw)} if self.raw else {})},
        )
        model = onnx.load(str(output))
        if self.raw:
            _feed_uint8(model.graph, self.raw)
        for node in model.graph.node:
            node.ClearField("doc_string")
        model.graph.ClearField("value_info")
        onnx.checker.check_model(model, full_check=True)
        onnx.save_model(model, str(output))


class _Reader:
    """Frames as onnxruntime's CalibrationDataReader wants them: `get_next` gives the inputs or None."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._inputs: Iterator[dict[str, Any]] = iter({INPUT_NAME: frame[None]} for frame in frames)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._inputs


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
    quantize = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == values)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == quantize.output[0]:
                node.input[index] = cast.input[0]
    graph.node.remove(quantize)
    if not any(values in node.input for node in graph.node):
        graph.node.remove(cast)
