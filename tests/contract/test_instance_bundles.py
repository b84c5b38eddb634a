"""Mask R-CNN through every exporter and quantizer: the bundle finds what torch finds, and int8 answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.images import Frame
from edgeseg.core.instance_metrics import match
from edgeseg.core.instances import Answer, as_instances
from edgeseg.core.manifest import Contract
from edgeseg.models import build
from edgeseg.training.instance_evaluate import instance_predictor
from exporters import EXPORTERS
from quantization import QUANTIZERS
from targets.boards import plan
from targets.runtimes import open_session

SLOTS = 8
CONTRACT = Contract(height=64, width=96, resize="letterbox", task="instance", max_instances=SLOTS)
CLASSES = ("background", "disc", "bar")
FORMATS = [pytest.param(name, marks=pytest.mark.slow) if name == "tflite" else name for name in EXPORTERS]  # its converter takes minutes


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    section = ModelSection(name="mask_rcnn", encoder="mobilenet_v3_small", width=0.125, max_instances=SLOTS)
    return build(section, len(CLASSES), seed=3).eval()


def frames(count: int) -> list[Frame]:
    """Noise with a bright rectangle."""
    made = []
    for i in range(count):
        frame = np.random.default_rng(i).integers(0, 90, (64, 96, 3), dtype=np.uint8)
        frame[10 + i : 40, 20 : 50 + i] = 220
        made.append(frame)
    return made


def sealed(folder: Path, model: ModelFiles) -> Bundle:
    info = BundleInfo(name=f"random-{model.format}-{model.precision}", contract=CONTRACT, classes=CLASSES,
                      palette=((0, 0, 0), (255, 0, 0), (0, 0, 255)), reference=None, parents=(), config_sha256="")

    def answer(bundle: Bundle) -> tuple[str, Callable[[Frame], Answer]]:
        how = plan("host", bundle.manifest.format, bundle.manifest.precision)
        return how.runtime, open_session(bundle, how.runtime, how.options).run

    return seal_bundle(folder, model, info, golden_frames=frames(3), answer=answer)


@pytest.mark.parametrize("format_", FORMATS)
def test_the_bundle_finds_what_torch_finds_and_int8_answers(format_: str, net: torch.nn.Module, tmp_path: Path) -> None:
    for name in ("fp32", "int8"):
        (tmp_path / name).mkdir()
    fp32 = sealed(tmp_path / "fp32-bundle", EXPORTERS[format_](net, CONTRACT, tmp_path / "fp32"))
    predict = instance_predictor(net, len(CLASSES))
    for frame, answer in fp32.golden_pairs():
        expected = predict(frame)
        assert len(expected) > 0  # random scores lie near 1/3
        assert match(expected, as_instances(answer)).share == 1

    model = QUANTIZERS[format_](fp32, frames(4), tmp_path / "int8")
    assert model.precision == "int8"
    assert "boxes, scores" in str(model.scheme["float_reason"])
    int8 = sealed(tmp_path / "int8-bundle", model)
    assert int8.size_bytes < 0.7 * fp32.size_bytes
    for _, answer in int8.golden_pairs():
        assert len(as_instances(answer)) > 0
