"""fp16 for TensorRT: an ONNX file whose tensors are fp16, so that what is computed in fp16 stands in the file and nowhere else.

TensorRT 11 takes the arithmetic from the file alone ("strongly typed networks"), and 10 does so too where it is asked. Bytes are cast to
fp16 as they come in; sums within a layer are the runtime's own (fp32 in TensorRT's convolutions and in ONNX Runtime on a CPU). Written by
ONNX Runtime's converter. Not yet seen on hardware.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.vendors import quiet, versions
from quantization.fp16.base import check_fp32, fits

SCHEME: Final[dict[str, Any]] = {"method": "fp16 throughout", "weights": "fp16", "activations": "fp16"}


class TensorRtHalver:
    """`model.onnx` -> `model.onnx`."""

    format = "tensorrt"

    def __call__(self, bundle: Bundle, workdir: Path) -> ModelFiles:
        """See `quantization.fp16.base.Halver`."""
        check_fp32(bundle, self.format)
        onnx = require("onnx", extra="export")
        converter = require("onnxruntime.transformers.float16", extra="export")
        editor = require("onnxruntime.transformers.onnx_model", extra="export")
        path = workdir / "model.onnx"
        with vendor_errors("onnxruntime"), quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of each value below fp16's smallest, which becomes that
            model = onnx.load(str(bundle.model_path))
            _name(model.graph)
            layers, weights = _too_large(onnx, model.graph)
            halved = converter.convert_float_to_float16(model, keep_io_types=True, op_block_list=[], node_block_list=layers)
            _merge_casts(halved.graph)
            editor.OnnxModel(halved).topological_sort(is_deterministic=True)  # it puts its casts at the end
            onnx.checker.check_model(halved, full_check=True)
            onnx.save_model(halved, path)
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format=self.format, precision="fp16",
            scheme={**SCHEME, "kept_fp32": weights}, tools=versions("onnx", "onnxruntime"),
        )


def _name(graph: Any) -> None:  # noqa: ANN401 - an SDK object
    """Give every node a name of its own: by names the converter is told what to leave."""
    taken = {node.name for node in graph.node}
    if len(taken - {""}) < len(graph.node):
        for number, node in enumerate(graph.node):
            node.name = f"node_{number}"


def _merge_casts(graph: Any) -> None:  # noqa: ANN401
    """Keep one cast of a tensor that feeds several layers left in fp32: the converter writes one for each, with the same output."""
    seen: set[str] = set()
    kept = []
    for node in graph.node:
        if node.op_type == "Cast" and node.output[0] in seen:
            continue
        seen |= set(node.output)
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _too_large(onnx: Any, graph: Any) -> tuple[list[str], list[str]]:  # noqa: ANN401 - an SDK module and its object
    """Names of the layers whose weights fp16 cannot hold, which the converter would clamp, and of those weights."""
    large = {
        tensor.name for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and not fits(onnx.numpy_helper.to_array(tensor))
    }
    return sorted(node.name for node in graph.node if large & set(node.input)), sorted(large)
