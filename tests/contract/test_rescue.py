"""The rescue ladder in the real runtime, on a network that 8 bits a tensor break: one channel is 300 times as large as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from export_tools import CASES, example, seal, trained
from torch import nn

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError, EdgesegError, TrainingError
from edgeseg.models import fold
from edgeseg.workflow.compress.climbing import Climb, Climbed, FineTuned, climb
from edgeseg.workflow.compress.judging import Limits, judge_by_agreement, judge_by_labels
from edgeseg.workflow.compress.ladder_words import kept_lines
from exporters import EXPORTERS
from quantization.ladder import Judge, Judged, as_bundle

NAME = "unet-thresholds"
FACTOR = 300.0


def broken(net: nn.Module) -> nn.Module:
    """The same function in float: one channel between two convolutions is multiplied, and divided again."""
    net = fold(copy.deepcopy(net))
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    first, second = convolutions[0], convolutions[1]
    assert first.bias is not None and second.in_channels == first.out_channels and second.groups == 1
    with torch.no_grad():
        first.weight[0] *= FACTOR
        first.bias[0] *= FACTOR
        second.weight[:, 0] /= FACTOR
    return net


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    work = tmp_path_factory.mktemp("broken") / "fp32"
    work.mkdir()
    return seal(NAME, EXPORTERS["onnx"](broken(trained(NAME)), CASES[NAME].contract, work))


def climbed(parent: Bundle, folder: Path, last: str, limits: Limits) -> Climbed:
    frames = [example(CASES[NAME], 5000 + i)[0] for i in range(4)]
    judge = judge_by_labels(parent, [example(CASES[NAME], 6000 + i) for i in range(4)], limits)
    for name in ("work", "out"):
        (folder / name).mkdir()
    return climb(Climb(parent=parent, frames=frames, judge=judge, limits=limits, last=last, work=folder / "work"), folder / "out")


def test_calibration_alone_does_not_rescue_it_and_two_layers_in_float_do(parent: Bundle, tmp_path: Path) -> None:
    found = climbed(parent, tmp_path, "mixed", Limits(miou_drop=0.01))
    first, second = found.rungs
    assert (first["rung"], first["reached"], first["kept"]) == ("post_training", False, False)
    assert first["miou_drop"] > 0.02
    assert len(first["tried"]) == 6
    assert (second["rung"], second["reached"], second["kept"]) == ("mixed", True, True)
    assert second["miou_drop"] <= 0.01
    assert 1 <= len(second["float_layers"]) <= 4
    assert 0 < second["float_macs_share"] < 1
    assert (found.reached, found.model.precision) == (True, "mixed")
    judge = judge_by_labels(parent, [example(CASES[NAME], 6000 + i) for i in range(4)], Limits())
    again = judge(as_bundle(parent, found.model))  # what was written is what was tried
    assert again.miou_drop == pytest.approx(second["miou_drop"], abs=1e-6)
    assert not list((tmp_path / "work").iterdir())


def test_a_lower_limit_keeps_the_best_found_and_says_what_to_type(parent: Bundle, tmp_path: Path) -> None:
    found = climbed(parent, tmp_path, "post_training", Limits(miou_drop=0.001))
    assert (found.reached, found.model.precision, len(found.rungs)) == (False, "int8", 1)
    ladder = {"rungs": list(found.rungs), "reached": False, "goals": {"miou_drop": 0.001, "class_drop": None}, "last_rung": "post_training",
              "judged_on": {"num_frames": 4}}
    assert kept_lines("onnx", ladder)[1].endswith("edgeseg run --set quantize.rescue=mixed, which keeps the layers that need it float")
    ladder["last_rung"] = "qat"
    assert "cannot be met in int8 here" in kept_lines("onnx", ladder)[1]


def test_a_fine_tuned_network_is_the_next_rung_and_the_best_found_is_kept(parent: Bundle, tmp_path: Path) -> None:
    """The network as it was before it was broken stands for one that learnt not to need more than 8 bits."""
    for name in ("fp32", "work", "out"):
        (tmp_path / name).mkdir()
    whole = as_bundle(parent, EXPORTERS["onnx"](trained(NAME), CASES[NAME].contract, tmp_path / "fp32"))
    frames = [example(CASES[NAME], 5000 + i)[0] for i in range(2)]
    agreed = judge_by_agreement(parent, frames)

    def judge(bundle: Bundle) -> Judged:
        """Nothing is ever good enough, and float layers are worth nothing."""
        return Judged(cost=2 + agreed(bundle).cost + 100 * (bundle.manifest.precision == "mixed"))

    tuned = FineTuned(bundle=whole, ranges={}, facts={"carried": 0}, parent_sha256="a" * 64)
    request = Climb(parent=parent, frames=frames, judge=judge, limits=Limits(), last="qat", work=tmp_path / "work", fine_tune=lambda: tuned)
    found = climb(request, tmp_path / "out")
    assert [rung["rung"] for rung in found.rungs] == ["post_training", "mixed", "qat", "qat and mixed"]
    assert [rung["kept"] for rung in found.rungs] == [False, False, True, False]
    assert (found.reached, found.model.precision, found.parent_sha256) == (False, "int8", "a" * 64)
    assert found.model.scheme["method"] == "quantization-aware training"


def request_of(parent: Bundle, folder: Path, judge: Judge, fine_tune: Callable[[], FineTuned]) -> Climb:
    """A climb to the top for a point of mIoU, judged by `judge`."""
    for name in ("work", "out"):
        (folder / name).mkdir()
    frames = [example(CASES[NAME], 5000)[0]]
    return Climb(
        parent=parent, frames=frames, judge=judge, limits=Limits(miou_drop=0.01), last="qat", work=folder / "work", fine_tune=fine_tune
    )


def never() -> FineTuned:
    """Nothing may be fine-tuned."""
    raise AssertionError("climbed too far")


def undecided(cost: float) -> Judged:
    """As measured it is good enough, at the bad end of the interval it is not."""
    return Judged(cost=cost, miou=0.6, miou_drop=0.005, miou_drop_high=cost / 100, agreement=0.99)


def missed(cost: float) -> Judged:
    """It is not good enough as measured."""
    return Judged(cost=cost, miou=0.6, miou_drop=0.012, miou_drop_high=cost / 100, agreement=0.98)


def test_what_too_few_frames_leave_open_is_not_climbed_for(parent: Bundle, tmp_path: Path) -> None:
    """Though a calibrator that misses the goal has the narrower interval."""
    judged: list[Bundle] = []

    def judge(bundle: Bundle) -> Judged:
        judged.append(bundle)
        return undecided(3.0) if len(judged) == 2 else missed(2.0)

    found = climb(request_of(parent, tmp_path, judge, never), tmp_path / "out")
    (rung,) = found.rungs
    assert (rung["verdict"], rung["reached"], rung["kept"], found.reached) == ("not decided", False, True, False)
    assert (rung["miou_drop"], rung["best"], found.model.precision) == (0.005, rung["tried"][1]["tried"], "int8")


def test_of_layers_in_float_no_more_are_kept_than_the_measured_drop_needs(parent: Bundle, tmp_path: Path) -> None:
    def judge(bundle: Bundle) -> Judged:
        """Every layer in float helps a little, and none is enough to be sure."""
        size = sum(path.stat().st_size for path in bundle.folder.iterdir())
        return undecided(2 + 1e4 / size) if bundle.manifest.precision == "mixed" else missed(9.0)

    found = climb(request_of(parent, tmp_path, judge, never), tmp_path / "out")
    first, second = found.rungs
    assert (first["verdict"], second["verdict"], second["kept"]) == ("missed", "not decided", True)
    assert any("most helpful windows" in trial["tried"] for trial in second["tried"])  # more layers were tried, and cost less
    assert second["best"].endswith(f"{len(second['float_layers'])} float layers")
    assert len(second["float_layers"]) <= max(len(part["layers"]) for part in second["layers"])
    assert second["miou_drop_high"] > min(trial["miou_drop_high"] for trial in second["tried"])


@pytest.mark.parametrize("error", [ConfigError("its norms cannot be undone"), TrainingError("loss is nan at step 3")])
def test_a_fine_tuning_that_fails_leaves_what_was_found_before(parent: Bundle, tmp_path: Path, error: EdgesegError) -> None:
    def fail() -> FineTuned:
        raise error

    found = climb(request_of(parent, tmp_path, lambda bundle: missed(2 + (bundle.manifest.precision == "mixed")), fail), tmp_path / "out")
    assert [rung["rung"] for rung in found.rungs] == ["post_training", "mixed", "qat"]
    assert found.rungs[2]["best"] == f"not possible: {error}"
    assert [rung["kept"] for rung in found.rungs] == [True, False, False]
    assert (tmp_path / "out" / found.model.entry).is_file()
    judged_on, goals = {"num_frames": 1}, {"miou_drop": 0.01}
    ladder = {"rungs": list(found.rungs), "reached": False, "goals": goals, "last_rung": "qat", "judged_on": judged_on}
    _, why, unmet = kept_lines("onnx", ladder)
    assert str(error) in why and "cannot be met in int8 here" in unmet and "qat_epochs" not in unmet
