"""Which class has the largest score, in forms that are fast in different runtimes; all give the first of equals.

Legend: N = frames, C = scores a pixel, B = rows of a band, W = columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

SCALE: Final = 2.0**60
"""A power of two, so scaling is exact; any two scores that differ then differ by far more than the number of classes."""
HALF: Final = 0.5
"""Added to an index before it is cut down to uint8: beside int8 layers OpenVINO turns min(s x, 1) into s min(x, 1 / s), and what comes out
as 0.9999999 must not become 0. It moves sums likewise, shifting both limits by the same amount, and limits 1e-18 apart do not survive that
(a threshold taken off the difference of two scores answered 0 everywhere): thresholds are added first of all, where they are a bias."""

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
    """As `by_comparison`, in sums and extrema of floats: min(`SCALE` (score - best), index + `HALF`) is that or not positive."""
    scaled = scores_NCBW
    best, answer = scaled[:, 0], torch.zeros_like(scaled[:, 0])
    for index in range(1, scaled.shape[1]):
        larger = torch.clamp(scaled[:, index] - best, max=index + HALF)
        answer = torch.relu(larger) if index == 1 else torch.maximum(answer, larger)
        best = torch.maximum(best, scaled[:, index])
    return answer.to(torch.uint8)


def by_two_maxima(scores_NCBW: Tensor) -> Tensor:
    """Two maxima over the classes: max of (`SCALE` (score - maximum) + C - 1 - index) is C - 1 - the first index of the maximum."""
    last = scores_NCBW.shape[1] - 1
    rank = torch.arange(last, -1, -1, dtype=torch.float32, device=scores_NCBW.device).view(1, -1, 1, 1)
    maximum = scores_NCBW.amax(dim=1, keepdim=True)
    return (last + HALF - (scores_NCBW - maximum + rank).amax(dim=1)).to(torch.uint8)


DECISIONS: Final[dict[str, Decision]] = {
    "argmax": by_argmax,
    "comparison": by_comparison,
    "running_maximum": by_running_maximum,
    "two_maxima": by_two_maxima,
}
SCALED: Final = frozenset({"running_maximum", "two_maxima"})
"""Decisions that want their scores multiplied by `SCALE` (done at the network's stride). Exact in float32 and bfloat16; the
range of float16 is too small for it."""
