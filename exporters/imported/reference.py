"""What the original answers: frames prepared and answers decided outside of the graph, for the new graph to be compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeseg.core.images import ClassMap, Frame
from edgeseg.models import decide, upsample_logits
from exporters.imported.base import Reading, Settled
from exporters.imported.ends import LUMA, AnswerEnd


def answer_as_the_original(settled: Settled, reading: Reading, frame_HWC: Frame) -> ClassMap:
    """Class map uint8 [H, W] of a frame at model size, by the original model in its own runtime.

    Raises:
        RuntimeFailure: its runtime failed.
    """
    answer = torch.from_numpy(np.ascontiguousarray(settled.run(prepare(frame_HWC, reading))))
    size_hw = (reading.contract.height, reading.contract.width)
    class_map: ClassMap
    if reading.answers == "classes":
        class_map = AnswerEnd(reading, "")(answer)[0].numpy()
        return class_map
    scores = {"NCHW": answer, "NHWC": answer.movedim(-1, 1), "NHW": answer[:, None]}[reading.output_layout]
    scores = upsample_logits(scores, size_hw)
    if reading.probabilities:
        assert reading.contract.threshold is not None
        class_map = (scores[0, -1] > reading.contract.threshold).to(torch.uint8).numpy()
        return class_map
    class_map = decide(scores, reading.contract)[0].numpy()
    return class_map


def prepare(frame_HWC: Frame, reading: Reading) -> NDArray[Any]:
    """The model's input of a frame, in numpy: layout, channel order and (value - mean) / scale."""
    x_HWC: NDArray[Any] = frame_HWC[:, :, ::-1] if reading.order == "bgr" else frame_HWC
    if reading.order == "gray":
        x_HWC = (x_HWC.astype(np.float32) * np.array(LUMA, np.float32)).sum(axis=2, keepdims=True, dtype=np.float32)
        x_HWC = x_HWC if reading.scale else (x_HWC + 0.5).astype(np.uint8)
    if reading.scale:
        x_HWC = (x_HWC.astype(np.float32) - np.array(reading.mean, np.float32)) / np.array(reading.scale, np.float32)
    x = x_HWC[None] if reading.layout == "NHWC" else x_HWC.transpose(2, 0, 1)[None]
    return np.ascontiguousarray(x)
