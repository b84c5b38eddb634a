"""The rescue ladder inside a run: up to fine-tuning, found again when nothing changed, and climbed anew when the goals did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chain_tools import write_tiny_project

from edgeseg.core.bundle import Bundle
from edgeseg.workflow import chain
from edgeseg.workflow.bundle import bundling
from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.compress.judging import judge_by_labels
from edgeseg.workflow.context import open_run
from edgeseg.workflow.learn import learning
from edgeseg.workflow.ui import Silent
from quantization.ladder import Judge, Judged

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


@pytest.fixture
def hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is tried loses 50 points more than it does."""

    def judge(*given: Any) -> Judge:
        inner = judge_by_labels(*given)

        def worse(bundle: Bundle) -> Judged:
            found = inner(bundle)
            assert found.miou_drop is not None and found.miou_drop_high is not None
            return replace(found, cost=found.cost + 50, miou_drop=found.miou_drop + 0.5, miou_drop_high=found.miou_drop_high + 0.5)

        return worse

    monkeypatch.setattr("edgeseg.workflow.compress.rescue.judge_by_labels", judge)


def folders(made: SealedBundle) -> list[str]:
    return sorted(path.name for path in made.step.output.parent.iterdir())


@pytest.mark.usefixtures("hopeless")
def test_a_goal_nothing_meets_is_climbed_to_the_top_and_told(quantize: Callable[..., tuple[SealedBundle, list[str]]]) -> None:
    made, lines = quantize("quantize.rescue=qat", "goals.miou_drop=0.0", "goals.class_drop=0.0")
    found = ladder(made)
    assert [rung["rung"] for rung in found["rungs"]][:3] == ["post_training", "mixed", "qat"]
    assert found["judged_on"]["split"] == "train" and found["judged_on"]["num_frames"] == 10
    assert made.bundle.manifest.scheme["calibration"]["num_frames"] == 6
    assert (Path(made.step.output).parents[1] / "checkpoints" / "qat" / "qat.npz").is_file()
    assert not found["reached"] and any("cannot be met in int8 here" in line for line in lines)
    carried = next(rung for rung in found["rungs"] if rung["rung"] == "qat")["carried"]
    assert carried["carried"] > 5
    again, lines = quantize("quantize.rescue=qat", "goals.miou_drop=0.0", "goals.class_drop=0.0")
    assert again.step.sha256 == made.step.sha256
    assert {"rescue-onnx: unchanged", "quantize-onnx: unchanged"} <= set(lines)


@pytest.mark.usefixtures("hopeless")
def test_how_the_float_network_teaches_shapes_the_fine_tuning(quantize: Callable[..., tuple[SealedBundle, list[str]]]) -> None:
    """Without [train] teacher the values of distillation change no trained network, but they change the one that is fine-tuned."""
    top = ("quantize.rescue=qat", "goals.miou_drop=0.0", "goals.class_drop=0.0")
    made, _ = quantize(*top)
    other, lines = quantize(*top, "train.distill_weight=0.5")
    assert {"train: unchanged", "export-onnx: unchanged"} <= set(lines)
    assert not {"rescue-onnx: unchanged", "qat: unchanged"} & set(lines)
    if any(rung["rung"].startswith("qat") and rung["kept"] for rung in ladder(made)["rungs"]):
        assert other.step.sha256 != made.step.sha256
    quantize("goals.miou_drop=1.0")
    _, lines = quantize("goals.miou_drop=1.0", "train.distill_weight=0.5")
    assert "rescue-onnx: unchanged" in lines  # nothing is fine-tuned


def test_how_int8_is_made_is_no_part_of_the_float_bundle(quantize: Callable[..., tuple[SealedBundle, list[str]]]) -> None:
    made, _ = quantize("goals.miou_drop=1.0")
    other, lines = quantize("goals.miou_drop=1.0", "quantize.rescue=post_training", "quantize.fp16=true")
    assert "export-onnx: unchanged" in lines and "rescue-onnx: unchanged" not in lines
    assert other.bundle.manifest.config_sha256 != made.bundle.manifest.config_sha256
    assert other.bundle.manifest.parents == made.bundle.manifest.parents
    again, _ = quantize("goals.miou_drop=1.0")
    assert again.bundle.manifest.config_sha256 == made.bundle.manifest.config_sha256


@pytest.mark.usefixtures("hopeless")
def test_a_network_that_cannot_be_fine_tuned_is_told_first_and_has_its_bundle(
    quantize: Callable[..., tuple[SealedBundle, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeseg.workflow.compress.rescue.why_not", lambda _: "no way")
    made, lines = quantize("quantize.rescue=qat", "quantize.qat_epochs=2", "goals.miou_drop=0.0", "goals.class_drop=0.0")
    assert lines.index("note: onnx: fine-tuning for int8 is not possible: no way") < next(
        i for i, line in enumerate(lines) if line.startswith("rescue-onnx: done")
    )
    rungs = ladder(made)["rungs"]
    assert (rungs[-1]["rung"], rungs[-1]["best"]) == ("qat", "not possible: no way")
    assert sum(rung["kept"] for rung in rungs) == 1


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
