"""What an ONNX instance model finds in frames at model size, and how alike two such answers are: what chooses a calibrator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeseg.core.images import Frame
from edgeseg.core.instance_metrics import match
from edgeseg.core.instances import Instances, from_outputs
from edgeseg.core.lazy import require
from edgeseg.core.manifest import DETECTIONS_NAME, INPUT_NAME, MASKS_NAME


def find_objects(model: Path, frames: Sequence[Frame], *, num_classes: int) -> list[Instances]:
    """Answers of a model, by ONNX Runtime on the CPU."""
    ort = require("onnxruntime", extra="export")
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    outputs = [session.run([DETECTIONS_NAME, MASKS_NAME], {INPUT_NAME: frame[None]}) for frame in frames]
    return [from_outputs(detections_K6, masks_Khw, num_classes=num_classes) for detections_K6, masks_Khw in outputs]


def equal_objects(first: Instances, second: Instances) -> float:
    """Share of objects that are in both, whatever their scores; 1 where both are empty."""
    share = match(first, second, score_tolerance=None).share
    return 1.0 if share is None else share
