"""The data room on real labelled images; skipped where they are not at hand (they may not be shipped)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgeseg.core.config import AugmentSection, DataSection
from edgeseg.data.check import check_dataset
from edgeseg.data.dataset import load_dataset
from edgeseg.data.inspect import inspect_folder
from edgeseg.data.loader import batches
from edgeseg.data.store import FrameStore

ROOT = Path(os.environ.get("EDGESEG_DATASETS", Path(__file__).parents[2] / "../shared/datasets")).resolve()

EXPECTED = {
    "camvid": ((367, 101, 233), 11, (360, 480), "stretch"),
    "cwfid": ((33, 6, 21), 3, (376, 512), "stretch"),
    "dsb2018-nuclei-small": ((180, 30, 60), 2, (256, 256), "letterbox"),
    "isbi2012-em": ((20, 5, 5), 2, (512, 512), "stretch"),
}


def real(name: str) -> Path:
    if not (ROOT / name).is_dir():
        pytest.skip(f"{ROOT / name} is absent; set EDGESEG_DATASETS to the folder that holds it")
    return ROOT / name


@pytest.mark.parametrize("name", EXPECTED)
def test_real_folder_is_read_and_understood(name: str) -> None:
    frames, num_classes, size, resize = EXPECTED[name]
    section = DataSection(dir=str(real(name)))
    data = load_dataset(section, seed=0)
    assert tuple(len(data.splits[split]) for split in ("train", "val", "test")) == frames
    assert len(data.classes) == num_classes
    found = inspect_folder(real(name))
    assert (found.section.size, found.section.resize) == (size, resize)
    store = FrameStore(data.splits["val"][:5], num_classes=num_classes, memory_limit_mb=100)
    (batch,) = batches(store, seed=0, epoch=0, batch_size=5, crop_hw=(64, 96), section=AugmentSection(), model_hw=size, resize=resize)
    assert batch.frames_NHWC.shape == (5, 64, 96, 3)
    assert set(np.unique(batch.labels_NHW)) <= {*range(num_classes), 255}


@pytest.mark.parametrize("name", ["isbi2012-em", "dsb2018-nuclei-small"])
def test_real_folder_is_sound(name: str) -> None:
    report = check_dataset(DataSection(dir=str(real(name))), seed=0)
    assert report.ok, report.problems[:3]
