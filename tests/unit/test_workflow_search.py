"""The parts of a search that decide: its space, the front, the rule that stops a training, and a journal that survives."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomllib

from edgeseg.core.config import Config, DataSection, GoalsSection, load_config, parse_config, render_toml
from edgeseg.core.errors import BusyError, ConfigError, TrainingError
from edgeseg.core.files import is_locked, lock, patient_lock
from edgeseg.data.dataset import load_dataset
from edgeseg.data.synthetic import write_field
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.search import command, speed
from edgeseg.workflow.search import worker as loop
from edgeseg.workflow.search.front import Limits, Value, choose, nearest, pareto, shortfall
from edgeseg.workflow.search.journal import cut_torn_line, open_study
from edgeseg.workflow.search.results import best_path, check_best, conclude, rows_of
from edgeseg.workflow.search.space import Point, chosen_config, space_of, trial_config
from edgeseg.workflow.search.speed import Place, Stopwatch
from edgeseg.workflow.search.stopping import Rival, falls_behind, is_rung
from edgeseg.workflow.search.trial import Dropped, Environment, Hook, Watch
from edgeseg.workflow.search.worker import alive, bury, rivals_of, scores_of, take
from edgeseg.workflow.steps import Steps
from edgeseg.workflow.ui import Silent
from targets.boards import find_target, plan

POINT = Point(network="fast_scnn", width=0.5, scale=0.5, macs_share=0.7, precision="int8")


def config(**search: object) -> Config:
    return parse_config({"data": {"dir": "d", "size": [360, 480]}, "train": {"crop": [256, 320]}, "search": search})


def value(miou: float, p90_ms: float, size_bytes: int = 1_000_000) -> Value:
    return Value(miou=miou, p90_ms=p90_ms, size_bytes=size_bytes)


def test_a_goal_of_miou_is_judged_by_the_lower_end_of_its_interval() -> None:
    limits = Limits.of(GoalsSection(miou=0.5))
    pairs = ((0.53, 0.51), (0.6, 0.45), (0.52, None))
    sure, unsure, bare = (Value(miou=miou, p90_ms=10.0, size_bytes=1, miou_low=low) for miou, low in pairs)
    assert [one.meets(limits) for one in (sure, unsure, bare)] == [True, False, True]
    assert choose([sure, unsure, bare], limits) == 0
    assert shortfall(unsure, limits) == "mIoU 0.6000 (95 % interval from 0.4500, by which it is judged) where 0.5 was asked for"


def test_a_point_goes_to_its_parameters_and_back() -> None:
    space = space_of(config(networks=["fast_scnn", "unet/resnet18"]))
    assert len(space.points()) == 2 * 3 * 3 * 3 * 2
    for point in space.points():
        assert space.point_of(space.parameters(point)) == point
    assert len({(point.folder, point.precision) for point in space.points()}) == len(space.points())
    assert len({point.training for point in space.points()}) == 2 * 3 * 3


def test_a_point_becomes_a_configuration() -> None:
    chosen = chosen_config(config(), POINT)
    assert (chosen.name, chosen.data.size, chosen.train.crop, chosen.model.width) == ("run-best", (192, 256), (128, 160), 0.5)
    assert (chosen.prune.macs_share, chosen.quantize.int8, chosen.train.epochs) == (0.7, True, Config().train.epochs)
    assert parse_config(tomllib.loads(render_toml(chosen, defaults=False))) == chosen
    trial = trial_config(config(epochs=20), POINT, ("onnx",))
    assert (trial.train.epochs, trial.train.eval_every, trial.data.eval_split, trial.export.formats) == (20, 5, "val", ("onnx",))


def test_points_that_differ_in_pruning_or_precision_share_their_training() -> None:
    def learnt(point: Point) -> object:
        made = trial_config(config(), point, ("onnx",))
        return made.model, made.train, made.data, made.augment

    other = dataclasses.replace(POINT, macs_share=1.0, precision="fp32")
    assert learnt(POINT) == learnt(other)
    assert POINT.training == other.training
    assert learnt(POINT) != learnt(dataclasses.replace(POINT, scale=1.0))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"networks": ["mask_rcnn"]}, "mask_rcnn finds objects"),
        ({"widths": []}, r"\[search\] widths = \[\]: name at least one"),
        ({"scales": [1.0, 1]}, "each only once"),
        ({"macs_shares": [0.0]}, "expected 0.05 to 1"),
        ({"precisions": ["int4"]}, "one of fp32, int8"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_in_one_line(search: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        space_of(config(**search))
    assert "\n" not in str(caught.value)


def test_an_instance_network_is_refused() -> None:
    with pytest.raises(ConfigError, match="mask_rcnn finds objects"):
        space_of(parse_config({"model": {"name": "mask_rcnn"}}))


def test_the_front_holds_what_nothing_beats() -> None:
    values = [value(0.7, 30), value(0.6, 10), value(0.6, 12), value(0.65, 40), value(0.5, 9), value(0.7, 30)]
    assert pareto(values) == [4, 1, 0]
    assert pareto([]) == []


def test_the_best_that_meets_the_goals_is_chosen_else_the_nearest_is_named() -> None:
    values = [value(0.7, 30), value(0.6, 10), value(0.5, 9, 500_000)]
    assert choose(values, Limits()) == 0
    assert choose(values, Limits.of(GoalsSection(p90_ms=25))) == 1
    assert choose(values, Limits.of(GoalsSection(fps=100))) == 1
    assert choose(values, Limits.of(GoalsSection(p90_ms=25, size_mb=0.8))) == 2
    limits = Limits.of(GoalsSection(p90_ms=8, miou=0.5))
    assert choose(values, limits) is None
    assert nearest(values, limits) == 2
    assert shortfall(values[2], limits) == "p90 9 ms where 8 were asked for (+12%)"
    assert nearest([], limits) is None


def test_a_training_is_held_against_those_that_are_as_fast() -> None:
    fast, slow = [Rival({5: score}, 10.0) for score in (0.3, 0.4, 0.5)], [Rival({5: 0.9}, 50.0)] * 5
    assert "below the median 0.400 of 3 trainings" in falls_behind(0.39, 5, 20.0, [*fast, *slow])
    assert falls_behind(0.4, 5, 20.0, [*fast, *slow]) == ""
    assert falls_behind(0.1, 5, 9.0, [*fast, *slow]) == "", "the fastest of all is never stopped"
    assert falls_behind(0.1, 10, 20.0, fast) == "", "nobody has come so far yet"
    assert falls_behind(0.1, 5, 20.0, fast[:2]) == "", "two are too few to compare with"
    assert [epoch for epoch in (0, 5, 10, 15, 20) if is_rung(epoch, 20)] == [5, 10]


def test_a_patient_lock_waits_for_the_holder(tmp_path: Path) -> None:
    path, told = tmp_path / "l", list[str]()
    code = "import sys,time;from pathlib import Path;from edgeseg.core.files import lock\nwith lock(Path(sys.argv[1]),holder='other'):\n" \
           " print('held',flush=True);sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert is_locked(path)
        with pytest.raises(BusyError, match="other"), lock(path, holder="me"):
            pass

        def on_wait(who: str) -> None:
            told.append(who)
            other.kill()

        with patient_lock(path, holder="me", on_wait=on_wait):
            assert is_locked(path)
    assert told[0].startswith("other (pid ")
    assert not is_locked(path)


@pytest.mark.parametrize(("before", "after"), [(b"", b""), (b'{"a":1}\n', b'{"a":1}\n'), (b'{"a":1}\n{"b', b'{"a":1}\n'), (b'{"a', b""),
                                               (b"x" * 9000 + b"\n" + b"\0" * 9000, b"x" * 9000 + b"\n")])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(before)
    assert cut_torn_line(path) == len(before) - len(after)
    assert path.read_bytes() == after


def test_a_journal_goes_on_after_a_torn_line_and_refuses_damage_and_other_searches(tmp_path: Path) -> None:
    path, said = tmp_path / "journal.log", list[str]()
    space = space_of(config(widths=[0.5, 1.0], scales=[1.0], macs_shares=[1.0]))
    study = open_study(path, {"seed": 1}, say=said.append)
    taken = take(study, space, "me", seed=0)
    assert taken is not None
    study.tell(taken[0], [0.5, 10.0])
    with path.open("ab") as stream:
        stream.write(b'{"op_code":4,"wor')
    again = open_study(path, {"seed": 1}, say=said.append)
    assert [trial.values for trial in again.get_trials()] == [[0.5, 10.0]]
    assert len(said) == 1
    assert "its 17 bytes were cut off" in said[0]
    with path.open("ab") as stream:  # torn while the search runs: by another worker that died
        stream.write(b'{"op_')
    study.set_user_attr("note", 1)
    assert len(said) == 2
    assert all(json.loads(line) for line in path.read_text().splitlines())
    with pytest.raises(TrainingError, match=r"is of another search: seed was 1, now 2; set it back .* edgeseg search a\.toml --restart$"):
        open_study(path, {"seed": 2}, say=said.append, again="edgeseg search a.toml --restart")
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1][:9], *lines[2:]]))
    with pytest.raises(TrainingError, match=r"damaged at line 2 of \d+ .* --restart"):
        open_study(path, {"seed": 1}, say=said.append)


def test_every_point_is_tried_once_and_then_the_space_is_empty(tmp_path: Path) -> None:
    space = space_of(config(widths=[0.5, 1.0], scales=[0.5, 1.0], macs_shares=[1.0]))
    study = open_study(tmp_path / "journal.log", {}, say=print)
    seen = []
    while (taken := take(study, space, "me", seed=3)) is not None:
        trial, point = taken
        seen.append(point)
        study.tell(trial, [0.1 * len(seen), 10.0])
    assert seen[0] == Point(network="fast_scnn", width=1.0, scale=1.0, macs_share=1.0, precision="fp32")
    assert sorted(seen, key=repr) == sorted(space.points(), key=repr)


def test_the_trial_of_a_dead_worker_is_tried_again_three_times_at_most(tmp_path: Path) -> None:
    space = space_of(config(widths=[0.5, 1.0], scales=[1.0], macs_shares=[1.0], precisions=["fp32"]))
    study, said = open_study(tmp_path / "journal.log", {}, say=print), list[str]()
    points = []
    with alive(tmp_path) as name:
        living = take(study, space, name, seed=0)
        assert living is not None
        for _ in range(3):
            taken = take(study, space, "dead-worker", seed=0)
            assert taken is not None
            points.append(taken[1])
            bury(study, tmp_path, say=said.append)
    assert points[0] == points[1] == points[2] != living[1]
    assert len(said) == 2
    rows = rows_of(study.get_trials(), space, config(), Limits())
    assert [(row.state, row.note) for row in rows] == [("running", ""), ("failed", "its process died 3 times")]
    assert take(study, space, "me", seed=0) is None


def test_a_training_that_gets_further_each_time_is_never_given_up(tmp_path: Path) -> None:
    space = space_of(config(widths=[0.5], scales=[1.0], macs_shares=[1.0], precisions=["fp32"]))
    study = open_study(tmp_path / "journal.log", {}, say=print)
    for epoch in range(5):
        taken = take(study, space, "dead-worker", seed=0)
        assert taken is not None
        taken[0].set_user_attr("scores", {str(epoch): 0.1})
        bury(study, tmp_path, say=print)


def test_two_processes_may_write_one_journal(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgeseg.workflow.search.journal import open_study\n"
        "study = open_study(Path(sys.argv[1]), {}, say=print)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for i in range(40):\n"
        "    trial = study.ask(); trial.set_user_attr('by', sys.argv[2]); study.tell(trial, [0.5, float(i + 1)])\n"
    )
    path = tmp_path / "journal.log"
    open_study(path, {}, say=print)
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.communicate("go\n", timeout=500)
        assert worker.returncode == 0
    trials = open_study(path, {}, say=print).get_trials()
    assert sorted(trial.number for trial in trials) == list(range(80))
    assert {name: sum(t.user_attrs["by"] == name for t in trials) for name in ("a", "b")} == {"a": 40, "b": 40}
    assert all(trial.state.name == "COMPLETE" for trial in trials)


def test_trials_tell_each_other_how_their_trainings_went(tmp_path: Path) -> None:
    space = space_of(config(widths=[0.5], scales=[0.5, 1.0], macs_shares=[0.7, 1.0], precisions=["fp32"]))
    study = open_study(tmp_path / "journal.log", {}, say=print)
    for bound_ms in (4.0, 3.0, 2.0, 1.0):
        taken = take(study, space, "me", seed=0)
        assert taken is not None
        taken[0].set_user_attr("bound_ms", bound_ms)
        taken[0].set_user_attr("scores", {"5": bound_ms / 10})
    trials = [trial for trial in study.get_trials() if not trial.user_attrs.get("lost")]
    names = {trial.user_attrs["training"] for trial in trials}
    assert len(names) == 2
    for name in names:
        (rival,) = rivals_of(trials, but=name)
        theirs = [trial for trial in trials if trial.user_attrs["training"] != name]
        assert rival.p90_ms == min(trial.user_attrs["bound_ms"] for trial in theirs)
        assert set(scores_of(trials, name)) == {5}


def test_a_search_ends_with_the_best_that_meets_the_goals_or_says_by_how_much_none_does(tmp_path: Path) -> None:
    write_field(tmp_path / "data", seed=1, counts={"train": 1, "val": 1}, size_hw=(32, 32))
    (tmp_path / "edgeseg.toml").write_text("[data]\ndir = 'data'\nsize = [64, 64]\n[search]\nscales = [0.5, 1.0]\nmacs_shares = [1.0]\n")
    found = load_config(tmp_path / "edgeseg.toml")
    space, folder, best = space_of(found), tmp_path / "runs" / "run" / "search", best_path(tmp_path / "edgeseg.toml")
    folder.mkdir(parents=True)
    data = RunData(load_dataset(found.data, seed=0), "val", 0, folder, Silent())
    study = open_study(folder / "journal.log", {}, say=print)
    for miou, p90_ms in ((0.6, 30.0), (0.5, 10.0), (0.4, 20.0)):
        taken = take(study, space, "me", seed=0)
        assert taken is not None
        taken[0].set_user_attr("value", dataclasses.asdict(value(miou, p90_ms)))
        taken[0].set_user_attr("places", [{"p90_ms": p90_ms, "low_ms": p90_ms - 1, "high_ms": p90_ms + 1}])
        study.tell(taken[0], [miou, p90_ms])

    def end(**goals: float) -> Outcome:
        limits = Limits.of(GoalsSection(**goals))
        env = Environment(found, folder, data, (), Stopwatch(folder, Steps(folder, Silent()), [], Silent()), limits, 1, Silent())
        return conclude(env, study, space, best, "3 points were tried")

    met = end(p90_ms=25)
    assert (met.passed, met.facts["front"]) == (True, [row["trial"] for row in met.facts["trials"] if row["miou"] in (0.6, 0.5)])
    chosen = next(row for row in met.facts["trials"] if row["chosen"])
    assert chosen["miou"] == 0.5
    written = load_config(best)
    assert (written.name, list(written.data.size), written.model.width) == ("run-best", chosen["size_hw"], chosen["width"])
    assert written.data.dir == found.data.dir
    assert str(tmp_path) not in best.read_text()

    missed = end(p90_ms=8)
    assert not missed.passed
    assert "Nearest: trial" in missed.facts["verdict"]
    assert "p90 10 ms where 8 were asked for (+25%)" in missed.facts["verdict"]
    assert not best.exists(), "an earlier choice does not stay behind"
    assert end().facts["chosen"] is not None, "without goals the best mIoU is chosen"


def test_a_training_is_stopped_while_it_runs_and_by_what_it_had_reached_before(tmp_path: Path) -> None:
    from edgeseg.training.loop import TrainProgress

    def at(epoch: int, score: float | None, scored_epoch: int) -> TrainProgress:
        return TrainProgress(epoch=epoch, num_epochs=20, step=epoch, num_steps=20, loss=1.0, metric="mIoU", score=score,
                             scored_epoch=scored_epoch, best_score=score, lr=0.1, seconds_left=1.0)

    rivals, noted = [Rival({5: 0.5, 10: 0.6, 15: 0.7}, 10.0)] * 3, list[object]()
    watch = Watch(note=lambda key, what: noted.append((key, what)), rivals=lambda: rivals, scores=dict)
    hook = Hook(20, True, 30.0, watch)
    hook(at(1, None, 0))
    hook(at(5, 0.55, 5))
    hook(at(6, 0.55, 5))
    assert noted == [("scores", {"5": 0.55})], "each score is noted once"
    with pytest.raises(Dropped, match=r"after 10 epochs mIoU 0\.300, below the median 0\.600") as caught:
        hook(at(10, 0.3, 10))
    assert caught.value.kind == "stopped"
    again = Hook(20, True, 30.0, dataclasses.replace(watch, scores=lambda: {5: 0.55, 10: 0.3}))
    with pytest.raises(Dropped, match="after 10 epochs"):
        again(at(11, None, 0))
    Hook(20, True, 9.0, dataclasses.replace(watch, scores=lambda: {10: 0.3}))(at(11, None, 0))  # faster than all of them
    Hook(20, False, 30.0, watch)(at(10, 0.3, 10))
    Hook(20, True, 30.0, watch)(at(15, 0.3, 15))  # most of it is paid for


def test_a_file_that_no_search_wrote_is_not_replaced(tmp_path: Path) -> None:
    path = best_path(tmp_path / "edgeseg.toml")
    assert path.name == "edgeseg-best.toml"
    check_best(path)
    path.write_text("name = 'mine'\n")
    with pytest.raises(ConfigError, match="was not written by a search"):
        check_best(path)


def test_a_configuration_that_was_edited_since_is_not_replaced(tmp_path: Path) -> None:
    path, rest = best_path(tmp_path / "edgeseg.toml"), "# Trial 3\nname = 'field'\n"
    path.write_text(f"# Written by edgeseg search; SHA-256 of what follows: {hashlib.sha256(rest.encode()).hexdigest()}\n{rest}")
    check_best(path)
    with path.open("a") as file:
        file.write("[train]\nepochs = 300\n")
    with pytest.raises(ConfigError, match="was edited since"):
        check_best(path)


def test_a_point_whose_attempts_all_end_in_an_error_of_its_own_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = space_of(config(widths=[0.5], scales=[1.0], macs_shares=[1.0], precisions=["fp32"]))
    study = open_study(tmp_path / "journal.log", {}, say=print)
    data = RunData(load_dataset(_field(tmp_path), seed=0), "val", 0, tmp_path, Silent())
    stopwatch = Stopwatch(tmp_path, Steps(tmp_path, Silent()), [], Silent())
    env = Environment(config(), tmp_path, data, (), stopwatch, Limits(), 1, Silent())
    errors = iter([OSError("disk full"), *[RuntimeError("out of memory")] * 3])

    def evaluate(*_: object) -> None:
        raise next(errors)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    budget = loop.Budget(trials=5, deadline=float("inf"))
    for expected in (OSError, RuntimeError, RuntimeError):
        with pytest.raises(expected):
            loop.work(env, study, space, "me", budget)
    assert loop.work(env, study, space, "me", budget) == "all 1 points of the space were tried"
    (row,) = rows_of(study.get_trials(), space, config(), Limits())
    assert (row.state, row.note) == ("failed", "3 attempts, the last one ended by RuntimeError: out of memory")


def _field(folder: Path) -> DataSection:
    write_field(folder / "data", seed=1, counts={"train": 1, "val": 1}, size_hw=(32, 32))
    return dataclasses.replace(config().data, dir=str(folder / "data"))


def test_a_worker_is_known_to_live_before_the_setup_lock_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edgeseg.toml").write_text("[data]\ndir = 'data'\nsize = [64, 64]\n")
    folder, seen = tmp_path / "runs" / "run" / "search", list[int]()

    @contextlib.contextmanager
    def watched(path: Path, **_: object) -> Iterator[None]:
        yield
        assert path == folder / "setup.lock"
        seen.append(command._living(folder))

    monkeypatch.setattr(command, "patient_lock", watched)
    monkeypatch.setattr(command, "_environment", lambda *_: None)
    monkeypatch.setattr(command, "_identity", lambda _: {})
    (folder / "workers").mkdir(parents=True)
    with command._opened(command.SearchRequest(tmp_path / "edgeseg.toml"), Silent()):
        assert seen == [1]
    assert command._living(folder) == 0


def test_a_ratio_to_another_baseline_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(targets=("host",), format="onnx", how=plan(find_target("host"), "onnx", "fp32"))
    stopwatch, taken = Stopwatch(tmp_path, Steps(tmp_path, Silent()), [], Silent()), list[str]()
    baseline = SimpleNamespace(manifest=SimpleNamespace(sha256="a"))
    facts = {"ratio": 2.0, "low": 1.9, "high": 2.1, "size_bytes": 7}
    monkeypatch.setattr(speed, "open_bundle", lambda _: baseline)
    monkeypatch.setattr(Place, "facts", lambda _: {})
    monkeypatch.setattr(Stopwatch, "baseline_facts", lambda *_: {"p90_ms": 10.0})

    def compare(*_: object) -> dict[str, float]:
        taken.append(baseline.manifest.sha256)
        return facts

    monkeypatch.setattr(Stopwatch, "_compare", compare)
    for sha256 in ("a", "a", "b"):
        baseline.manifest.sha256 = sha256
        found = stopwatch.measure(stopwatch.steps, "one", {"bundle": "x"}, place, lambda _: baseline)  # type: ignore[arg-type,return-value]
        assert found.p90_ms == 5.0
    assert taken == ["a", "b"]
