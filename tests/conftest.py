"""Makes helper modules in `tests/` importable from every test (pytest puts the folder of a conftest on the path); what takes seconds
to make and is never changed is made once here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from wheel_tools import build_wheel

from edgeseg.core.bundle import Bundle, BundleInfo, seal_bundle
from edgeseg.core.config import ModelSection
from edgeseg.core.images import Frame
from edgeseg.core.manifest import Contract


def pytest_configure() -> None:
    """Give each process of `pytest -n` processors of its own: threads that spin beside those of another process take many times as long."""
    worker, count = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    share = sorted(os.sched_getaffinity(0))[int(worker.removeprefix("gw"))::count]
    if share:
        os.sched_setaffinity(0, share)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Let a test draw the same random numbers each time: PyTorch begins with others in every process."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def tflite_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle: a small Fast-SCNN with random weights, exported to TFLite, its golden answers given by LiteRT here."""
    from edgeseg.models import build
    from exporters import EXPORTERS
    from targets.runtimes import RuntimeOptions, open_session

    folder = tmp_path_factory.mktemp("tflite")
    contract = Contract(height=64, width=96)
    net = build(ModelSection(name="fast_scnn", width=0.25), num_classes=3, seed=5)
    (folder / "work").mkdir()
    model = EXPORTERS["tflite"](net, contract, folder / "work")
    info = BundleInfo(
        name="random-tflite", contract=contract, classes=("soil", "crop", "weed"), palette=((110, 80, 50), (60, 160, 60), (220, 60, 60)),
        reference=None, parents=(), config_sha256="0" * 64,
    )

    def answer(bundle: Bundle) -> tuple[str, object]:
        return "litert", open_session(bundle, "litert", RuntimeOptions()).run

    frames: list[Frame] = [np.random.default_rng(i).integers(0, 256, (64, 96, 3), dtype=np.uint8) for i in range(2)]
    seal_bundle(folder / "bundle", model, info, golden_frames=frames, answer=answer)  # type: ignore[arg-type]
    return folder / "bundle"
