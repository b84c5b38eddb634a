"""Int8 for LiteRT: ai-edge-quantizer, static, int8 weights per output channel and int8 activations (`static_wi8_ai8`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import FRAME_END, INPUT_NAME
from edgeseg.core.vendors import quiet, versions
from quantization.base import FLOAT_REASON, check_request
from quantization.instances import FLOAT_REASON as INSTANCE_REASON
from quantization.instances import Operation, float_operations

_HEAD = "/exporters.head."
"""In the name of everything the decision head gives; what a converter fused has names of all its parts, with ";;" between them."""
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")


class TfliteQuantizer:
    """`model.tflite` -> int8 `model.tflite`; input and output stay uint8."""

    format = "tflite"

    def __call__(self, bundle: Bundle, frames: Sequence[Frame], workdir: Path) -> ModelFiles:
        """See `quantization.base.Quantizer`."""
        check_request(bundle, frames, self.format)
        path = workdir / "model.tflite"
        with vendor_errors("ai_edge_quantizer"), quiet():
            quantizer_module = require("ai_edge_quantizer.quantizer", extra="export")
            recipe = require("ai_edge_quantizer.recipe", extra="export")
            qtyping = require("ai_edge_quantizer.qtyping", extra="export")
            algorithm = require("ai_edge_quantizer.algorithm_manager", extra="export").AlgorithmName
            quantizer = quantizer_module.Quantizer(str(bundle.model_path))
            quantizer.load_quantization_recipe(recipe.static_wi8_ai8())
            scopes = _float_scopes(bundle)
            for scope in scopes:
                quantizer.update_quantization_recipe(scope, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=algorithm.NO_QUANTIZE)
            ranges = quantizer.calibrate({"serving_default": [{INPUT_NAME: frame[None]} for frame in frames]}, num_threads=1)
            quantizer.quantize(ranges).export_model(str(path), overwrite=True)
        scheme = {
            "method": "post-training, static", "form": "static_wi8_ai8", "activations": "int8, per tensor, asymmetric",
            "weights": "int8, per output channel, symmetric", "calibrator": "min-max", "num_frames": len(frames),
            "float_ops": list(scopes), "float_reason": INSTANCE_REASON if bundle.manifest.contract.task == "instance" else FLOAT_REASON,
        }
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format=self.format, precision="int8", scheme=scheme,
            tools=versions("ai-edge-quantizer", "ai-edge-litert"),
        )


def _float_scopes(bundle: Bundle) -> tuple[str, ...]:
    """What stays float, as regular expressions over the names of an operation's outputs, each followed by ";".

    Found by what the graph does: all from the answer back to the class layers, those included, and what feeds an imported model.
    """
    schema = require("ai_edge_litert.schema_py_generated", extra="export")
    codes = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.ModelT.InitFromPackedBuf(bundle.model_path.read_bytes())
    graph = model.subgraphs[0]
    kinds = [codes[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    if bundle.manifest.contract.task == "instance":
        return _float_scopes_of_instances(graph, kinds)
    producer = {int(output): operator for operator in graph.operators for output in operator.outputs}
    scopes: set[str] = set()
    pending, seen = [int(graph.outputs[0])], set()
    while pending:
        tensor = pending.pop()
        if tensor not in producer or tensor in seen:
            continue
        seen.add(tensor)
        operator = producer[tensor]
        scope = ";".join(graph.tensors[int(output)].name.decode() for output in operator.outputs)
        if _HEAD not in scope:
            scopes.add(scope)
        if kinds[operator.opcodeIndex] not in _CONVOLUTIONS or _multiplies_in_the_head(kinds[operator.opcodeIndex], scope):
            pending += [int(i) for i in operator.inputs if i >= 0]
    # One expression for all, since hundreds of them take minutes.
    found = (re.escape(_HEAD), f"^({'|'.join(map(re.escape, sorted(scopes)))});$")
    return (*found, f"^{FRAME_END}") if "imported" in bundle.manifest.scheme else found


def _multiplies_in_the_head(kind: str, scope: str) -> bool:
    """Whether it is a product of the head's enlarging, and no class layer that something of the head was fused into."""
    return kind == "FULLY_CONNECTED" and all(_HEAD in part for part in scope.split(";;"))


def _float_scopes_of_instances(graph: Any, kinds: Sequence[str]) -> tuple[str, ...]:  # noqa: ANN401
    """The same for an instance model; see `quantization.instances`. `kinds` = names of the operator codes."""
    operations = {}
    for operator in graph.operators:
        kind = kinds[operator.opcodeIndex]
        inputs = tuple(str(i) for i in operator.inputs if i >= 0)
        for output in operator.outputs:
            operations[str(output)] = Operation(inputs, weighted=kind in _CONVOLUTIONS, selects=kind == "TOPK_V2")
    names = [graph.tensors[int(output)].name.decode() for output in float_operations(operations, [str(output) for output in graph.outputs])]
    # One expression for all: hundreds of them take minutes. The other is the outputs' own, which would come out as int8.
    return (f"^({'|'.join(re.escape(name) for name in sorted(names))});?$", r"^serving_default_")
