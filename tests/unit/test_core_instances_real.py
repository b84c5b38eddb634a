"""AP of pasted masks on real COCO labels: equal to pycocotools fed with the annotation file itself. Skipped where the images are absent."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeseg.core.config import DataSection
from edgeseg.core.images import Frame
from edgeseg.core.instance_metrics import ApCounter
from edgeseg.core.instances import InstanceLabel, Instances
from edgeseg.core.paste import paste
from edgeseg.data.dataset import load_dataset
from edgeseg.data.instance_store import InstanceStore

ROOT = Path(os.environ.get("EDGESEG_DATASETS", Path(__file__).parents[2] / "../shared/datasets")).resolve() / "native" / "coco"


@pytest.fixture(scope="module")
def store() -> InstanceStore:
    if not ROOT.is_dir():
        pytest.skip(f"{ROOT} is absent; set EDGESEG_DATASETS to the folder that holds it")
    data = load_dataset(DataSection(dir=str(ROOT)), seed=0, need=())
    return InstanceStore(data.splits["val"], num_classes=len(data.classes), memory_limit_mb=200)


def found_from(label: InstanceLabel, rng: np.random.Generator, *, shift_px: float) -> Instances:
    """The labelled objects as an instance model would give them, each moved by up to `shift_px`, some of another class."""
    objects = ~label.crowd_N
    count = int(objects.sum())
    masks = np.zeros((count, 28, 28), np.uint8)
    for mask, whole, box in zip(masks, label.masks_NHW[objects], label.boxes_N4[objects].astype(int), strict=True):
        x0, y0, x1, y1 = box.tolist()
        mask[:] = np.asarray(Image.fromarray(whole[y0:y1, x0:x1].astype(np.uint8) * 255).resize((28, 28), Image.Resampling.BOX))
    classes = np.where(rng.random(count) < 0.9, label.classes_N[objects], 1)
    return Instances(
        boxes_K4=(label.boxes_N4[objects] + rng.uniform(-shift_px, shift_px, (count, 4))).astype(np.float32),
        scores_K=rng.uniform(0.05, 1, count).astype(np.float32), classes_K=classes.astype(np.int64), masks_Khw=masks,
    )


def frame_hw(frame: Frame) -> tuple[int, int]:
    return frame.shape[0], frame.shape[1]


def test_28_by_28_cells_are_enough_for_real_objects(store: InstanceStore) -> None:
    counter, rng = ApCounter(store.num_classes), np.random.default_rng(0)
    for frame, label in store:
        found = found_from(label, rng, shift_px=0)
        counter.add(Instances(boxes_K4=found.boxes_K4, scores_K=found.scores_K, classes_K=label.classes_N[~label.crowd_N],
                              masks_Khw=found.masks_Khw), label, frame_hw(frame))
    score = counter.score()
    assert score.ap > 0.95
    assert score.ap50 == pytest.approx(1)
    assert score.box_ap == pytest.approx(1)


def test_equal_to_pycocotools_on_the_annotation_file(store: InstanceStore) -> None:
    coco, coder = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.mask")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    index = ROOT / "annotations" / "instances_split_val.json"
    raw = json.loads(index.read_text())
    image_ids = {Path(image["file_name"]).stem: image["id"] for image in raw["images"]}
    category_ids = [0, *sorted(category["id"] for category in raw["categories"])]
    counter, rng, results = ApCounter(store.num_classes), np.random.default_rng(5), []
    for sample, (frame, label) in zip(store.samples, store, strict=True):
        found = found_from(label, rng, shift_px=6)
        counter.add(found, label, frame_hw(frame))
        for patch, class_index, score in zip(paste(found, frame_hw(frame)), found.classes_K, found.scores_K, strict=True):
            runs = coder.encode(np.asfortranarray(patch.on(frame_hw(frame)).astype(np.uint8)))
            results.append({"image_id": image_ids[sample.image.stem], "category_id": category_ids[int(class_index)], "segmentation": runs,
                            "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(index))
        official = evaluation.COCOeval(truth, truth.loadRes(results), "segm")
        official.evaluate()
        official.accumulate()
        official.summarize()
    assert 0.05 < official.stats[0] < 0.95  # else the test says nothing
    assert counter.score().ap == pytest.approx(official.stats[0], abs=1e-9)
    assert counter.score().ap50 == pytest.approx(official.stats[1], abs=1e-9)
