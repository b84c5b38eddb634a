"""`edgeseg verify` on splits and goals: what is asked for or a refusal, never something else in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import CLASSES, strongest_channel, tiny_bundle, tiny_frame

from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import Reference
from edgeseg.workflow import bundles
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.ui import Silent


def _data(root: Path, splits: tuple[str, ...]) -> Path:
    """Two frames a split with the very labels that a tiny bundle answers."""
    for i, split in enumerate(splits):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for j in range(2):
            frame = tiny_frame(10 * i + j)
            Image.fromarray(frame).save(root / "images" / split / f"{j}.png")
            Image.fromarray(strongest_channel(frame)).save(root / "masks" / split / f"{j}.png")
    return root


def _verify(tmp_path: Path, splits: tuple[str, ...], *, split: str = "", goals: str = "", reference: str = "test") -> Outcome:
    known = Reference(dataset="x", dataset_sha256="0" * 64, split=reference, num_frames=2, miou=0.5, iou=(0.5, 0.5, 0.5))
    bundle = tiny_bundle(tmp_path, "onnx", reference=known)
    data = _data(tmp_path / "data", splits)
    config = tmp_path / "edgeseg.toml"
    config.write_text(f'[data]\nclasses = {list(CLASSES)!r}\n[goals]\n{goals}'.replace("'", '"'), encoding="utf-8")
    return bundles.verify(bundle.folder, data=data, config=config, target="host", split=split, ui=Silent())


def test_only_a_test_split_is_enough(tmp_path: Path) -> None:
    outcome = _verify(tmp_path, ("test",))
    assert outcome.passed
    assert outcome.facts["split"] == "test"
    assert outcome.facts["miou"] == 1.0


def test_another_split_is_never_taken_in_place_of_the_one_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no test split \(it has train, val\); add --split NAME, or --split all"):
        _verify(tmp_path, ("train", "val"))


@pytest.mark.parametrize(("split", "frames"), [("val", 2), ("all", 4)])
def test_the_split_asked_for(tmp_path: Path, split: str, frames: int) -> None:
    outcome = _verify(tmp_path, ("train", "val"), split=split)
    assert outcome.facts["num_frames"] == frames
    assert any(line.startswith("these frames: folders train, val") for line in outcome.lines), outcome.lines


def test_goals_it_cannot_judge_are_named(tmp_path: Path) -> None:
    outcome = _verify(tmp_path, ("test",), goals="miou = 0.9\nagreement = 0.999\np90_ms = 5\nsize_mb = 1\n")
    assert [goal["goal"] for goal in outcome.facts["goals"]] == ["golden", "miou"]
    assert set(outcome.facts["not_judged"]) == {"agreement", "p90_ms", "size_mb"}
    assert sum(line.startswith("not judged here: goal ") for line in outcome.lines) == 3
    assert np.isclose(outcome.facts["miou"], 1.0)
