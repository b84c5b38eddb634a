"""How activation ranges are read off calibration frames for ONNX Runtime, and which way keeps the answers of this very network.

No one way is best: on CamVid the plain extremes follow a few outliers and cost a point of mIoU that percentiles keep, on close-up fields
and microscopy it is the other way round (docs/adr/0005-choosing-the-calibrator.md). So each is tried, and the answers decide.

Legend: N = frames, H/W = rows/columns at model size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import INPUT_NAME

_HELD_OUT_EVERY: Final = 4
_MAX_HELD_OUT: Final = 16
_FEWEST_TO_HOLD_OUT: Final = 8
_FEWEST_FRAMES: Final = 4


@dataclass(frozen=True, kw_only=True)
class Calibrator:
    """One way to choose ranges, in the words of onnxruntime.quantization."""

    method: str
    """Name in `CalibrationMethod`."""
    options: Mapping[str, Any]
    max_pixels: int | None = None
    """So many pixels of frames at most, but 4 frames at least: histograms keep every activation of every frame in memory until they
    are cut (3.5 GB for Fast-SCNN with 32 frames of 360x480)."""


CALIBRATORS: Final[dict[str, Calibrator]] = {
    "min-max": Calibrator(method="MinMax", options={}),
    "mean of the frames' min-max": Calibrator(method="MinMax", options={"CalibMovingAverage": True}),
    "percentile 99.99": Calibrator(method="Percentile", options={"CalibPercentile": 99.99}, max_pixels=32 * 360 * 480),
}


def split_frames(frames: Sequence[Frame]) -> tuple[list[Frame], list[Frame]]:
    """Give the frames to calibrate on and those held out to choose by; with fewer than 8, all of them are both."""
    if len(frames) < _FEWEST_TO_HOLD_OUT:
        return list(frames), list(frames)
    held_out = set(range(0, len(frames), _HELD_OUT_EVERY)[:_MAX_HELD_OUT])
    return [f for i, f in enumerate(frames) if i not in held_out], [frames[i] for i in sorted(held_out)]


def thin(frames: Sequence[Frame], max_pixels: int | None) -> list[Frame]:
    """As many frames as `max_pixels` allow, evenly spread."""
    height, width = frames[0].shape[:2]
    most = len(frames) if max_pixels is None else max(_FEWEST_FRAMES, max_pixels // (height * width))
    if len(frames) <= most:
        return list(frames)
    return [frames[i * len(frames) // most] for i in range(most)]


def answers(model: Path | bytes, frames: Sequence[Frame]) -> list[np.ndarray[Any, Any]]:
    """First output of a model for each frame, by ONNX Runtime on the CPU."""
    ort = require("onnxruntime", extra="export")
    session = ort.InferenceSession(str(model) if isinstance(model, Path) else model, providers=["CPUExecutionProvider"])
    return [session.run(None, {INPUT_NAME: frame[None]})[0] for frame in frames]


def equal_pixels(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Share of pixels with the same class."""
    return float(np.mean(first == second))


def choose(
    make: Callable[[Calibrator, Sequence[Frame], Path], None], fp32: Path, frames: Sequence[Frame], workdir: Path, *,
    ask: Callable[[Path, Sequence[Frame]], Sequence[Any]] = answers, alike: Callable[[Any, Any], float] = equal_pixels,
) -> tuple[str, Path, dict[str, float]]:
    """Quantize with each calibrator and keep the one whose answers agree best with fp32 on frames held out; the first wins a tie.

    `make(calibrator, frames, path)` writes the int8 model, `ask(path, frames)` gives a model's answers, `alike` compares two. Gives the
    name kept, its model, and each one's mean share.
    """
    calibration, held_out = split_frames(frames)
    expected = ask(fp32, held_out)
    shares: dict[str, float] = {}
    for index, (name, calibrator) in enumerate(CALIBRATORS.items()):
        path = workdir / f"candidate-{index}.onnx"
        make(calibrator, thin(calibration, calibrator.max_pixels), path)
        got = ask(path, held_out)
        shares[name] = float(np.mean([alike(a, b) for a, b in zip(got, expected, strict=True)]))
    best = max(shares, key=lambda name: shares[name])
    return best, workdir / f"candidate-{list(shares).index(best)}.onnx", shares
