"""The decision head: class scores at the network's stride in, uint8 class map at model size out, without writing all scores.

The plain form (bilinear resize, then argmax) writes and reads back C floats a pixel to keep one byte: 30 to 58 % of a small
network's time, and int8 leaves it untouched. Here the same function takes other forms:

1. Bilinear interpolation is linear and separable, so it is two constant matrix products. Both matrices are banded (two taps a row), so
   the rows are cut into bands that each need only a few rows of scores: fewer products, and a band stays in the cache.
2. The decision is taken band by band, in whichever form is fastest in the runtime (`FASTEST`). All forms give the answer
   of the first maximum; they differ from torch's own only where two scores are equal to within float rounding.
3. A threshold is a constant added to a score (`edgeseg.models.decision`), to each class's or to one of two. The weights of an
   interpolation sum to 1, so it is added at the network's stride, where it costs next to nothing, and the decisions stay as they are.

Legend: N = frames, C = scores a pixel, H/W = rows/columns at model size, h/w = rows/columns of the scores, B = rows of a band.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.core.manifest import Contract
from edgeseg.models.decision import binary_limit, class_offsets, upsample_logits

BAND_BYTES: Final = 768 * 1024
"""Scores of one band: what stays in a second-level cache of 1 MiB. Smaller bands gain nothing and make converters slow."""

_SCALE: Final = 2.0**60
"""A power of two, so scaling is exact; any two scores that differ then differ by far more than the number of classes."""
_HALF: Final = 0.5
"""Added to an index before it is cut down to uint8: beside int8 layers OpenVINO turns min(s x, 1) into s min(x, 1 / s), and what comes out
as 0.9999999 must not become 0. It moves sums likewise, shifting both limits by the same amount, and limits 1e-18 apart do not survive that
(a threshold taken off the difference of two scores answered 0 everywhere): thresholds are added first of all, where they are a bias."""
_LARGEST_SCORE: Final = 1e6
"""Stands for an infinite threshold; `_SCALE` times this is still a float32."""

Decision = Callable[[Tensor], Tensor]


def by_argmax(scores_NCBW: Tensor) -> Tensor:
    """Index of the first maximum, by the runtime's own ArgMax (int64 indices, then a cast)."""
    return scores_NCBW.argmax(dim=1).to(torch.uint8)


def by_comparison(scores_NCBW: Tensor) -> Tensor:
    """Running maximum, class by class; the answer is the last class that was larger than all before it."""
    best, answer = scores_NCBW[:, 0], torch.zeros_like(scores_NCBW[:, 0], dtype=torch.uint8)
    for index in range(1, scores_NCBW.shape[1]):
        score = scores_NCBW[:, index]
        larger = (score > best).to(torch.uint8) * index
        answer = larger if index == 1 else torch.maximum(answer, larger)
        best = torch.maximum(best, score)
    return answer


def by_running_maximum(scores_NCBW: Tensor) -> Tensor:
    """As `by_comparison`, in sums and extrema of floats: min(`_SCALE` (score - best), index + `_HALF`) is that or not positive."""
    scaled = scores_NCBW
    best, answer = scaled[:, 0], torch.zeros_like(scaled[:, 0])
    for index in range(1, scaled.shape[1]):
        larger = torch.clamp(scaled[:, index] - best, max=index + _HALF)
        answer = torch.relu(larger) if index == 1 else torch.maximum(answer, larger)
        best = torch.maximum(best, scaled[:, index])
    return answer.to(torch.uint8)


def by_two_maxima(scores_NCBW: Tensor) -> Tensor:
    """Two maxima over the classes: max of (`_SCALE` (score - maximum) + C - 1 - index) is C - 1 - the first index of the maximum."""
    last = scores_NCBW.shape[1] - 1
    rank = torch.arange(last, -1, -1, dtype=torch.float32, device=scores_NCBW.device).view(1, -1, 1, 1)
    maximum = scores_NCBW.amax(dim=1, keepdim=True)
    return (last + _HALF - (scores_NCBW - maximum + rank).amax(dim=1)).to(torch.uint8)


DECISIONS: Final[dict[str, Decision]] = {
    "argmax": by_argmax,
    "comparison": by_comparison,
    "running_maximum": by_running_maximum,
    "two_maxima": by_two_maxima,
}
SCALED: Final = frozenset({"running_maximum", "two_maxima"})
"""Decisions that want their scores multiplied by `_SCALE` (done at the network's stride). Exact in float32 and bfloat16; the
range of float16 is too small for it."""


def fastest(format: str, num_classes: int) -> str:
    """Name of the decision that was measured fastest in the runtime of `format`; the table of numbers is `FASTEST`."""
    few, many = FASTEST[format]
    return few if num_classes <= 3 else many


