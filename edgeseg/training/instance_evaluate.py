"""Average precision of an instance network, at the size of the frames themselves.

Legend: N = frames, h/w = rows/columns at model size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from edgeseg.core.errors import DataError
from edgeseg.core.images import Frame, to_model
from edgeseg.core.instance_metrics import ApCounter, InstanceScore
from edgeseg.core.instances import Instances, from_outputs
from edgeseg.core.manifest import Contract
from edgeseg.core.paste import to_frame_boxes
from edgeseg.data.instance_store import InstanceStore
from edgeseg.models.mask_rcnn import InstanceContractModule

PredictInstances = Callable[[Frame], Instances]
"""Frame uint8 [h, w, 3] at model size -> objects, boxes in pixels of the model's size."""


def instance_predictor(net: nn.Module, num_classes: int, device: torch.device | str = "cpu") -> PredictInstances:
    """Answer frames with `net` as the contract says, in float32; switches `net` to evaluation mode and moves it."""
    module = InstanceContractModule(net).to(device).eval()

    def predict(frame_hwc: Frame) -> Instances:
        with torch.inference_mode():
            found_K6, masks = module(torch.from_numpy(np.array(frame_hwc)).unsqueeze(0).to(device))
        return from_outputs(found_K6.cpu().numpy(), masks.cpu().numpy(), num_classes=num_classes)

    return predict


def evaluate_instances(predict: PredictInstances, store: InstanceStore, contract: Contract, *,
                       on_frame: Callable[[int, int], None] | None = None) -> InstanceScore:
    """Score every frame of `store` (COCO's average precision); boxes come back to frame size by `edgeseg.core.paste`, as on a device.

    Raises:
        DataError: no object is labelled in any frame.
    """
    if not sum(store.object_counts):
        raise DataError("no object is labelled in the frames to evaluate on; label some, or choose another split")
    counter = ApCounter(store.num_classes)
    for i, (frame_HWC, label) in enumerate(store):
        frame_hw = (frame_HWC.shape[0], frame_HWC.shape[1])
        placement = contract.place(frame_hw)
        counter.add(to_frame_boxes(predict(to_model(frame_HWC, placement)[0]), placement), label, frame_hw)
        if on_frame is not None:
            on_frame(i + 1, len(store))
    return counter.score()
