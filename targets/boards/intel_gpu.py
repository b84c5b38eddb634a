"""An Intel GPU, integrated or on a card, with OpenVINO. Not yet seen on hardware."""

from typing import Final

from targets.boards.base import Run, Target

INTEL_GPU: Final = Target(
    name="intel-gpu",
    title="Intel GPU",
    about="integrated or on a card, OpenVINO's GPU plug-in; fp16 arithmetic with --arithmetic f16",
    runs=(Run(format="openvino", runtime="openvino", provider="gpu"),),
    precisions=("fp32", "fp16", "int8", "mixed"),
    num_threads=0,
    arch=("x86_64",),
    matches=lambda machine: "Intel GPU" in machine.accelerators,
)
