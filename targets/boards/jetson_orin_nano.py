"""NVIDIA Jetson Orin Nano: TensorRT by itself or within ONNX Runtime, else CUDA; never its CPU."""

from typing import Final

from targets.boards.base import Run, Target
from targets.telemetry.sensors import GENERIC

JETSON_ORIN_NANO: Final = Target(
    name="jetson-orin-nano",
    title="NVIDIA Jetson Orin Nano",
    about="6x Cortex-A78AE and an Ampere GPU; TensorRT by itself or within ONNX Runtime, else CUDA",
    runs=(
        Run(format="tensorrt", runtime="tensorrt", provider="tensorrt"),
        Run(format="tensorrt", runtime="onnxruntime", provider="tensorrt"),
        Run(format="tensorrt", runtime="onnxruntime", provider="cuda"),
        Run(format="onnx", runtime="onnxruntime", provider="tensorrt"),
        Run(format="onnx", runtime="onnxruntime", provider="cuda"),
    ),
    precisions=("fp32", "fp16", "int8", "mixed"),
    num_threads=6,
    arch=("aarch64",),
    matches=lambda machine: "Jetson Orin Nano" in machine.board,
    sensors=(*GENERIC, "gpu-clock", "jetson-oc"),
)
