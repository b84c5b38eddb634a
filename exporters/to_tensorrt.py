"""Export for TensorRT: an ONNX file with bytes at its ends only. Never an engine: a board builds its own (ADR 0019)."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import Contract
from exporters.to_onnx import OnnxExporter


class TensorRtExporter(OnnxExporter):
    """`model.onnx` that TensorRT takes; ONNX Runtime runs it too, on a CPU slower than the file of format `onnx`."""

    format = "tensorrt"

    def __call__(self, net: nn.Module, contract: Contract, workdir: Path) -> ModelFiles:
        """See `exporters.base.Exporter`."""
        if contract.task != "semantic":
            raise ConfigError("format tensorrt is made of networks that give a class a pixel; for objects choose format onnx")
        return super().__call__(net, contract, workdir)
