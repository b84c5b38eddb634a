"""Int8 for LiteRT: ai-edge-quantizer, static, int8 weights and int8 activations (the recipe of its `static_wi8_ai8`).

Its own calibration takes moving averages of each frame's extremes; here it sees one frame, which says what tensors it wants to know of, and
the ranges put in are ours (`quantization.ranges`).

Average pooling stays float: XNNPACK (LiteRT 2.3.0) takes none in int8, and LiteRT's own kernel is ten times as slow as XNNPACK's float
one, while the steps to float and back cost less than the pooling (3x3 on 64 channels of 48x64: 968 us in int8, 139 in float with both
steps, 93 in a float network).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import FRAME_END, INPUT_NAME
from edgeseg.core.vendors import quiet, versions
from quantization.base import FLOAT_REASON, Int8Writer, check_request, plan_facts, resolve
from quantization.calibrators import Ranges
from quantization.instances import FLOAT_REASON as INSTANCE_REASON
from quantization.instances import Operation, float_operations
from quantization.large_weights import large_weights
from quantization.plan import AUTO, Int8Plan
from quantization.ranges import RangeFinder, check_float_layers
from quantization.tensors import TENSORS
from quantization.tensors.tflite import TfliteGraph, float_activations, read_graph

_HEAD = "/exporters.head."
"""In the name of everything the decision head gives; what a converter fused has names of all its parts, with ";;" between them."""
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
OFFERS: Final = tuple(
    Int8Plan(calibrator=name)
    for name in ("min-max", "mean of the frames' min-max", "percentile 99.99", "percentile 99.9", "squared error", "entropy")
)


class TfliteQuantizer:
    """`model.tflite` -> int8 `model.tflite`; input and output stay uint8."""

    format = "tflite"
    offers = OFFERS

    def prepare(self, bundle: Bundle, frames: Sequence[Frame]) -> Int8Writer:
        """See `quantization.base.Quantizer`."""
        check_request(bundle, frames, self.format)
        return TfliteWriter(bundle, frames)

    def __call__(self, bundle: Bundle, frames: Sequence[Frame], workdir: Path, *, plan: Int8Plan = AUTO) -> ModelFiles:
        """See `quantization.base.Quantizer`."""
        return self.prepare(bundle, frames).write(plan, workdir)


class TfliteWriter:
    """See `quantization.base.Int8Writer`."""

    def __init__(self, bundle: Bundle, frames: Sequence[Frame]) -> None:
        self.bundle, self.frames = bundle, list(frames)
        self.instances = bundle.manifest.contract.task == "instance"
        self.floats = _float_scopes(bundle)
        self.layers = tuple(layer for layer in TENSORS["tflite"].layers(bundle) if not self._always_float(layer.name))
        self._wanted: dict[str, Any] = {}
        self._ranges: RangeFinder | None = None

    def write(self, plan: Int8Plan, workdir: Path) -> ModelFiles:
        """See `quantization.base.Int8Writer`."""
        plan = resolve(plan, OFFERS)
        floats = check_float_layers(plan, self.layers, ())
        path = workdir / "model.tflite"
        with vendor_errors("ai_edge_quantizer"), quiet(), large_weights():
            finder = self._finder()
            quantizer = self._quantizer(plan, floats)
            quantizer.quantize(self._as_wanted(finder.find(plan))).export_model(str(path), overwrite=True)
        scheme = {
            **plan_facts(plan, floats, used=finder.names), "form": "static_wi8_ai8", "activations": f"int8, per tensor, {plan.activations}",
            "num_frames": len(self.frames), "float_ops": list(self.floats),
            "float_reason": INSTANCE_REASON if self.instances else FLOAT_REASON,
        }
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format="tflite", precision="mixed" if floats else "int8", scheme=scheme,
            tools=versions("ai-edge-quantizer", "ai-edge-litert"),
        )

    def _always_float(self, layer: str) -> bool:
        return any(re.search(scope, f"{layer};") for scope in self.floats)

    def _quantizer(self, plan: Int8Plan, floats: Sequence[str]) -> Any:  # noqa: ANN401 - an SDK object
        """A quantizer with the plan's recipe."""
        module = require("ai_edge_quantizer.quantizer", extra="export")
        qtyping = require("ai_edge_quantizer.qtyping", extra="export")
        algorithm = require("ai_edge_quantizer.algorithm_manager", extra="export").AlgorithmName
        all_kinds, granularity = qtyping.TFLOperationName.ALL_SUPPORTED, qtyping.QuantGranularity
        quantizer = module.Quantizer(str(self.bundle.model_path))
        quantizer.add_static_config(
            ".*", all_kinds, activation_num_bits=8, weight_num_bits=8,
            weight_granularity=granularity.CHANNELWISE if plan.weights == "per-channel" else granularity.TENSORWISE,
        )
        kept = [f"^({'|'.join(map(re.escape, sorted(self._with_followers(floats))))});?$"] if floats else []
        quantizer.update_quantization_recipe(".*", qtyping.TFLOperationName.AVERAGE_POOL_2D, algorithm_key=algorithm.NO_QUANTIZE)
        for scope in (*self.floats, *kept):
            quantizer.update_quantization_recipe(scope, all_kinds, algorithm_key=algorithm.NO_QUANTIZE)
        return quantizer

    def _with_followers(self, layers: Sequence[str]) -> set[str]:
        """Float layers, and the operations without weights that only they feed: between two of them nothing is rounded."""
        read = read_graph(self.bundle.model_path)
        weighted = {layer.name for layer in self.layers}
        made = {int(output): read.scope(operator) for operator in read.graph.operators for output in operator.outputs}
        found = set(layers)
        for operator in read.graph.operators:
            sources = [made[int(index)] for index in operator.inputs if int(index) in made]
            if read.scope(operator) not in weighted and sources and all(source in found for source in sources):
                found.add(read.scope(operator))
        return found

    def _finder(self) -> RangeFinder:
        """Ranges of all tensors that the quantizer wants to know of."""
        if self._ranges is None:
            data = {"serving_default": [{INPUT_NAME: self.frames[0][None]}]}
            self._wanted = self._quantizer(Int8Plan(), ()).calibrate(data, num_threads=1)
            known = set(float_activations(read_graph(self.bundle.model_path)))
            self._ranges = RangeFinder(self.bundle, self.frames, [name for name in self._wanted if name in known])
        return self._ranges

    def _as_wanted(self, ranges: dict[str, Ranges]) -> dict[str, Any]:
        """Our ranges in the form of the quantizer's calibration result; what it knows beyond them (constants, the frame) stays."""
        result = dict(self._wanted)
        for name, (low_K, high_K) in ranges.items():
            shape = np.shape(self._wanted[name]["min"])
            ends = {"min": np.full(shape, low_K[0], np.float32), "max": np.full(shape, high_K[0], np.float32)}
            result[name] = {**self._wanted[name], **ends}
        return result


