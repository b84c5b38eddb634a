"""The exporters. Adding one = one new file beside this one + one line in `EXPORTERS`."""

from __future__ import annotations

from typing import Final

from exporters.base import Exporter
from exporters.to_onnx import OnnxExporter
from exporters.to_openvino import OpenVinoExporter
from exporters.to_tensorrt import TensorRtExporter
from exporters.to_tflite import TfliteExporter

EXPORTERS: Final[dict[str, Exporter]] = {
    "onnx": OnnxExporter(),
    "openvino": OpenVinoExporter(),
    "tflite": TfliteExporter(),
    "tensorrt": TensorRtExporter(),
}
