"""The quantizers, by format. Adding one = one new file beside this one + one line in `QUANTIZERS`."""

from __future__ import annotations

from typing import Final

from quantization.base import Quantizer
from quantization.quantize_onnx import OnnxQuantizer
from quantization.quantize_openvino import OpenVinoQuantizer
from quantization.quantize_tensorrt import TensorRtQuantizer
from quantization.quantize_tflite import TfliteQuantizer

QUANTIZERS: Final[dict[str, Quantizer]] = {
    "onnx": OnnxQuantizer(),
    "openvino": OpenVinoQuantizer(),
    "tflite": TfliteQuantizer(),
    "tensorrt": TensorRtQuantizer(),
}
