"""Raspberry Pi 4: four Cortex-A72."""

from typing import Final

from targets.boards.base import Run, Target
from targets.telemetry.sensors import GENERIC

RASPBERRY_PI_4: Final = Target(
    name="raspberry-pi-4",
    title="Raspberry Pi 4",
    about="4x Cortex-A72; LiteRT with XNNPACK, tflite_runtime where that is what the board has, ONNX Runtime for onnx",
    runs=(
        Run(format="tflite", runtime="litert"),
        Run(format="tflite", runtime="tflite_runtime"),
        Run(format="onnx", runtime="onnxruntime"),
    ),
    precisions=("fp32", "fp16", "int8", "mixed"),
    num_threads=4,
    arch=("aarch64",),
    matches=lambda machine: machine.board.startswith("Raspberry Pi 4"),
    sensors=(*GENERIC, "pi-throttled", "pi-clock"),
)
