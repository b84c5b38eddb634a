"""fp16 weights for OpenVINO: its own compression when a model is saved. On a GPU all of it is computed in fp16, on a CPU in float32.

Of a constant that fp16 cannot hold OpenVINO keeps float32 only where three quarters of its values are too large; else it clamps them to
65504 (`ov::pass::CompressFloatConstants`, 2026.2). A class layer that the head's 2^60 was folded into, with weights pruned to 0, would
answer another class. So such constants are put back before the file is done.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.vendors import quiet, versions
from quantization.fp16.base import SCHEME, check_fp32, fits


class OpenVinoHalver:
    """`model.xml` + `model.bin` -> the same two."""

    format = "openvino"

    def __call__(self, bundle: Bundle, workdir: Path) -> ModelFiles:
        """See `quantization.fp16.base.Halver`."""
        check_fp32(bundle, self.format)
        ov = require("openvino", extra="export")
        path = workdir / "model.xml"
        with vendor_errors("openvino"), quiet(), tempfile.TemporaryDirectory(dir=workdir) as scratch:
            model = ov.Core().read_model(bundle.model_path)
            kept = _too_large(model)
            compressed = Path(scratch) / path.name
            ov.save_model(model, compressed, compress_to_fp16=True)
            halved = ov.Core().read_model(compressed)
            _put_back(halved, kept)
            ov.save_model(halved, path, compress_to_fp16=False)
            del halved  # it reads its weights from the scratch folder as long as it lives
        return ModelFiles(
            folder=workdir, files=(path.name, path.with_suffix(".bin").name), entry=path.name, format=self.format, precision="fp16",
            scheme={**SCHEME, "kept_fp32": sorted(kept)}, tools=versions("openvino"),
        )


def _too_large(model: Any) -> dict[str, NDArray[np.float32]]:  # noqa: ANN401 - an SDK object
    """Float32 constants with values that fp16 cannot hold, by name."""
    constants = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    floats = {node.get_friendly_name(): node.data for node in constants if node.get_element_type().get_type_name() == "f32"}
    return {name: np.array(values, dtype=np.float32) for name, values in floats.items() if not fits(values)}


def _put_back(halved: Any, kept: dict[str, NDArray[np.float32]]) -> None:  # noqa: ANN401
    """Make constants float32 again; each is a conversion of the same name now, or still a constant."""
    opset = require("openvino.opset13", extra="export")
    for node in halved.get_ordered_ops():
        name = node.get_friendly_name()
        if node.get_type_name() == "Convert" and name in kept:
            constant = opset.constant(kept[name])
            constant.set_friendly_name(name)
            for port in node.output(0).get_target_inputs():
                port.replace_source_output(constant.output(0))
