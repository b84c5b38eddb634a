"""Looking into graphs on a device, and naming the operation at which two of them part. Adding a format = one new file + one line here."""

from __future__ import annotations

from typing import Final

from targets.parity.blame import FLOAT_DB, INT8_DB, Blame, by_name, by_value
from targets.parity.graph import Graph, Observer, Op, Values
from targets.parity.onnx import OnnxObserver
from targets.parity.openvino import OpenVinoObserver
from targets.parity.tflite import TfliteObserver

__all__ = ["FLOAT_DB", "INT8_DB", "OBSERVERS", "Blame", "Graph", "Observer", "Op", "Values", "by_name", "by_value"]

OBSERVERS: Final[dict[str, Observer]] = {
    "onnx": OnnxObserver(),
    "openvino": OpenVinoObserver(),
    "tflite": TfliteObserver(),
    "tensorrt": OnnxObserver("tensorrt"),
}
