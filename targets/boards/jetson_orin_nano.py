"""NVIDIA Jetson Orin Nano: ONNX Runtime with TensorRT, else with CUDA; never on its CPU."""

from typing import Final

from targets.boards.base import Run, Target
from targets.telemetry.sensors import GENERIC

JETSON_ORIN_NANO: Final = Target(
    name="jetson-orin-nano",
    title="NVIDIA Jetson Orin Nano",
    about="6x Cortex-A78AE and an Ampere GPU; ONNX Runtime with TensorRT where that is there, else with CUDA",
    runs=(
        Run(format="onnx", runtime="onnxruntime", provider="tensorrt"),
        Run(format="onnx", runtime="onnxruntime", provider="cuda"),
    ),
    precisions=("fp32", "fp16", "int8", "mixed"),
    num_threads=6,
    arch=("aarch64",),
    matches=lambda machine: "Jetson Orin Nano" in machine.board,
    sensors=(*GENERIC, "gpu-clock", "jetson-oc"),
)
