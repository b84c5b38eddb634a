"""Raspberry Pi 5: four Cortex-A76."""

from typing import Final

from targets.boards.base import Run, Target
from targets.telemetry.sensors import GENERIC

RASPBERRY_PI_5: Final = Target(
    name="raspberry-pi-5",
    title="Raspberry Pi 5",
    about="4x Cortex-A76; LiteRT with XNNPACK, tflite_runtime where that is what the board has, ONNX Runtime for onnx",
    runs=(
        Run(format="tflite", runtime="litert"),
        Run(format="tflite", runtime="tflite_runtime"),
        Run(format="onnx", runtime="onnxruntime"),
    ),
    precisions=("fp32", "fp16", "int8", "mixed"),
    num_threads=4,
    arch=("aarch64",),
    matches=lambda machine: machine.board.startswith("Raspberry Pi 5"),
    sensors=(*GENERIC, "pi-throttled", "pi-clock", "pi-power"),
)
