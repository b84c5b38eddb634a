"""What a report is made from: each bundle answers in the arithmetic its row says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeseg.core.bundle import Bundle
from edgeseg.core.config import parse_config
from edgeseg.core.files import write_json
from edgeseg.core.images import ClassMap, Frame
from edgeseg.workflow.show import reporting
from targets.runtimes import RuntimeOptions


class Zeros:
    """A session that finds class 0 everywhere."""

    def run(self, frame: Frame) -> ClassMap:
        """Answer."""
        return np.zeros(frame.shape[:2], np.uint8)

    def close(self) -> None:
        """Nothing to close."""


def test_pictures_are_made_in_the_arithmetic_of_their_row(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_session(bundle: Bundle, runtime: str, options: RuntimeOptions) -> Zeros:
        opened.append(options.precision_hint)
        return Zeros()

    monkeypatch.setattr(reporting, "open_session", open_session)
    manifest = SimpleNamespace(format="openvino", precision="fp32")
    ctx: Any = SimpleNamespace(config=parse_config({"data": {"size": [32, 32]}}))
    answer = np.zeros((32, 32), np.uint8)
    frame = np.zeros((32, 32, 3), np.uint8)
    data: Any = SimpleNamespace(
        store=lambda split: [(frame, answer)], eval_split="val", dataset=SimpleNamespace(splits={"val": [SimpleNamespace(id="a")]})
    )
    reference: Any = SimpleNamespace(class_maps=lambda: [[answer]])
    sealed = [SimpleNamespace(arithmetic=bits, name=bits, bundle=SimpleNamespace(manifest=manifest)) for bits in ("f32", "bf16")]
    verified: Any = [SimpleNamespace(bundle=one, frame_agreement=[0.9]) for one in sealed]
    (picture,) = reporting._pictures(ctx, data, reference, verified)
    assert opened == list(picture.bundle_maps) == ["f32", "bf16"]


def test_the_benchmark_of_the_whole_chain_takes_the_recommended_bundle_in_its_arithmetic(tmp_path: Path) -> None:
    from benchmarks.whole_chain import recommended

    row = {"target": "host", "bundle": "r-openvino-fp32", "recommended": False, "arithmetic": "f32"}
    write_json(tmp_path / "results.json", [row, {**row, "recommended": True, "arithmetic": "bf16"}])
    assert recommended(tmp_path) == (tmp_path / "bundles" / "r-openvino-fp32", "bf16")
