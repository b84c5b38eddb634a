"""This machine, whatever it is, with whatever runtimes are installed."""

from typing import Final

from targets.boards.base import Run, Target
from targets.telemetry.sensors import SENSORS

HOST: Final = Target(
    name="host",
    title="This machine",
    about="whatever is here: every format whose runtime is installed, on the CPU",
    runs=(
        Run(format="openvino", runtime="openvino"),
        Run(format="onnx", runtime="onnxruntime"),
        Run(format="tensorrt", runtime="onnxruntime"),
        Run(format="tflite", runtime="litert"),
        Run(format="tflite", runtime="tflite_runtime"),
        Run(format="null", runtime="null"),
    ),
    precisions=("fp32", "fp16", "int8", "mixed"),
    num_threads=0,
    arch=(),
    matches=lambda machine: True,
    sensors=tuple(SENSORS),
)
