"""Whose filter brings a frame to model size: Pillow's (`edgeseg.core.images`) or OpenCV's, which is here; the contract says which."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from edgeseg.core.lazy import require

if TYPE_CHECKING:
    from edgeseg.core.images import Frame

RESIZERS: Final = ("pillow", "opencv")


def need_resizer(resizer: str) -> None:
    """Raise `MissingExtraError` where what `resizer` needs is not installed, with the command that installs it."""
    if resizer == "opencv":
        _opencv()


@cache
def _opencv() -> Any:  # noqa: ANN401 - a module
    cv2 = require("cv2", extra="opencv", install="pip install 'edgeseg[opencv]' (on a board: edgeseg devices setup NAME --extra opencv)")
    cv2.setNumThreads(1)
    return cv2


def by_opencv(frame_HWC: Frame, height: int, width: int, into: Frame | None = None) -> Frame:
    """OpenCV's SIMD: halved by means of two by two pixels as long as it is more than twice too large, then bilinear (INTER_LINEAR_EXACT).

    Up to twice, a bilinear pixel still reads every pixel it stands for; beyond, pixels would be left out (so do mipmaps: Williams 1983,
    "Pyramidal parametrics"). An odd axis is brought to the even length below first. All of it is done in whole numbers, so the bits are the
    same on every processor, which those of INTER_LINEAR and of INTER_AREA at other factors are not (docs/adr/0022).

    OpenCV's own threads are switched off for the process: frames are prepared side by side already (predict, training), and what is
    measured is one thread's work.
    """
    cv2 = _opencv()
    pixels, (H, W) = frame_HWC, frame_HWC.shape[:2]
    while 2 * height < H or 2 * width < W:
        half_h, half_w = (H // 2 if 2 * height < H else H), (W // 2 if 2 * width < W else W)
        even_h, even_w = (H // 2 * 2 if half_h < H else H), (W // 2 * 2 if half_w < W else W)
        if (even_h, even_w) != (H, W):
            pixels = cv2.resize(pixels, (even_w, even_h), interpolation=cv2.INTER_LINEAR_EXACT)
        last = into if (half_h, half_w) == (height, width) else None
        pixels, H, W = cv2.resize(pixels, (half_w, half_h), dst=last, interpolation=cv2.INTER_AREA), half_h, half_w
    if (height, width) != (H, W):
        pixels = cv2.resize(pixels, (width, height), dst=into, interpolation=cv2.INTER_LINEAR_EXACT)
    return pixels
