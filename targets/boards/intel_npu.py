"""An Intel NPU, as Core Ultra processors have one, with OpenVINO. Not yet seen on hardware.

It computes in fp16 and int8 and takes fixed shapes only (OpenVINO's documentation, NPU Device: "Computation precision for the HW is FP16",
"quantized models may be int8 or mixed FP16-INT8"), so fp32 bundles are not for it.
"""

from typing import Final

from targets.boards.base import Run, Target

INTEL_NPU: Final = Target(
    name="intel-npu",
    title="Intel NPU",
    about="of a Core Ultra processor, OpenVINO's NPU plug-in; float parts in f16, the only arithmetic it has",
    runs=(Run(format="openvino", runtime="openvino", provider="npu"),),
    precisions=("fp16", "int8", "mixed"),
    arithmetic="f16",
    num_threads=0,
    arch=("x86_64",),
    matches=lambda machine: "Intel NPU" in machine.accelerators,
)
