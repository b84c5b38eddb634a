"""An instance network in every format: the contract's outputs, and the objects torch finds; run by the real runtimes."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from export_tools import PALETTE, RUNTIME_OF
from shapes_tools import CLASSES, draw_shapes
from test_exporters import signature_of

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.errors import ConfigError
from edgeseg.core.images import Frame
from edgeseg.core.instances import Instances, as_instances, from_outputs
from edgeseg.core.manifest import Contract
from edgeseg.models import build, normalise
from edgeseg.models.mask_rcnn import InstanceContractModule, MaskRcnn
from exporters import EXPORTERS
from quantization import QUANTIZERS
from targets.runtimes import RuntimeOptions, open_session

CONTRACT: Final = Contract(height=61, width=90, task="instance", max_instances=6)
SECTION: Final = ModelSection(name="mask_rcnn", encoder="resnet18", width=0.125, max_instances=6)
on_every_format = pytest.mark.parametrize(
    "format", [pytest.param(name, marks=pytest.mark.slow) if name == "tflite" else name for name in EXPORTERS if name != "tensorrt"]
)
_FOLDER: Final = tempfile.TemporaryDirectory(prefix="edgeseg-instances-")


def frames_of(count: int, first: int) -> list[Frame]:
    return [draw_shapes(first + i, (CONTRACT.height, CONTRACT.width))[0] for i in range(count)]


@functools.cache
def network() -> MaskRcnn:
    """Random weights with the norms of these frames, and scores spread so far that frames differ in what is found."""
    net = build(SECTION, len(CLASSES), seed=3)
    assert isinstance(net, MaskRcnn)
    net.train()
    with torch.no_grad():
        for _ in range(20):
            net(normalise(torch.from_numpy(np.stack(frames_of(4, 100)))))
        net.rpn.scores.weight *= 30
        net.box_head.scores.weight *= 30
        net.box_head.deltas.weight *= 300
        net.mask_head.scores.weight *= 5
    return net.eval()


def answered_by_torch(frame: Frame) -> Instances:
    with torch.inference_mode():
        found, masks = InstanceContractModule(network())(torch.from_numpy(frame[None].copy()))
    return from_outputs(found.numpy(), masks.numpy(), num_classes=len(CLASSES))


def sealed(model: ModelFiles) -> Bundle:
    info = BundleInfo(name=f"instances-{model.format}", contract=CONTRACT, classes=CLASSES, palette=PALETTE[: len(CLASSES)], reference=None,
                      parents=(), config_sha256="0" * 64)
    return seal_bundle(model.folder.parent / f"bundle-{model.precision}", model, info, golden_frames=[],
                       answer=lambda _: ("none", lambda frame: frame[:, :, 0]))


@functools.cache
def exported(format: str) -> Bundle:
    folder = Path(_FOLDER.name) / format / "fp32"
    folder.mkdir(parents=True)
    return sealed(EXPORTERS[format](network(), CONTRACT, folder))


def test_the_network_says_something_about_these_frames() -> None:
    counts = [len(answered_by_torch(frame)) for frame in frames_of(4, 9000)]
    assert max(counts) > 1
    assert len({tuple(answered_by_torch(frame).scores_K.tolist()) for frame in frames_of(4, 9000)}) == 4
    assert any(int(answered_by_torch(frame).masks_Khw.std()) > 64 for frame in frames_of(4, 9000))


@on_every_format
def test_names_types_and_shapes(format: str) -> None:
    inputs, outputs = signature_of(exported(format))
    assert inputs == [("frame", "uint8", (1, CONTRACT.height, CONTRACT.width, 3))]
    wanted = {"detections": (6, 6), "masks": (6, 28, 28)}
    assert {(name, shape) for name, _, shape in outputs} == set(wanted.items())


@on_every_format
def test_finds_what_torch_finds(format: str) -> None:
    session = open_session(exported(format), RUNTIME_OF[format], RuntimeOptions())
    for frame in frames_of(4, 9000):
        got, wanted = as_instances(session.run(frame)), answered_by_torch(frame)
        np.testing.assert_array_equal(got.classes_K, wanted.classes_K)
        np.testing.assert_allclose(got.scores_K, wanted.scores_K, atol=1e-4)
        np.testing.assert_allclose(got.boxes_K4, wanted.boxes_K4, atol=1e-2)
        assert np.abs(got.masks_Khw.astype(int) - wanted.masks_Khw).max() <= 1
    session.close()


@on_every_format
def test_int8_is_smaller_answers_and_says_what_stays_float(format: str, tmp_path: Path) -> None:
    fp32 = exported(format)
    model = QUANTIZERS[format](fp32, frames_of(4, 100), tmp_path)
    assert model.precision == "int8"
    assert "boxes, scores" in str(model.scheme["float_reason"])
    int8 = sealed(model)
    assert int8.size_bytes < 0.7 * fp32.size_bytes
    session = open_session(int8, RUNTIME_OF[format], RuntimeOptions())
    assert max(len(as_instances(session.run(frame))) for frame in frames_of(4, 9000)) > 0
    session.close()


@on_every_format
def test_refuses_what_does_not_fit_the_contract(format: str, tmp_path: Path) -> None:
    more = Contract(height=64, width=96, task="instance", max_instances=7)
    with pytest.raises(ConfigError, match="finds 6 objects and the contract has 7 slots"):
        EXPORTERS[format](network(), more, tmp_path)
    with pytest.raises(ConfigError, match="gives a class a pixel"):
        EXPORTERS[format](build(ModelSection(width=0.25), 3), CONTRACT, tmp_path)
    assert not list(tmp_path.iterdir())
