"""The pruning step: how it shares out epochs, what the cost table says between its points, and a latency met for real, once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import pytest
from chain_tools import TINY_CONFIG, write_tiny_project
from torch import nn

from edgeseg.core.config import Config, ModelSection, PruneSection, QuantizeSection
from edgeseg.core.errors import ConfigError
from edgeseg.core.files import read_json
from edgeseg.models import build
from edgeseg.pruning import LayerShape, Pruner
from edgeseg.pruning.prune import macs
from edgeseg.workflow.compress.latency_table import Axes, LatencyTable, axes_of, measure_table, point_name
from edgeseg.workflow.compress.network_latency import NetworkTimer, precision_of
from edgeseg.workflow.compress.pruning import epochs_of, prune
from edgeseg.workflow.compress.pruning_latency import LatencyGoal, cut_to
from edgeseg.workflow.context import open_run
from edgeseg.workflow.learn import learning
from edgeseg.workflow.measure import measuring
from edgeseg.workflow.measure.measuring import gain_words, method_words, pruning_gain
from edgeseg.workflow.steps import StepResult
from edgeseg.workflow.ui import Silent
from targets.boards import plan
from targets.channels import channel_step
from targets.measure.result import MEASURING

CONV = LayerShape(kind="conv", in_channels=64, out_channels=96, kernel=(3, 3), in_hw=(20, 30), out_hw=(20, 30))
DEPTHWISE = LayerShape(
    kind="conv", in_channels=64, out_channels=64, groups=64, kernel=(3, 3), stride=(2, 2), padding=(1, 1), in_hw=(20, 30), out_hw=(10, 15),
)


def test_half_of_the_epochs_follow_the_last_cut() -> None:
    section = PruneSection(epochs=30, steps=4)
    assert [epochs_of(section, number) for number in (1, 2, 3, 4)] == [5, 5, 5, 15]
    assert [epochs_of(PruneSection(epochs=7, steps=3), number) for number in (1, 2, 3)] == [1, 1, 5]
    assert epochs_of(PruneSection(epochs=30), 1) == 30


def test_the_precision_is_that_of_the_bundle_that_will_be_recommended() -> None:
    config = Config()
    to_latency = dataclasses.replace(config, prune=PruneSection(p90_ms=9.0))
    assert precision_of(config) == "fp32"
    assert precision_of(to_latency) == "int8"
    assert precision_of(dataclasses.replace(to_latency, quantize=QuantizeSection(int8=False))) == "fp32"
    assert precision_of(dataclasses.replace(config, prune=PruneSection(macs_share=0.5, precision="int8"))) == "int8"


def test_a_layer_is_measured_at_few_counts_and_fixed_sides_at_their_own() -> None:
    shapes = {"conv": CONV, "dw": DEPTHWISE, "stem": dataclasses.replace(CONV, in_channels=3), "whole": CONV}
    axes = axes_of(shapes, {"conv": (True, True), "dw": (True, True), "stem": (False, True)}, 16)
    assert set(axes) == {"conv", "dw", "stem"}, "what no cut changes is not measured"
    assert axes["stem"].ins == (3,)
    for axis in (axes["conv"].ins, axes["conv"].outs, axes["dw"].outs):
        assert axis[0] == 16
        assert axis == tuple(sorted(set(axis)))
        assert all(count % 16 == 0 for count in axis)
    assert axes["conv"].outs[-1] == 96
    assert axes["conv"].ins[-1] == 64


def test_cost_between_points_is_interpolated_in_both_counts_and_in_stairs() -> None:
    points = {(a, b): float(a * b) for a in (16, 64) for b in (16, 96)}
    table = LatencyTable(
        {"conv": Axes((16, 64), (16, 96), 16), "dw": Axes((16, 64), (16, 64), 16)},
        {**{point_name(CONV.with_channels(a, b)): ms for (a, b), ms in points.items()},
         **{point_name(DEPTHWISE.with_channels(c, c)): 2.0 * c for c in (16, 64)}},
    )
    assert table("conv", CONV) == 64 * 96
    assert table("conv", CONV.with_channels(32, 48)) == pytest.approx(32 * 48)  # a product of lines is met everywhere
    assert table("conv", CONV.with_channels(33, 48)) == table("conv", CONV.with_channels(48, 48)), "33 channels cost as much as 48"
    assert table("dw", DEPTHWISE.with_channels(48, 48)) == pytest.approx(96)
    assert table("elsewhere", CONV) == 0
    assert point_name(CONV) == point_name(CONV.with_channels(96, 64)), "there and back are measured together"
    assert point_name(DEPTHWISE) != point_name(dataclasses.replace(DEPTHWISE, stride=(1, 1)))


def test_layers_are_measured_once_a_place(tmp_path: Path) -> None:
    how = plan("host", "openvino", "fp32", num_threads=1)
    asked: list[int] = []

    def measure(place: str, **more: object) -> LatencyTable:
        return measure_table(
            {"conv": CONV, "dw": DEPTHWISE}, {"conv": (True, True), "dw": (True, True)}, step=32, format="openvino", precision="fp32",
            how=how, place={"machine": place}, cache=tmp_path, progress=lambda label, done, total: asked.append(total),
        )

    first = measure("here")
    assert asked == [len(first.ms)]
    assert first("conv", CONV) > first("conv", CONV.with_channels(32, 32)) > 0
    assert measure("here") == first
    assert len(asked) == 1, "nothing was measured again"
    file = next(tmp_path.rglob("*.json"))
    raw = json.loads(file.read_text())
    assert raw["place"]["machine"] == "here"
    raw["ms"].pop(point_name(DEPTHWISE))
    file.write_text(json.dumps(raw))
    again = measure("here")
    assert asked[1:] == [1], "only what is missing"
    assert again("conv", CONV) == first("conv", CONV)


def test_every_runtime_says_what_its_kernels_like() -> None:
    assert channel_step("openvino", "x86_64") == 16
    assert channel_step("litert", "aarch64") == 8
    assert channel_step("something new", "riscv64") == 8


class Scripted:
    """In place of `NetworkTimer`: the shares that are measured, in order."""

    def __init__(self, *shares: float) -> None:
        self.left = list(shares)

    def bundle(self, name: str, net: nn.Module) -> str:
        return name

    def share(self, whole: str, other: str) -> float:
        assert whole == "whole"
        return self.left.pop(0)


class Heard(Silent):
    """What was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def pruner() -> Pruner:
    return Pruner(build(ModelSection(name="unet", width=0.5, depth=1), 3), (32, 48), importance="magnitude", round_to=8)


