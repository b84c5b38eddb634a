"""An Intel CPU with OpenVINO."""

from typing import Final

from targets.boards.base import Run, Target

INTEL_CPU: Final = Target(
    name="intel-cpu",
    title="Intel CPU",
    about="x86-64 processor by Intel, OpenVINO's CPU plug-in",
    runs=(Run(format="openvino", runtime="openvino"),),
    precisions=("fp32", "fp16", "int8", "mixed"),
    num_threads=0,
    arch=("x86_64",),
    matches=lambda machine: machine.cpu_vendor == "GenuineIntel",
)
