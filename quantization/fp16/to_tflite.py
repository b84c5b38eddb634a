"""fp16 weights for LiteRT: ai-edge-quantizer's float casting; XNNPACK converts the weights when it loads and computes in float32."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.vendors import quiet, versions
from quantization.fp16.base import SCHEME, check_fp32, fits
from quantization.tensors.tflite import KINDS

_HEAD = "/exporters.head."
"""The decision head stays: its products hold powers of two that fp16 has no room for."""


class TfliteHalver:
    """`model.tflite` -> `model.tflite`."""

    format = "tflite"

    def __call__(self, bundle: Bundle, workdir: Path) -> ModelFiles:
        """See `quantization.fp16.base.Halver`."""
        check_fp32(bundle, self.format)
        path = workdir / "model.tflite"
        with vendor_errors("ai_edge_quantizer"), quiet():
            module = require("ai_edge_quantizer.quantizer", extra="export")
            qtyping = require("ai_edge_quantizer.qtyping", extra="export")
            algorithm = require("ai_edge_quantizer.algorithm_manager", extra="export").AlgorithmName
            operation = qtyping.TFLOperationName
            quantizer = module.Quantizer(str(bundle.model_path))
            for kind in (operation.CONV_2D, operation.DEPTHWISE_CONV_2D, operation.CONV_2D_TRANSPOSE, operation.FULLY_CONNECTED):
                quantizer.add_weight_only_config(".*", kind, num_bits=16, algorithm_key=algorithm.FLOAT_CASTING)
            kept = _too_large(bundle.model_path)
            scopes = [re.escape(_HEAD), *([f"^({'|'.join(map(re.escape, kept))});?$"] if kept else [])]
            for scope in scopes:
                quantizer.update_quantization_recipe(scope, operation.ALL_SUPPORTED, algorithm_key=algorithm.NO_QUANTIZE)
            quantizer.quantize().export_model(str(path), overwrite=True)
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format=self.format, precision="fp16",
            scheme={**SCHEME, "kept_fp32": kept}, tools=versions("ai-edge-quantizer", "ai-edge-litert"),
        )


def _too_large(path: Path) -> list[str]:
    """Layers (by their outputs) whose weights fp16 cannot hold, as a class layer has that the head's scale was folded into."""
    schema = require("ai_edge_litert.schema_py_generated", extra="export")
    codes = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    found = []
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if codes[max(code.builtinCode, code.deprecatedBuiltinCode)] not in KINDS:
            continue
        tensors: Any = model.subgraphs[0].tensors
        data = model.buffers[tensors[int(operator.inputs[1])].buffer].data
        if data is not None and len(data) and not fits(np.frombuffer(bytes(data), np.float32)):
            found.append(";".join(tensors[int(output)].name.decode() for output in operator.outputs))
    return sorted(found)
