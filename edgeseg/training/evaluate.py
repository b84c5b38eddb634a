"""Accuracy of anything that answers frames, at the size of the frames themselves.

Legend: F = frames, C = classes, H/W = rows/columns of a frame, h/w = rows/columns at model size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from edgeseg.core.images import ClassMap, Frame, to_frame, to_model
from edgeseg.core.manifest import Contract
from edgeseg.core.metrics import Confusion, confusion_matrix
from edgeseg.data.store import FrameStore
from edgeseg.models import ContractModule

Predict = Callable[[Frame], ClassMap]
"""Frame uint8 [h, w, 3] at model size -> class map uint8 [h, w]."""


def evaluate(predict: Predict, store: FrameStore, contract: Contract, num_classes: int, *,
             part: tuple[int, int] = (0, 1), on_frame: Callable[[int, int], None] | None = None) -> Confusion:
    """Confusion matrices of every frame: int64 [F, C, C], rows = label; sum over F for the data set.

    Frames come to model size and answers back to frame size by `edgeseg.core.images`, as on a device. `on_frame(done, total)` is
    called after each frame. With `part` = (rank, count) only every `count`-th frame is answered; the matrices of the others are 0.
    """
    confusions_FCC = np.zeros((len(store), num_classes, num_classes), dtype=np.int64)
    for i in range(part[0], len(store), part[1]):
        frame_HWC, label_HW = store[i]
        height, width = label_HW.shape
        placement = contract.place((height, width))
        answers = [predict(part) for part in to_model(frame_HWC, placement)]
        confusions_FCC[i] = confusion_matrix(to_frame(answers, placement), label_HW, num_classes=num_classes)
        if on_frame is not None:
            on_frame(i + 1, len(store))
    return confusions_FCC


def torch_predictor(net: nn.Module, contract: Contract, device: torch.device | str = "cpu") -> Predict:
    """Answer frames with `net` through the reference decision, in float32; switches `net` to evaluation mode and moves it."""
    module = ContractModule(net, contract).to(device).eval()

    def predict(frame_hwc: Frame) -> ClassMap:
        with torch.inference_mode():
            frame_NHWC = torch.from_numpy(np.array(frame_hwc)).unsqueeze(0).to(device)
            class_map: ClassMap = module(frame_NHWC)[0].cpu().numpy()
        return class_map

    return predict
