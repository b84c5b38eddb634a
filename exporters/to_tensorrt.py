"""Export for TensorRT: an ONNX file with bytes at its ends only. Never an engine: a board builds its own (ADR 0019)."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import Contract, why_not_made
from exporters.to_onnx import OnnxExporter


class TensorRtExporter(OnnxExporter):
    """`model.onnx` that TensorRT takes; ONNX Runtime runs it too, on a CPU slower than the file of format `onnx`."""

    format = "tensorrt"

    def __call__(self, net: nn.Module, contract: Contract, workdir: Path) -> ModelFiles:
        """See `exporters.base.Exporter`."""
        if why := why_not_made(self.format, contract.task):
            raise ConfigError(why)
        return super().__call__(net, contract, workdir)
