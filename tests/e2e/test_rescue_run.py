"""The rescue ladder inside a run: up to fine-tuning, found again when nothing changed, and climbed anew when the goals did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chain_tools import write_tiny_project

from edgeseg.workflow import bundling, chain, learning
from edgeseg.workflow.bundling import SealedBundle
from edgeseg.workflow.context import open_run
from edgeseg.workflow.ui import Silent

CONFIG = """
name = "tiny"
[data]
dir = "data"
size = [64, 96]
[model]
name = "unet"
width = 0.125
depth = 2
[train]
epochs = 2
batch_size = 4
ema = 0.9
[export]
formats = ["onnx"]
golden_frames = 1
[quantize]
calibration_frames = 6
qat_epochs = 1
"""


class Told(Silent):
    """A face that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Keep it."""
        self.lines.append(text)


@pytest.fixture(scope="module")
def quantize(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[SealedBundle, list[str]]]:
    """Quantize the run with overrides; the bundle and what was said."""
    path = write_tiny_project(tmp_path_factory.mktemp("rescue"), config=CONFIG)

    def done(*overrides: str) -> tuple[SealedBundle, list[str]]:
        ui = Told()
        with open_run(path, overrides, ui=ui) as ctx:
            data = learning.prepare_data(ctx)
            final = learning.train(ctx, data)
            floats = bundling.export_all(ctx, data, final, chain._evaluate_float(ctx, data, final))
            (made,) = bundling.quantize_all(ctx, data, floats, final)
        return made, ui.lines

    return done


def ladder(made: SealedBundle) -> dict[str, Any]:
    found: dict[str, Any] = made.bundle.manifest.scheme["ladder"]
    return found


def folders(made: SealedBundle) -> list[str]:
    return sorted(path.name for path in made.step.output.parent.iterdir())


def test_a_goal_nothing_meets_is_climbed_to_the_top_and_told(quantize: Callable[..., tuple[SealedBundle, list[str]]]) -> None:
    made, lines = quantize("quantize.rescue=qat", "goals.miou_drop=0.0", "goals.class_drop=0.0")
    found = ladder(made)
    assert [rung["rung"] for rung in found["rungs"]][:3] == ["post_training", "mixed", "qat"]
    assert found["judged_on"]["split"] == "train" and found["judged_on"]["num_frames"] == 10
    assert made.bundle.manifest.scheme["calibration"]["num_frames"] == 6
    assert (Path(made.step.output).parents[1] / "checkpoints" / "qat" / "qat.npz").is_file()
    if not found["reached"]:
        assert any("cannot be met in int8 here" in line for line in lines)
    carried = next(rung for rung in found["rungs"] if rung["rung"] == "qat")["carried"]
    assert carried["carried"] > 5
    again, lines = quantize("quantize.rescue=qat", "goals.miou_drop=0.0", "goals.class_drop=0.0")
    assert again.step.sha256 == made.step.sha256
    assert {"rescue-onnx: unchanged", "quantize-onnx: unchanged"} <= set(lines)


def test_other_goals_climb_anew_and_leave_one_bundle(quantize: Callable[..., tuple[SealedBundle, list[str]]]) -> None:
    made, _ = quantize("goals.miou_drop=1.0")
    assert [rung["rung"] for rung in ladder(made)["rungs"]] == ["post_training"]
    assert ladder(made)["reached"]
    assert folders(made) == ["tiny-onnx-fp32", "tiny-onnx-int8"]
    made, lines = quantize("quantize.rescue=off")
    assert "ladder" not in made.bundle.manifest.scheme
    assert made.bundle.manifest.scheme["calibrator"] == "mean of the frames' min-max"
    assert not any("held back" in line for line in lines)
    assert not [path for path in (made.step.output.parents[1] / "work").iterdir() if path.name.startswith(".quantize-")]
