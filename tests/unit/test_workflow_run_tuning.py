"""`[bench] tune = true`: a step of the run, and the plan that comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import CLASSES, PALETTE, tiny_bundle, tiny_frame

from edgeseg.core.config import parse_config
from edgeseg.core.errors import ConfigError
from edgeseg.core.files import sha256_file
from edgeseg.core.images import write_frame
from edgeseg.data.dataset import Dataset, Sample
from edgeseg.workflow.bundle.bundling import SealedBundle
from edgeseg.workflow.context import RunContext
from edgeseg.workflow.learn.learning import RunData
from edgeseg.workflow.measure.run_tuning import tuned_plan
from edgeseg.workflow.places import HERE
from edgeseg.workflow.steps import StepResult, Steps
from edgeseg.workflow.ui import Silent
from targets.boards import Plan, find_target
from targets.runtimes import RuntimeOptions
from targets.tuned import load_tuned, tuned_path

HOW = Plan("null", RuntimeOptions(num_threads=1))


def context(folder: Path, *, tune: bool) -> RunContext:
    config = parse_config({"bench": {"quick": True, "tune": tune}})
    return RunContext(config, folder, Steps(folder, Silent()), Silent())


def data(folder: Path) -> RunData:
    write_frame(folder / "frame.png", tiny_frame())
    sample = Sample(id="frame", split="test", image=folder / "frame.png", label=folder / "frame.png")
    dataset = Dataset(name="one", layout="folder", root=folder, classes=CLASSES, palette=PALETTE, splits={"test": (sample,)},
                      sha256="0" * 64, split_rule="")
    return RunData(dataset, "test", 64, folder / "cache", Silent())


def sealed(folder: Path) -> SealedBundle:
    bundle = tiny_bundle(folder, "null")
    return SealedBundle(StepResult("export-null", bundle.folder, sha256_file(bundle.folder / "manifest.json"), False, 0.0), bundle)


def test_a_run_measures_with_the_targets_own_settings_unless_told(tmp_path: Path) -> None:
    ctx, bundle = context(tmp_path, tune=False), sealed(tmp_path)
    assert tuned_plan(ctx, data(tmp_path), find_target("host"), bundle, HOW, HERE) == (HOW, "")
    assert ctx.steps.done == []
    assert not tuned_path(bundle.bundle.folder).exists()


def test_tuning_is_a_step_that_is_done_once(tmp_path: Path) -> None:
    bundle = sealed(tmp_path)
    for cached in (False, True):
        ctx = context(tmp_path, tune=True)
        how, words = tuned_plan(ctx, data(tmp_path), find_target("host"), bundle, HOW, HERE)
        assert [(step.name, step.cached) for step in ctx.steps.done] == [("tune-host-tiny-null", cached)]
        assert how.runtime == "null"
        assert words.startswith(f"tuned for latency (num_threads={how.options.num_threads}; ")
    assert load_tuned(bundle.bundle, HERE.machine, how=HOW).how == how


def test_a_file_that_cannot_be_kept_to_does_not_end_the_run(tmp_path: Path) -> None:
    bundle = sealed(tmp_path)
    path = tuned_path(bundle.bundle.folder)
    path.write_text("[]", encoding="utf-8")
    said: list[str] = []

    class Said(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    ctx = replace(context(tmp_path, tune=True), ui=Said())
    assert tuned_plan(ctx, data(tmp_path), find_target("host"), bundle, HOW, HERE).words.startswith("tuned for latency")
    assert said == [f"what tuning finds for tiny-null is kept in this run only: {path}: not a file of tuned settings of schema 2; "
                    "type edgeseg tune again after removing it, or add --untuned"]
    assert path.read_text(encoding="utf-8") == "[]"


def test_where_nothing_can_be_set_the_targets_own_settings_stay(tmp_path: Path) -> None:
    ctx, how = context(tmp_path, tune=True), Plan("onnxruntime", RuntimeOptions(provider="tensorrt"))
    assert tuned_plan(ctx, data(tmp_path), find_target("host"), sealed(tmp_path), how, HERE) == (how, "")


def test_threads_and_tuning_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"\[bench\] threads = 2 and tune = true: tuning finds the number of threads"):
        parse_config({"bench": {"threads": 2, "tune": True}})