def cut_as(pruner: Pruner, tmp_path: Path, *shares: float, last: bool = True) -> tuple[dict[str, Any], list[str], Scripted]:
    """Cut to 60 % of the latency with `shares` measured; its facts, what was said, and the timer."""
    facts = {
        "least_share": 0.1, "table_whole_ms": pruner.full(macs), "table_least_ms": pruner.least(macs), "whole_p90_ms": 20.0,
        "runtime": "openvino", "runtime_version": "1", "format": "openvino", "precision": "fp32", "target": "host", "measured_on": "here",
    }
    timer, heard = Scripted(*shares), Heard()
    goal = LatencyGoal("0" * 64, facts, 0.6, cast(NetworkTimer, timer), cast(LatencyTable, macs))
    path = tmp_path / "edgeseg.toml"
    path.write_text(TINY_CONFIG)
    with open_run(path, (), ui=heard) as ctx:
        _, _, found = cut_to(ctx, goal, pruner, 0.6, whole=pruner.net, scope="global", last=last)
    return found["latency"], heard.lines, timer


def test_a_latency_that_no_cut_meets_is_said_to_be_missed(pruner: Pruner, tmp_path: Path) -> None:
    found, lines, _ = cut_as(pruner, tmp_path, 0.72, 0.66, 0.63, 0.65, 0.64)
    assert (found["reached"], found["measured_share"], found["estimated_p90_ms"]) == (False, 0.63, pytest.approx(12.6))
    missed = ("The cut misses the latency asked for by 3.0 points: 63.0% of the unpruned network's instead of 60.0%, "
              "a p90 of about 12.60 ms instead of 12.00.")
    assert lines[-1].startswith(missed)
    cut = {"macs_before": 200, "macs_after": 100, "importance": "taylor", "scope": "global", "round_to": 8, "cuts": 1, "latency": found}
    assert missed in gain_words({"ratio": 1.5, "low": 1.4, "high": 1.6}, cut)
    assert "p90 20.00 -> about 12.60 ms" in method_words(cut)


