"""Small networks that learned something, and their bundles, made once a test run and shared by the tests of exporters and quantizers."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.images import ClassMap, Frame
from edgeseg.core.manifest import Contract
from edgeseg.models import ContractModule, build, normalise, upsample_logits
from exporters import EXPORTERS
from quantization import QUANTIZERS

RUNTIME_OF: Final = {"onnx": "onnxruntime", "openvino": "openvino", "tflite": "litert", "tensorrt": "onnxruntime"}
PALETTE: Final = ((20, 20, 20), (200, 60, 40), (60, 200, 80), (70, 90, 220), (210, 200, 60))
_FOLDER: Final = tempfile.TemporaryDirectory(prefix="edgeseg-exports-")


@dataclass(frozen=True)
class Case:
    """A network at a size."""

    section: ModelSection
    num_classes: int
    contract: Contract
    steps: int


CASES: Final[dict[str, Case]] = {
    "fast_scnn": Case(ModelSection(name="fast_scnn", width=0.5), 5, Contract(height=96, width=128), 100),
    "lraspp": Case(ModelSection(name="lraspp_mobilenet_v3_small", width=0.5), 3, Contract(height=90, width=118), 80),
    "unet-threshold": Case(
        ModelSection(name="unet", width=0.125, depth=2), 1, Contract(height=48, width=68, decision="threshold", threshold=0.4), 40,
    ),
    "unet-two-scores": Case(
        ModelSection(name="unet", width=0.125, depth=2), 2, Contract(height=48, width=68, decision="threshold", threshold=0.7), 40,
    ),
    "unet-thresholds": Case(
        ModelSection(name="unet", width=0.125, depth=2), 4,
        Contract(height=48, width=68, decision="thresholds", thresholds=(0.6, 0.25, 0.1, 0.05)), 60,
    ),
}


def example(case: Case, seed: int) -> tuple[Frame, ClassMap]:
    """A noisy frame of coloured rectangles and their classes; a threshold case has red against the rest."""
    rng = np.random.default_rng(seed)
    height, width = case.contract.height, case.contract.width
    label = np.zeros((height, width), np.uint8)
    classes = max(case.num_classes, 2)
    for _ in range(8):
        top, left = int(rng.integers(0, height - 20)), int(rng.integers(0, width - 30))
        label[top : top + int(rng.integers(16, 48)), left : left + int(rng.integers(16, 64))] = rng.integers(0, classes)
    frame = np.array(PALETTE, np.float32)[label] + rng.normal(0, 15, (height, width, 3))
    return np.clip(frame, 0, 255).astype(np.uint8), label


@functools.cache
def trained(name: str) -> nn.Module:
    """The case's network after a few seconds of learning, so that its activations are those of a network in use."""
    case = CASES[name]
    net = build(case.section, case.num_classes, seed=1).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # what dropout drops: the same network, whichever test asks for it first
        _teach(net, case)
    return net.eval()


def _teach(net: nn.Module, case: Case) -> None:
    size = (case.contract.height, case.contract.width)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    for step in range(case.steps):
        pairs = [example(case, 4 * step + i) for i in range(4)]
        frames = torch.from_numpy(np.stack([frame for frame, _ in pairs]))
        labels = torch.from_numpy(np.stack([label for _, label in pairs])).long()
        logits = upsample_logits(net(normalise(frames)), size)
        if case.num_classes == 1:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
        else:
            loss = torch.nn.functional.cross_entropy(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def frames_of(name: str, count: int, *, first: int) -> list[Frame]:
    """Frames that the network has not learned from (`first` beyond the training seeds)."""
    return [example(CASES[name], first + i)[0] for i in range(count)]


def reference(name: str, frames: list[Frame]) -> list[ClassMap]:
    """What torch answers."""
    module = ContractModule(trained(name), CASES[name].contract).eval()
    with torch.no_grad():
        return [module(torch.from_numpy(frame[None]))[0].numpy() for frame in frames]


def seal(name: str, model: ModelFiles) -> Bundle:
    """Make a bundle of model files, without golden frames."""
    case = CASES[name]
    classes = max(case.num_classes, 2)
    info = BundleInfo(
        name=f"{name}-{model.format}", contract=case.contract, classes=tuple(f"class{i}" for i in range(classes)),
        palette=PALETTE[:classes], reference=None, parents=(), config_sha256="0" * 64,
    )
    target = model.folder.parent / f"bundle-{model.precision}"
    return seal_bundle(target, model, info, golden_frames=[], answer=lambda _bundle: ("none", lambda frame: frame[:, :, 0]))


@functools.cache
def exported(format: str, name: str) -> Bundle:
    """The fp32 bundle."""
    workdir = Path(_FOLDER.name) / format / name / "fp32"
    workdir.mkdir(parents=True)
    return seal(name, EXPORTERS[format](trained(name), CASES[name].contract, workdir))


@functools.cache
def quantized(format: str, name: str) -> tuple[Bundle, ModelFiles]:
    """The int8 bundle, calibrated on frames that neither training nor tests use."""
    workdir = Path(_FOLDER.name) / format / name / "int8"
    workdir.mkdir(parents=True)
    model = QUANTIZERS[format](exported(format, name), frames_of(name, 8, first=5000), workdir)
    return seal(name, model), model
