"""What was measured is found again, but not what the code of before measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from chain_tools import write_tiny_project
from tiny_models import tiny_bundle

from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.context import open_run
from edgeseg.workflow.learn import learning
from edgeseg.workflow.measure import measuring
from edgeseg.workflow.steps import StepResult
from edgeseg.workflow.ui import Silent
from targets.measure.result import MEASURING


@dataclass
class Counted:
    """Stands in for a measurement of seconds: here it matters whether one is made."""

    times: int = 0

    def __call__(self, *args: object, **kwargs: object) -> Counted:
        self.times += 1
        return self

    def to_json(self) -> dict[str, Any]:
        return {"settings": {}}


def test_what_the_code_of_before_measured_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, bundle = write_tiny_project(tmp_path), tiny_bundle(tmp_path, "onnx")
    int8 = replace(bundle, manifest=replace(bundle.manifest, name="tiny-int8", precision="int8"))
    sealed = [SealedBundle(StepResult(one.manifest.name, one.folder, "0" * 64, True, 0.0), one) for one in (bundle, int8)]
    alone, compared = Counted(), Counted()
    monkeypatch.setattr(measuring, "bench", alone)
    monkeypatch.setattr(measuring, "compare", compared)
    with open_run(path, ('targets=["host"]',), ui=Silent()) as ctx:
        data = learning.prepare_data(ctx)
        counts = []
        for version in (MEASURING, MEASURING, MEASURING + 1):
            monkeypatch.setattr(measuring, "MEASURING", version)
            assert len(measuring.measure_all(ctx, data, sealed, {})) == 2
            counts.append((alone.times, compared.times))
    assert counts == [(2, 1), (2, 1), (4, 2)]
