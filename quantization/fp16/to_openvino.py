"""fp16 weights for OpenVINO: its own compression when a model is saved. On a GPU all of it is computed in fp16, on a CPU in float32."""

from __future__ import annotations

from pathlib import Path

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.vendors import quiet, versions
from quantization.fp16.base import SCHEME, check_fp32


class OpenVinoHalver:
    """`model.xml` + `model.bin` -> the same two; OpenVINO itself leaves constants that fp16 cannot hold."""

    format = "openvino"

    def __call__(self, bundle: Bundle, workdir: Path) -> ModelFiles:
        """See `quantization.fp16.base.Halver`."""
        check_fp32(bundle, self.format)
        ov = require("openvino", extra="export")
        path = workdir / "model.xml"
        with vendor_errors("openvino"), quiet():
            ov.save_model(ov.Core().read_model(bundle.model_path), path, compress_to_fp16=True)
        return ModelFiles(
            folder=workdir, files=(path.name, path.with_suffix(".bin").name), entry=path.name, format=self.format, precision="fp16",
            scheme=dict(SCHEME), tools=versions("openvino"),
        )
