"""Export to TFLite, for LiteRT (Raspberry Pi, phones, microcontrollers' bigger siblings)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME, OUTPUT_NAME, Contract
from edgeseg.core.vendors import quiet, versions
from exporters.base import Exportable


class Named(nn.Module):
    """Give the signature's output its name."""

    def __init__(self, exportable: Exportable) -> None:
        super().__init__()
        self.exportable = exportable.eval()
        self.eval()

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        """Answer one frame."""
        return {OUTPUT_NAME: self.exportable(frame)}


class TfliteExporter:
    """`model.tflite`: one input, one output, one signature."""

    format = "tflite"

    def __call__(self, net: nn.Module, contract: Contract, workdir: Path) -> ModelFiles:
        """See `exporters.base.Exporter`."""
        path = workdir / "model.tflite"
        with vendor_errors("litert_torch"), quiet(), torch.no_grad():
            litert_torch = require("litert_torch", extra="export")
            module = Named(Exportable(net, contract, self.format))
            frame = module.exportable.example()[0]
            litert_torch.convert(module, sample_kwargs={INPUT_NAME: frame}).export(str(path))
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format=self.format, precision="fp32", scheme={},
            tools=versions("torch", "litert-torch", "ai-edge-litert"),
        )