def test_a_cut_that_missed_is_made_again_until_it_is_fast_enough(pruner: Pruner, tmp_path: Path) -> None:
    found, lines, timer = cut_as(pruner, tmp_path, 0.72, 0.59, 0.5)
    assert (found["reached"], found["measured_share"], found["cuts_measured"]) == (True, 0.59, 2)
    assert (found["first_measured_share"], timer.left) == (0.72, [0.5])
    assert not [line for line in lines if "misses" in line]
    found, lines, _ = cut_as(pruner, tmp_path, 0.72, last=False)
    assert (found["reached"], found["cuts_measured"]) == (False, 1), "a cut on the way is corrected by those after it"
    assert not [line for line in lines if "misses" in line]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, trained for two epochs."""
    text = TINY_CONFIG.replace("[model]\nwidth = 0.5", '[model]\nname = "unet"\nwidth = 0.5\ndepth = 1')
    text = text.replace("epochs = 30", "epochs = 2").replace("macs_share = 0.7\nepochs = 6", "epochs = 2")
    path = write_tiny_project(tmp_path_factory.mktemp("prune"), config=text.replace("size = [64, 96]", "size = [48, 64]"))
    pruned(path, "train.epochs=2")
    return path


def pruned(path: Path, *sets: str) -> tuple[StepResult, list[str], dict[str, object] | None]:
    """The step as the chain meets it: its result, the steps that were not found done, and what was gained."""
    with open_run(path, ('targets=["host"]', 'export.formats=["openvino"]', "bench.threads=1", *sets), ui=Silent()) as ctx:
        data = learning.prepare_data(ctx)
        trained = learning.train(ctx, data)
        final = prune(ctx, data, trained)
        gain = pruning_gain(ctx, data, trained, final)
        return final, [step.name for step in ctx.steps.done if not step.cached], gain


def test_a_latency_is_met_step_by_step_and_found_again(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path))
    asked = ("prune.latency_share=0.7", "prune.precision=fp32", "prune.steps=2")
    final, made, gain = pruned(project, *asked)
    assert made == ["prune-latency", "prune-cut-1", "prune-1", "prune-cut", "prune", "pruning-gain"]
    cut = read_json(final.output / "prune.json")
    found = cut["latency"]
    assert (cut["importance"], cut["scope"], cut["round_to"], cut["cuts"]) == ("taylor", "global", channel_step("openvino", "x86_64"), 2)
    assert (found["asked_share"], found["precision"], found["runtime"]) == (0.7, "fp32", "openvino")
    assert found["least_share"] < found["measured_share"] <= 0.7
    assert found["reached"] is True
    assert found["estimated_p90_ms"] == pytest.approx(found["whole_p90_ms"] * found["measured_share"])
    assert found["first_predicted_share"] <= 0.7
    classes = next(row for row in cut["channels"] if row["layer"] == "classifier.scores")
    assert classes["before"] == classes["after"]
    assert gain is not None
    assert "of the latency of the unpruned network in openvino fp32" in method_words(cut)
    said = gain_words(gain, cut)
    assert "latency gain over MAC gain" in said
    assert "misses" not in said
    again, made, _ = pruned(project, *asked)
    assert made == []
    assert again.sha256 == final.sha256
    monkeypatch.setattr(measuring, "MEASURING", MEASURING + 1)
    assert pruned(project, *asked)[1] == ["pruning-gain"], "measured by other code; nothing is cut or trained again for it"


def test_less_than_the_smallest_network_takes_is_refused_with_the_least_possible(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path))
    said = r"\[prune\] p90_ms = 0.01: unpruned .* ms in openvino fp32 here, and cut to the least it still takes .*; set at least p90_ms = "
    with pytest.raises(ConfigError, match=said) as error:
        pruned(project, "prune.p90_ms=0.01", "prune.precision=fp32")
    assert "\n" not in str(error.value)
    final, made, gain = pruned(project, "prune.p90_ms=100000", "prune.precision=fp32")
    assert (final.name, made, gain) == ("train", [], None), "fast enough already"
