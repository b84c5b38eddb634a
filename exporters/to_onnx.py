"""Export to ONNX, for ONNX Runtime (Jetson through TensorRT and CUDA, any CPU)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME, Contract
from edgeseg.core.vendors import quiet, versions
from exporters.tasks import exportable

OPSET = 18
"""Opset 18 and IR 10 at most: what ONNX Runtime 1.18 (JetPack 6) and TensorRT 10 read."""
IR_VERSION = 10


class OnnxExporter:
    """`model.onnx`: one file, weights inside, static shapes."""

    format = "onnx"

    def __call__(self, net: nn.Module, contract: Contract, workdir: Path) -> ModelFiles:
        """See `exporters.base.Exporter`."""
        onnx = require("onnx", extra="export")
        require("onnxscript", extra="export")
        path = workdir / "model.onnx"
        with vendor_errors("torch.onnx"), quiet(), torch.no_grad():
            module = exportable(net, contract, self.format)
            program = torch.onnx.export(
                module, module.example(), dynamo=True, optimize=True, verbose=False, opset_version=OPSET,
                input_names=[INPUT_NAME], output_names=module.output_names,
            )
            assert program is not None  # None only without dynamo
            model = program.model_proto
            model.ir_version = min(model.ir_version, IR_VERSION)
            strip(model)
            onnx.checker.check_model(model, full_check=True)
            onnx.save_model(model, path)
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format=self.format, precision="fp32", scheme={},
            tools=versions("torch", "onnx", "onnxscript"),
        )


def strip(model: object) -> None:
    """Remove what the exporter wrote for debugging: stack traces with this machine's paths, metadata, intermediate shapes."""
    graph = model.graph  # type: ignore[attr-defined]
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("value_info")
    model.ClearField("metadata_props")  # type: ignore[attr-defined]
