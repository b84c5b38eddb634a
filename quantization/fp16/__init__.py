"""From an fp32 bundle to an fp16 one, by format. Adding one = one new file beside this one + one line in `FP16`."""

from __future__ import annotations

from typing import Final

from quantization.fp16.base import Halver
from quantization.fp16.to_onnx import OnnxHalver
from quantization.fp16.to_openvino import OpenVinoHalver
from quantization.fp16.to_tensorrt import TensorRtHalver
from quantization.fp16.to_tflite import TfliteHalver

__all__ = ["FP16", "Halver"]

FP16: Final[dict[str, Halver]] = {
    "onnx": OnnxHalver(),
    "openvino": OpenVinoHalver(),
    "tflite": TfliteHalver(),
    "tensorrt": TensorRtHalver(),
}
