"""Looking into float graphs, by format. Adding one = one new file beside this one + one line in `TENSORS`."""

from __future__ import annotations

from typing import Final

from quantization.tensors.base import Activations, LayerFacts, Tensors
from quantization.tensors.onnx import OnnxTensors
from quantization.tensors.openvino import OpenVinoTensors
from quantization.tensors.tflite import TfliteTensors

__all__ = ["TENSORS", "Activations", "LayerFacts", "Tensors"]

TENSORS: Final[dict[str, Tensors]] = {
    "onnx": OnnxTensors(),
    "openvino": OpenVinoTensors(),
    "tflite": TfliteTensors(),
    "tensorrt": OnnxTensors("tensorrt"),
}
