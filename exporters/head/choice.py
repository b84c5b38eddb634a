"""Which form of the decision head is used in which runtime: data, measured.

One thread, ms, median of interleaved calls; the table is written by `python -m benchmarks.decision_head`.
"""

from __future__ import annotations

from typing import Final

from torch import nn

from edgeseg.core.manifest import Contract
from exporters.head.banded import BandedHead
from exporters.head.cells import CellHead, cells_fit

FASTEST: Final[dict[str, tuple[str, str]]] = {
    "onnx": ("comparison", "argmax"),
    "openvino": ("running_maximum", "running_maximum"),
    "tflite": ("two_maxima", "two_maxima"),
}
"""Format -> decision of `BandedHead` for up to three classes, and for more."""
TAKES_CELLS: Final = frozenset({"onnx"})
"""Formats whose runtime runs tensors of a size known only at run time without loss. LiteRT leaves XNNPACK at the first of them, OpenVINO
makes its kernels anew for every size."""


def fastest(format: str, num_classes: int) -> str:
    """Name of the decision that was measured fastest in bands in the runtime of `format`."""
    few, many = FASTEST[format]
    return few if num_classes <= 3 else many


def head_for(format: str, scores_shape: tuple[int, ...], contract: Contract) -> nn.Module:
    """The decision head for scores [1, C, h, w], in the form measured fastest in the runtime of `format`."""
    _, num_scores, h, w = scores_shape
    if format in TAKES_CELLS and cells_fit((h, w), contract, num_scores):
        return CellHead(num_scores, (h, w), contract).eval()
    return BandedHead(num_scores, (h, w), contract, fastest(format, num_scores)).eval()
