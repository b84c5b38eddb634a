"""Int8 for OpenVINO: NNCF decides what is quantized and where, and corrects biases; the ranges are ours.

NNCF inserts FakeQuantize operations (mixed preset: asymmetric where that helps, weights symmetric) and, asked to, takes the mean error of
the 8-bit weights out of the biases layer by layer (Nagel et al. 2019, arXiv:1906.04721, section 4.2, on data). That is done once a bundle.
A plan then moves the bounds of those operations and takes them away from layers that stay float, so that a trial costs a second and the
file that is tried is the file that is kept. Ranges before a depthwise convolution are by channel, as NNCF puts them there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle, ModelFiles
from edgeseg.core.errors import vendor_errors
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import FRAME_END
from edgeseg.core.vendors import quiet, versions
from quantization.base import Int8Writer, check_request, plan_facts, resolve
from quantization.bounds import activation_quantizers, restore_float, set_bounds, tensor_of
from quantization.instances import FLOAT_REASON as INSTANCE_REASON
from quantization.instances import Operation, float_operations
from quantization.plan import AUTO, Int8Plan
from quantization.ranges import RangeFinder, check_float_layers
from quantization.tensors import TENSORS

FLOAT_REASON: Final = "decision head: 8-bit scores tie, and the head is no faster in 8 bits; the class layer is int8, its scores float"
"""Why the end of the graph stays float, for the manifest. NNCF rounds what enters the class layer; nothing behind it is rounded."""
_MADE_UP = re.compile(r"[A-Za-z]+_\d+")
_CONVOLUTIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData")
OFFERS: Final = (
    *(Int8Plan(calibrator=name, bias_correction=True) for name in (
        "min-max", "mean of the frames' min-max", "percentile 99.99", "percentile 99.9", "squared error", "entropy")),
    Int8Plan(calibrator="min-max"), Int8Plan(calibrator="min-max", activations="symmetric", bias_correction=True),
)


class OpenVinoQuantizer:
    """`model.xml` -> int8 `model.xml`."""

    format = "openvino"
    offers = OFFERS

    def prepare(self, bundle: Bundle, frames: Sequence[Frame]) -> Int8Writer:
        """See `quantization.base.Quantizer`."""
        check_request(bundle, frames, self.format)
        return OpenVinoWriter(bundle, frames)

    def __call__(self, bundle: Bundle, frames: Sequence[Frame], workdir: Path, *, plan: Int8Plan = AUTO) -> ModelFiles:
        """See `quantization.base.Quantizer`."""
        return self.prepare(bundle, frames).write(plan, workdir)


class OpenVinoWriter:
    """See `quantization.base.Int8Writer`. What NNCF makes is kept, one model a weight scheme with and without bias correction."""

    def __init__(self, bundle: Bundle, frames: Sequence[Frame]) -> None:
        ov = require("openvino", extra="export")
        self.bundle, self.frames = bundle, list(frames)
        self.instances = bundle.manifest.contract.task == "instance"
        with vendor_errors("openvino"):
            model = ov.Core().read_model(bundle.model_path)
            self.floats = _float_nodes_of_instances(model) if self.instances else _float_nodes(model)
        self.layers = tuple(layer for layer in TENSORS["openvino"].layers(bundle) if layer.name not in self.floats)
        self._made: dict[tuple[str, bool], Any] = {}
        self._ranges: RangeFinder | None = None

    def write(self, plan: Int8Plan, workdir: Path) -> ModelFiles:
        """See `quantization.base.Int8Writer`."""
        ov = require("openvino", extra="export")
        plan = resolve(plan, OFFERS)
        floats = check_float_layers(plan, self.layers, self.floats)
        path = workdir / "model.xml"
        with vendor_errors("nncf"), quiet():
            model = self._quantized(plan.weights, plan.bias_correction).clone()
            finder = self._finder(model)
            set_bounds(model, finder.find(plan))
            if floats:
                restore_float(model, ov.Core().read_model(self.bundle.model_path), floats)
            _settle_names(model)
            ov.save_model(model, path, compress_to_fp16=False)
        scheme = {
            **plan_facts(plan, floats, used=finder.names), "form": "FakeQuantize",
            "activations": f"uint8/int8, {plan.activations}, per tensor; before depthwise convolutions per channel",
            "num_frames": len(self.frames), "float_ops": sorted(self.floats),
            "float_reason": INSTANCE_REASON if self.instances else FLOAT_REASON,
        }
        return ModelFiles(
            folder=workdir, files=(path.name, path.with_suffix(".bin").name), entry=path.name, format="openvino",
            precision="mixed" if floats else "int8", scheme=scheme, tools=versions("openvino", "nncf"),
        )

    def _quantized(self, weights: str, corrected: bool) -> Any:  # noqa: ANN401
        """The model as NNCF makes it. Without bias correction one frame is enough: its ranges are replaced."""
        if (weights, corrected) not in self._made:
            ov, nncf = require("openvino", extra="export"), require("nncf", extra="export")
            parameters = require("nncf.quantization.advanced_parameters", extra="export")
            ranges = require("nncf.quantization.range_estimator", extra="export").RangeEstimatorParametersSet
            frames = self.frames if corrected else self.frames[:1]
            advanced = parameters.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges.MINMAX, disable_bias_correction=not corrected,
                weights_quantization_params=parameters.QuantizationParameters(per_channel=weights == "per-channel"),
            )
            self._made[weights, corrected] = nncf.quantize(
                ov.Core().read_model(self.bundle.model_path), nncf.Dataset([frame[None] for frame in frames]),
                preset=nncf.QuantizationPreset.MIXED, subset_size=len(frames), fast_bias_correction=False,
                ignored_scope=nncf.IgnoredScope(names=sorted(self.floats)), advanced_parameters=advanced,
            )
        return self._made[weights, corrected]

    def _finder(self, model: Any) -> RangeFinder:  # noqa: ANN401
        """Ranges of the tensors that NNCF quantizes; where it does so by channel, by channel."""
        if self._ranges is None:
            names, channels = [], {}
            for node in activation_quantizers(model):
                name, shape = tensor_of(node), tuple(node.input_value(1).get_shape())
                names.append(name)
                wide = [axis for axis, size in enumerate(shape) if size > 1]
                if wide:
                    channels[name] = wide[0]
            self._ranges = RangeFinder(self.bundle, self.frames, list(dict.fromkeys(names)), channels)
        return self._ranges


def _settle_names(model: Any) -> None:  # noqa: ANN401
    """Replace names that OpenVINO made up from a counter of the whole process, so that the same model gives the same bytes."""
    for index, node in enumerate(model.get_ordered_ops()):
        if _MADE_UP.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_q{index}")


def _float_nodes(model: Any) -> set[str]:  # noqa: ANN401
    """Names of the operations that stay float: back from the answer to the class layers, those not included, and what feeds an import."""
    found: set[str] = set()
    pending = [model.outputs[0].get_node()]
    while pending:
        node = pending.pop()
        name = node.get_friendly_name()
        if name in found or node.get_type_name() in (*_CONVOLUTIONS, "Constant"):
            continue
        inputs = [port.get_source_output().get_node() for port in node.inputs()]
        if any(parent.get_type_name() in _CONVOLUTIONS for parent in inputs) and node.get_type_name() == "Add":
            pending += inputs  # the class layer's bias is part of the convolution
            continue
        found.add(name)
        pending += inputs
    feeding = [node for node in model.get_ops() if node.get_friendly_name().startswith(FRAME_END)]
    return found | {node.get_friendly_name() for node in feeding if node.get_type_name() != "Constant"}


def _float_nodes_of_instances(model: Any) -> set[str]:  # noqa: ANN401
    """The same for an instance model; see `quantization.instances`."""
    graph, kinds = {}, {}
    for node in model.get_ordered_ops():
        inputs = [port.get_source_output().get_node() for port in node.inputs()]
        constant = [parent.get_type_name() == "Constant" for parent in inputs]
        kind = node.get_type_name()
        kinds[node.get_friendly_name()] = kind
        graph[node.get_friendly_name()] = Operation(
            tuple(parent.get_friendly_name() for parent in inputs), weighted=kind in _CONVOLUTIONS or (kind == "MatMul" and any(constant)),
            selects=kind == "TopK",
        )
    results = [output.get_node().get_friendly_name() for output in model.outputs]
    found = float_operations(graph, results)
    return {name for name in found if kinds[name] not in ("Constant", "Result", "Parameter")}