def _float_scopes(bundle: Bundle) -> tuple[str, ...]:
    """What stays float, as regular expressions over the names of an operation's outputs, each followed by ";".

    Found by what the graph does: all from the answer back to the class layers, those included, and what feeds an imported model.
    """
    read = read_graph(bundle.model_path)
    graph = read.graph
    if bundle.manifest.contract.task == "instance":
        return _float_scopes_of_instances(read)
    producer = {int(output): index for index, operator in enumerate(graph.operators) for output in operator.outputs}
    scopes: set[str] = set()
    pending, seen = [int(graph.outputs[0])], set()
    while pending:
        tensor = pending.pop()
        if tensor not in producer or tensor in seen:
            continue
        seen.add(tensor)
        operator, kind = graph.operators[producer[tensor]], read.kinds[producer[tensor]]
        scope = read.scope(operator)
        if _HEAD not in scope:
            scopes.add(scope)
        if kind not in _CONVOLUTIONS or _multiplies_in_the_head(kind, scope):
            pending += [int(i) for i in operator.inputs if i >= 0]
    # One expression for all, since hundreds of them take minutes.
    found = (re.escape(_HEAD), f"^({'|'.join(map(re.escape, sorted(scopes)))});$")
    return (*found, f"^{FRAME_END}") if "imported" in bundle.manifest.scheme else found


def _multiplies_in_the_head(kind: str, scope: str) -> bool:
    """Whether it is a product of the head's enlarging, and no class layer that something of the head was fused into."""
    return kind == "FULLY_CONNECTED" and all(_HEAD in part for part in scope.split(";;"))


def _float_scopes_of_instances(read: TfliteGraph) -> tuple[str, ...]:
    """The same for an instance model; see `quantization.instances`."""
    operations = {}
    for operator, kind in zip(read.graph.operators, read.kinds, strict=True):
        inputs = tuple(str(i) for i in operator.inputs if i >= 0)
        for output in operator.outputs:
            operations[str(output)] = Operation(inputs, weighted=kind in _CONVOLUTIONS, selects=kind == "TOPK_V2")
    names = [read.name(int(output)) for output in float_operations(operations, [str(output) for output in read.graph.outputs])]
    # One expression for all: hundreds of them take minutes. The other is the outputs' own, which would come out as int8.
    return (f"^({'|'.join(re.escape(name) for name in sorted(names))});?$", r"^serving_default_")
