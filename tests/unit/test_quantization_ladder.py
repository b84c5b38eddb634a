"""The search for layers that must stay float: it finds them, keeps no others, and stays within its trials."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models

from edgeseg.core.bundle import Bundle, ModelFiles
from quantization import Int8Plan
from quantization.ladder import MOST_TRIALS, Bench, Judged, choose_plan, describe, float_share, keep_layers, overlapping, short_name
from quantization.tensors import LayerFacts


def layer(index: int) -> LayerFacts:
    return LayerFacts(name=f"l{index:02}", kind="convolution", inputs=(), outputs=(), macs=100 + index, weight_shape=(1,))


class Written:
    """A writer whose models are their plans; what a layer loses in 8 bits is given."""

    def __init__(self, count: int, losses: dict[int, float]) -> None:
        self.layers = tuple(layer(index) for index in range(count))
        self.losses = {f"l{index:02}": loss for index, loss in losses.items()}
        self.written: list[Int8Plan] = []

    def write(self, plan: Int8Plan, workdir: Path) -> ModelFiles:
        self.written.append(plan)
        (workdir / "m").write_bytes(b"x" * (100 + len(plan.float_layers)))
        scheme = {"floats": plan.float_layers, "calibrator": plan.calibrator}
        return ModelFiles(folder=workdir, files=("m",), entry="m", format="null", precision="int8", scheme=scheme, tools={})

    def judge(self, bundle: Bundle) -> Judged:
        floats = bundle.manifest.scheme["floats"]
        lost = sum(loss for name, loss in self.losses.items() if name not in floats)
        return Judged(cost=0.5 + lost + (bundle.manifest.scheme["calibrator"] == "min-max"))


def bench(tmp_path: Path, written: Written) -> Bench:
    return Bench(tiny_models.tiny_bundle(tmp_path, "null"), written, written.judge, tmp_path)


def test_finds_the_two_layers_that_matter(tmp_path: Path) -> None:
    written = Written(47, {7: 1.5, 30: 0.9, 12: 0.1})
    trials = bench(tmp_path, written)
    start = trials.try_plan(Int8Plan(calibrator="a"), "start")
    kept = keep_layers(trials, start, written.layers)
    assert kept.trial.judged.reached
    assert {"l07", "l30"} <= set(kept.trial.plan.float_layers)
    assert len(kept.trial.plan.float_layers) <= 5
    assert len(trials.tried) - 1 <= MOST_TRIALS
    assert kept.gains[0][1] == pytest.approx(1.6) and {"l07", "l12"} <= set(kept.gains[0][0])
    assert kept.trial.size_bytes == 100 + len(kept.trial.plan.float_layers)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("trial-")]


def test_gives_the_best_where_nothing_is_enough(tmp_path: Path) -> None:
    written = Written(12, {0: 5.0, 4: 0.7})
    written.losses["elsewhere"] = 3.0
    trials = bench(tmp_path, written)
    kept = keep_layers(trials, trials.try_plan(Int8Plan(calibrator="a"), "start"), written.layers)
    assert not kept.trial.judged.reached
    assert kept.trial.judged.cost == pytest.approx(3.5)
    assert {"l00", "l04"} <= set(kept.trial.plan.float_layers)


def test_layers_that_help_nothing_stay_int8(tmp_path: Path) -> None:
    written = Written(10, {})
    written.losses["elsewhere"] = 3.0
    trials = bench(tmp_path, written)
    start = trials.try_plan(Int8Plan(calibrator="a"), "start")
    assert keep_layers(trials, start, written.layers).trial is start


def test_the_first_of_equal_plans_wins_and_none_is_written_twice(tmp_path: Path) -> None:
    written = Written(3, {})
    trials = bench(tmp_path, written)
    offers = [Int8Plan(calibrator="min-max"), Int8Plan(calibrator="a"), Int8Plan(calibrator="b"), Int8Plan(calibrator="a")]
    assert choose_plan(trials, offers).plan.calibrator == "a"
    assert len(written.written) == 3


def test_of_what_reaches_the_goals_the_nearest_to_float_wins() -> None:
    reached = [Judged(cost=0.1, agreement=0.98), Judged(cost=0.9, agreement=0.99), Judged(cost=1.1, agreement=0.999)]
    assert min(reached, key=lambda judged: judged.order) is reached[1]
    missed = [Judged(cost=3.0, agreement=0.99), Judged(cost=2.0, agreement=0.9)]
    assert min(missed, key=lambda judged: judged.order) is missed[1]


@pytest.mark.parametrize(("count", "windows"), [(0, 4), (1, 4), (2, 8), (4, 4), (5, 4), (47, 8)])
def test_windows_cover_all_and_hold_every_two_neighbours(count: int, windows: int) -> None:
    parts = overlapping([layer(index) for index in range(count)], windows)
    assert len(parts) <= windows
    assert {name for part in parts for name in part} == {f"l{index:02}" for index in range(count)}
    for index in range(count - 1):
        assert any({f"l{index:02}", f"l{index + 1:02}"} <= set(part) for part in parts)


def test_finds_two_neighbours_that_help_only_together(tmp_path: Path) -> None:
    written = Written(9, {})
    trials = bench(tmp_path, written)

    def judge(bundle: Bundle) -> Judged:
        together = {"l03", "l04"} <= set(bundle.manifest.scheme["floats"])
        return Judged(cost=0.5 if together else 3.0)

    trials.judge = judge
    kept = keep_layers(trials, trials.try_plan(Int8Plan(calibrator="a"), "start"), written.layers)
    assert kept.trial.plan.float_layers == ("l03", "l04")


def test_share_of_macs_and_words() -> None:
    layers = [layer(0), layer(100)]
    plan = Int8Plan(calibrator="entropy", float_layers=("l00",), bias_correction=True, ranges={"t": (0, 1)})
    assert float_share(layers, plan) == pytest.approx(100 / 300)
    assert describe(plan) == "entropy, bias correction, 1 learnt ranges, 1 float layers"
    assert short_name("__module.net.down.0.conv/aten::_convolution/Convolution") == "__module.net.down.0.conv/Convolution"
    assert short_name("node_conv2d_3") == "node_conv2d_3"
    assert short_name("a.B/c.D_net/e.Conv_0;;a.B/c.D_net/f.Norm_1;12") == "c.D_net/f.Norm_1"
