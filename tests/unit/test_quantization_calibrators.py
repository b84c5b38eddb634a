"""Which frames each calibrator sees, and that the answers choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from tiny_models import strongest_channel, tiny_frame

from edgeseg.core.images import Frame
from quantization.onnx_calibrators import CALIBRATORS, Calibrator, answers, choose, split_frames, thin


def test_frames_held_out_are_not_calibrated_on() -> None:
    frames = [tiny_frame(seed) for seed in range(20)]
    calibration, held_out = split_frames(frames)
    assert (len(calibration), len(held_out)) == (15, 5)
    assert not {frame.tobytes() for frame in calibration} & {frame.tobytes() for frame in held_out}


def test_few_frames_serve_for_both() -> None:
    frames = [tiny_frame(seed) for seed in range(7)]
    calibration, held_out = split_frames(frames)
    assert len(calibration) == len(held_out) == 7


@pytest.mark.parametrize(("max_pixels", "expected"), [(None, 40), (10 * 24 * 32, 10), (1, 4), (10**9, 40)])
def test_thinned_by_pixels(max_pixels: int | None, expected: int) -> None:
    frames = [tiny_frame(seed) for seed in range(40)]
    kept = thin(frames, max_pixels)
    assert len(kept) == expected
    assert kept[0] is frames[0]


@pytest.mark.parametrize("best", range(len(CALIBRATORS)))
def test_keeps_the_one_that_answers_as_fp32(tmp_path: Path, best: int) -> None:
    """Every candidate but one swaps two channels; that one must be kept."""
    tiny_models.write_onnx(tmp_path, 24, 32)
    fp32 = tmp_path / "model.onnx"
    frames = [tiny_frame(seed) for seed in range(12)]
    made: list[int] = []

    def make(calibrator: Calibrator, chosen: Sequence[Frame], path: Path) -> None:
        import onnx
        from onnx import numpy_helper

        model = onnx.load(str(fp32))
        if len(made) != best:
            swapped = np.eye(3, dtype=np.float32)[[1, 0, 2]].reshape(3, 3, 1, 1)
            model.graph.initializer[0].CopyFrom(numpy_helper.from_array(swapped, "weight"))
        made.append(len(chosen))
        onnx.save(model, str(path))

    name, path, shares = choose(make, fp32, frames, tmp_path)
    assert name == list(CALIBRATORS)[best]
    assert made == [9, 9, 9]
    assert shares[name] == 1.0
    assert all(share < 0.7 for other, share in shares.items() if other != name)
    assert np.array_equal(answers(path, frames[:1])[0][0], strongest_channel(frames[0]))
