"""Which form of the decision head is used in which runtime: data, measured by `python -m benchmarks.decision_head --all-forms`.

One thread, least ms, scores 3x24x32 -> 192x256 | 11x45x60 -> 360x480, on a 2-core x86-64 (AVX-512 VNNI); all give torch's class map:

                     ONNX Runtime 1.31.1   OpenVINO 2026.4.1   LiteRT 2.3.0
    resize + argmax  0.41 | 3.82           1.52 | 10.58        0.45 | 5.73
    argmax           0.31 | 1.95           0.22 |  1.36        0.44 | 5.29
    comparison       0.21 | 2.42           0.16 |  1.34        does not convert (no uint8 maximum)
    running_maximum  0.22 | 2.64           0.16 |  0.90        0.24 | 2.73
    two_maxima       0.52 | 3.51           0.26 |  1.68        0.23 | 1.25
    cells                 | 0.63           makes kernels anew  leaves XNNPACK

Without bands the second numbers are 3.50, 2.56 and 3.73 ms for the forms chosen. Cells: with regions as trained maps have them (27 % of the
cells with a border); 1.99 with borders everywhere.
"""

from __future__ import annotations

from typing import Final

from torch import nn

from edgeseg.core.manifest import Contract
from exporters.head.banded import BandedHead
from exporters.head.cells import CellHead, cells_fit
from exporters.head.whole import WholeHead

FASTEST: Final[dict[str, tuple[str, str]]] = {
    "onnx": ("comparison", "argmax"),
    "openvino": ("running_maximum", "running_maximum"),
    "tflite": ("two_maxima", "two_maxima"),
}
"""Format -> decision of `BandedHead` for up to three classes, and for more."""
TAKES_CELLS: Final = frozenset({"onnx"})
"""Formats whose runtime runs tensors of a size known only at run time without loss. LiteRT leaves XNNPACK at the first of them, OpenVINO
makes its kernels anew for every size."""
NO_BYTES: Final = frozenset({"tensorrt"})
"""Formats whose runtime has uint8 at the ends of a network only: the frame becomes floats first of all, and the decision is whole."""


def fastest(format: str, num_classes: int) -> str:
    """Name of the decision that was measured fastest in bands in the runtime of `format`."""
    few, many = FASTEST[format]
    return few if num_classes <= 3 else many


def head_for(format: str, scores_shape: tuple[int, ...], contract: Contract) -> nn.Module:
    """The decision head for scores [1, C, h, w], in the form measured fastest in the runtime of `format`."""
    _, num_scores, h, w = scores_shape
    if format in NO_BYTES:
        return WholeHead(num_scores, contract).eval()
    if format in TAKES_CELLS and cells_fit((h, w), contract, num_scores):
        return CellHead(num_scores, (h, w), contract).eval()
    return BandedHead(num_scores, (h, w), contract, fastest(format, num_scores)).eval()
