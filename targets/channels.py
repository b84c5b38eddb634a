"""Channel counts that a runtime's kernels like, as data: they compute whole vectors of channels, and a part of one costs as much.

Measured on a 2-core x86-64 with AVX-512 and VNNI, one thread, microseconds of a layer on a map of 45x60 (least of 40 rounds), by
`edgeseg.pruning.probe`; openvino 2026.4.1, onnxruntime 1.31.1, ai-edge-litert 2.3.0:

                          16      24      32      40      48      56      64 channels in and out
    openvino fp32 1x1     15      41      54      98     115     189     198
    openvino int8 1x1      7      17      19      33      37      55      61
    onnxruntime fp32 1x1  13      52      52     111     112     197     197
    onnxruntime int8 1x1  10      18      20      34      38      56      62
    litert fp32 1x1       12      36      50      90     109     175     196
    openvino fp32 3x3    112     323     432               966            1736
    onnxruntime int8 3x3  51     105     132               267             464
    openvino fp32 dw 3x3  10      18      19                27              36
    onnxruntime int8 dw   36      76      48                61              74
    litert fp32 dw 3x3    22      38      37                56              71

So 24 channels cost nearly as much as 32 (in ONNX Runtime int8 depthwise more), 40 as much as 48: steps of 16, the floats of one
512-bit vector. A processor with AVX2 only has vectors of 8, of which 16 is a multiple. ARM was not measured: XNNPACK's NEON kernels
compute 8 output channels at a time in float and in int8.
"""

from __future__ import annotations

from typing import Final

CHANNEL_STEPS: Final[dict[tuple[str, str], int]] = {
    ("openvino", "x86_64"): 16,
    ("onnxruntime", "x86_64"): 16,
    ("litert", "x86_64"): 16,
    ("tflite_runtime", "x86_64"): 16,
    ("openvino", "aarch64"): 8,
    ("onnxruntime", "aarch64"): 8,
    ("litert", "aarch64"): 8,
    ("tflite_runtime", "aarch64"): 8,
}
"""(runtime, `uname -m`) -> step of channels."""
_UNKNOWN: Final = 8


def channel_step(runtime: str, arch: str) -> int:
    """Channels whose multiples the kernels of a runtime compute without waste on this kind of processor."""
    return CHANNEL_STEPS.get((runtime, arch), _UNKNOWN)
