"""Labels that were turned or mirrored against their image, where sizes cannot tell: edges of the label lie on edges of the image.

For each way to turn a label, its agreement is how far up the ranking of the image's gradients the pixels at the label's boundaries stand:
0 = as anywhere in the image, 0.5 = on its very strongest edges. A label that agrees clearly better after a turn than as it is was turned.
Ranks do not depend on contrast and light, so images of one data set can be compared.

Legend: S = sides of a thumbnail, T = ways to turn, N = samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeseg.core.images import IGNORE_INDEX, ClassMap, Frame
from edgeseg.data.base import Problem, Sample, relative

TURNS: Final = ("as it is", "a half turn", "mirrored left to right", "mirrored top to bottom",
                "a quarter turn to the left", "a quarter turn to the right", "mirrored at a diagonal", "mirrored at the other diagonal")
"""What would make the label fit; those from the fifth on are possible in square frames only."""
_SIDE: Final = 96
_FEWEST: Final = 100
"""Boundary pixels of the thumbnail below which a label says nothing."""
_FOLLOWS: Final = 0.08
"""Median agreement of a data set below which its labels do not follow edges (rough outlines), and nothing is judged."""
CLEARLY: Final = 0.06
"""How much better a turned label must agree."""


def edge_agreement(frame_HWC: Frame, label_HW: ClassMap) -> NDArray[np.float64] | None:
    """Agreement for each of `TURNS` that frames of this shape allow, [4] or [8]; `None` where the label has too few boundaries.

    Label and frame are of one size.
    """
    small = Image.fromarray(frame_HWC).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    dy, dx = np.gradient(np.asarray(small, dtype=np.float64))
    ranks = np.empty(_SIDE * _SIDE)
    ranks[np.argsort(np.hypot(dx, dy), axis=None, kind="stable")] = np.arange(_SIDE * _SIDE) / (_SIDE * _SIDE) - 0.5
    boundary_SS = _boundaries(np.asarray(Image.fromarray(label_HW).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)))
    if boundary_SS.sum() < _FEWEST:
        return None
    ranks_SS = ranks.reshape(_SIDE, _SIDE)
    square = frame_HWC.shape[0] == frame_HWC.shape[1]
    return np.array([ranks_SS[turn].mean() for turn in _turned(boundary_SS)[: 8 if square else 4]])


def _boundaries(label_SS: ClassMap) -> NDArray[np.bool_]:
    """Pixels beside another class, the rim of the frame and ignored pixels aside."""
    found = np.zeros(label_SS.shape, dtype=np.bool_)
    for axis in (0, 1):
        differs = np.diff(label_SS.astype(np.int16), axis=axis) != 0
        for side in (slice(None, -1), slice(1, None)):
            found[(side, slice(None)) if axis == 0 else (slice(None), side)] |= differs
    found[label_SS == IGNORE_INDEX] = False
    found[[0, -1]] = found[:, [0, -1]] = False
    return found


def _turned(of_SS: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """In the order of `TURNS`."""
    return [of_SS, of_SS[::-1, ::-1], of_SS[:, ::-1], of_SS[::-1], np.rot90(of_SS), np.rot90(of_SS, -1), of_SS.T, of_SS[::-1, ::-1].T]


def turned(root: Path, samples: Sequence[Sample], agreements: Sequence[NDArray[np.float64] | None]) -> list[Problem]:
    """A warning for each label that fits its image clearly better turned, or one for all where most do."""
    known = [(sample, found) for sample, found in zip(samples, agreements, strict=True) if found is not None]
    if not known:
        return []
    typical = float(np.median([found.max() for _, found in known]))
    if typical < _FOLLOWS:
        return []
    odd = [(sample, int(found.argmax())) for sample, found in known if _is_turned(found, typical)]
    if 2 * len(odd) > len(known):
        turns = [turn for _, turn in odd]
        most = max(set(turns), key=turns.count)
        return [Problem(file=".", kind="turned-label",
                        message=f"{len(odd)} of {len(known)} labels fit the edges of their images clearly better turned ({TURNS[most]} in "
                                f"{turns.count(most)}): images and labels were stored in different orientations; look with --sheet")]
    return [Problem(file=relative(root, sample.shown), kind="turned-label",
                    message=f"the label fits the edges of its image clearly better after {_words(turn)}; look with --sheet")
            for sample, turn in odd]


def _is_turned(found_T: NDArray[np.float64], typical: float) -> bool:
    """Whether another turn than none fits: clearly better, and about as well as labels of this data set do."""
    best = float(found_T.max())
    return best - float(found_T[0]) >= CLEARLY and best >= 0.6 * typical


def _words(turn: int) -> str:
    return TURNS[turn] if "turn" in TURNS[turn] else f"being {TURNS[turn]}"
