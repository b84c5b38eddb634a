"""Int8 for TensorRT: static QDQ with the zero point 0 everywhere, int8 activations, int8 weights per output channel, float biases.

From NVIDIA's documentation ("Explicit Quantization"): TensorRT has symmetric int8 only, and no int32 biases; it fuses what lies between a
pair of QuantizeLinear and DequantizeLinear. Not yet seen on hardware; ONNX Runtime gives the answers the bundle is sealed with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgeseg.core.bundle import Bundle
from edgeseg.core.images import Frame
from edgeseg.core.manifest import INPUT_NAME
from quantization.base import FLOAT_REASON, Int8Writer, check_request
from quantization.plan import Int8Plan
from quantization.quantize_onnx import OFFERS as ONNX_OFFERS
from quantization.quantize_onnx import OnnxQuantizer, OnnxWriter

OFFERS = tuple(replace(plan, activations="symmetric") for plan in ONNX_OFFERS)


class TensorRtQuantizer(OnnxQuantizer):
    """`model.onnx` -> int8 `model.onnx`, both as TensorRT takes them."""

    format = "tensorrt"
    offers = OFFERS

    def prepare(self, bundle: Bundle, frames: Sequence[Frame]) -> Int8Writer:
        """See `quantization.base.Quantizer`."""
        check_request(bundle, frames, self.format)
        return TensorRtWriter(bundle, frames)


class TensorRtWriter(OnnxWriter):
    """See `quantization.base.Int8Writer`. Activations are symmetric whatever the plan says: there is nothing else."""

    activation_type = "QInt8"
    pools_to_convolutions = False
    float_reason = f"{FLOAT_REASON}; first layer: bytes 0..255 would lose a bit in symmetric int8"

    def float_nodes(self, graph: Any) -> set[str]:  # noqa: ANN401 - an SDK object
        """Also the first convolutions and what lies before them."""
        return super().float_nodes(graph) | _first_layers(graph)

    def activation_words(self, plan: Int8Plan) -> str:
        """What the manifest says of activations."""
        return "int8, per tensor, symmetric"

    def extra_options(self) -> dict[str, Any]:
        """Of `quantize_static`."""
        return {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}


def _first_layers(graph: Any) -> set[str]:  # noqa: ANN401
    """Names of the nodes from the frame to the first convolutions, those included."""
    found: set[str] = set()
    pending = [INPUT_NAME]
    while pending:
        tensor = pending.pop()
        for node in graph.node:
            if tensor in node.input and node.name not in found:
                found.add(node.name)
                if node.op_type != "Conv":
                    pending += node.output
    return found
