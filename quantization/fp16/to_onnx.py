"""fp16 weights for ONNX: constants of convolutions and linear layers in fp16, each with a Cast that runtimes fold away when they load."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.vendors import versions
from quantization.fp16.base import FEWEST, SCHEME, check_fp32, fits

_WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm")


class OnnxHalver:
    """`model.onnx` -> `model.onnx`."""

    format = "onnx"

    def __call__(self, bundle: Bundle, workdir: Path) -> ModelFiles:
        """See `quantization.fp16.base.Halver`."""
        check_fp32(bundle, self.format)
        onnx = require("onnx", extra="export")
        path = workdir / "model.onnx"
        with vendor_errors("onnx"):
            model = onnx.load(str(bundle.model_path))
            kept = _halve(onnx, model.graph)
            onnx.checker.check_model(model, full_check=True)
            onnx.save_model(model, path)
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format=self.format, precision="fp16",
            scheme={**SCHEME, "kept_fp32": kept}, tools=versions("onnx"),
        )


def _halve(onnx: Any, graph: Any) -> list[str]:  # noqa: ANN401 - an SDK module and its object
    """Change the graph; give the names of weights that do not fit."""
    wanted = {name for node in graph.node if node.op_type in _WEIGHTED for name in node.input[1:2]}
    casts, kept = [], []
    for tensor in graph.initializer:
        if tensor.name not in wanted or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < FEWEST:
            continue
        if not fits(values):
            kept.append(tensor.name)
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_fp16"], [name], name=f"{name}_to_fp32", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return sorted(kept)