# One thread, minimum ms, scores 3x24x32 -> 192x256 | 11x45x60 -> 360x480, on a 2-core x86-64 (AVX-512 VNNI); every form gives torch's
# class map. Commands: python -m benchmarks.decision_head, and the same with --classes 3 --scores 24 32 --size 192 256
#                    ONNX Runtime    OpenVINO f32     LiteRT
# resize + argmax    0.41 | 3.82     1.52 | 10.58     0.45 | 5.73
# argmax             0.31 | 2.03     0.22 |  1.36     0.44 | 5.29
# comparison         0.21 | 2.42     0.16 |  1.34     does not convert (no uint8 maximum)
# running_maximum    0.22 | 2.64     0.16 |  1.16     0.24 | 2.73
# two_maxima         0.52 | 3.51     0.26 |  1.68     0.23 | 1.66
# Without bands the second numbers are 3.50, 2.56 and 3.73 ms for the forms chosen.
FASTEST: Final[dict[str, tuple[str, str]]] = {
    "onnx": ("comparison", "argmax"),
    "openvino": ("running_maximum", "running_maximum"),
    "tflite": ("two_maxima", "two_maxima"),
}
"""Format -> decision for up to three classes, and for more."""


def bilinear_matrix(num_in: int, num_out: int) -> Tensor:
    """Weights [num_out, num_in] of torch's own bilinear resize (align_corners=False) along one axis; rows sum to 1."""
    column = F.interpolate(torch.eye(num_in)[:, None, :, None], (num_out, 1), mode="bilinear", align_corners=False)
    return column[:, 0, :, 0].T.contiguous()


class ResizeHead(nn.Module):
    """The plain form, kept to be measured against: bilinear resize, then argmax."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        super().__init__()
        self.size_hw = size_hw

    def forward(self, scores_NChw: Tensor) -> Tensor:
        """Map class scores to the uint8 class map [N, H, W]."""
        return by_argmax(upsample_logits(scores_NChw, self.size_hw))


class BandedHead(nn.Module):
    """Interpolate and decide band by band of rows; see the head of this module.

    Args:
        num_scores: scores a pixel (1 for two classes as one score).
        scores_hw: their rows and columns.
        contract: model size and decision.
        decision: a name of `DECISIONS`; two classes need none of them, one comparison decides.
        band_bytes: largest size of one band's scores.
    """

    def __init__(self, num_scores: int, scores_hw: tuple[int, int], contract: Contract, decision: str, *,
                 band_bytes: int = BAND_BYTES) -> None:
        super().__init__()
        self.size_hw = (contract.height, contract.width)
        self.binary = num_scores <= 2
        assert self.binary or contract.decision != "threshold", "a threshold decides between two classes"
        self.decide = DECISIONS[decision]
        self.scale = _SCALE if decision in SCALED else 1.0
        self.as_floats = decision in SCALED
        self.offsets: Tensor | None
        self.register_buffer("offsets", _offsets(contract, num_scores))
        (h, w), (height, width) = scores_hw, self.size_hw
        self.columns: Tensor | None
        self.register_buffer("columns", None if w == width else bilinear_matrix(w, width).T.contiguous())
        self.bands: list[tuple[int, int]] = []
        channels = 1 if self.binary else num_scores
        num_bands = 1 if h == height else max(1, min(height, -(-channels * height * width * 4 // band_bytes)))
        rows = bilinear_matrix(h, height)
        edges = [round(i * height / num_bands) for i in range(num_bands + 1)]
        for i, (top, bottom) in enumerate(itertools.pairwise(edges)):
            used = torch.nonzero(rows[top:bottom].abs().sum(0)).flatten()
            first, stop = int(used.min()), int(used.max()) + 1
            self.bands.append((first, stop))
            self.register_buffer(f"rows_{i}", None if h == height else rows[top:bottom, first:stop].contiguous())

    def forward(self, scores_NChw: Tensor) -> Tensor:
        """Map class scores to the uint8 class map [N, H, W]."""
        scores = scores_NChw
        if self.offsets is not None:
            scores = scores + self.offsets
        if self.binary and scores.shape[1] == 2:
            scores = scores[:, 1:] - scores[:, :1]
        if self.scale != 1.0:
            scores = scores * self.scale
        if self.columns is not None:
            scores = torch.matmul(scores, self.columns)
        parts = []
        for i, (first, stop) in enumerate(self.bands):
            rows: Tensor | None = getattr(self, f"rows_{i}")
            band = scores if rows is None else torch.matmul(rows, scores[:, :, first:stop])
            parts.append(self._positive(band[:, 0]) if self.binary else self.decide(band))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _positive(self, score_NBW: Tensor) -> Tensor:
        if not self.as_floats:
            return (score_NBW > 0.0).to(torch.uint8)
        return torch.clamp(score_NBW, 0.0, 1.0 + _HALF).to(torch.uint8)


def _offsets(contract: Contract, num_scores: int) -> Tensor | None:
    """What is added to each score, [1, C, 1, 1]: a part of the class layer's bias in the end. `None` where it is nothing."""
    if num_scores > 2:
        offsets = class_offsets(contract)
        return None if offsets is None else torch.tensor(offsets).view(1, -1, 1, 1)
    limit = max(-_LARGEST_SCORE, min(_LARGEST_SCORE, binary_limit(contract)))
    return None if limit == 0 else torch.tensor([0.0, -limit][-num_scores:]).view(1, -1, 1, 1)


def head_for(format: str, scores_shape: tuple[int, ...], contract: Contract) -> nn.Module:
    """The decision head for scores [1, C, h, w], in the form measured fastest in the runtime of `format`."""
    _, num_scores, h, w = scores_shape
    return BandedHead(num_scores, (h, w), contract, fastest(format, num_scores)).eval()
