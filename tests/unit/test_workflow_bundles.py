"""`edgeseg verify` on splits and goals: what is asked for or a refusal, never something else in its place."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_models import CLASSES, strongest_channel, tiny_bundle, tiny_frame

from edgeseg.core.config import DataSection
from edgeseg.core.errors import ConfigError, InputMissingError, TargetError
from edgeseg.core.files import patient_lock
from edgeseg.core.manifest import Reference
from edgeseg.data.dataset import load_dataset
from edgeseg.workflow import bundles
from edgeseg.workflow.bundle.labelled import load_labelled
from edgeseg.workflow.bundles import Outcome
from edgeseg.workflow.measure import benching
from edgeseg.workflow.ui import Silent
from targets.boards import TARGETS
from targets.boards.host import HOST
from targets.runtimes import Session, open_session


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


# ------------------------------------------------------------------ classes of the data against those of the bundle


def _against(tmp_path: Path, named: list[str], *, label: list[int] | None = None) -> Outcome:
    """Verify the tiny bundle (red, green, blue), without [data] classes, on data that name their classes `named` (empty = do not)."""
    bundle = tiny_bundle(tmp_path, "onnx")
    data = _data(tmp_path / "data", ("val",))
    for path in sorted((data / "masks").rglob("*.png")):
        values = np.asarray(Image.open(path))
        Image.fromarray(np.array(label or [0, 1, 2], dtype=np.uint8)[values]).save(path)
    if named:
        (data / "dataset.json").write_text(json.dumps({"classes": named}), encoding="utf-8")
    config = tmp_path / "edgeseg.toml"
    config.write_text("[data]\n", encoding="utf-8")
    return bundles.verify(bundle.folder, data=data, config=config, target="host", split="val", ui=Silent())


def test_data_in_another_order_are_matched_by_name(tmp_path: Path) -> None:
    outcome = _against(tmp_path, ["blue", "red", "green"], label=[1, 2, 0])
    assert outcome.facts["miou"] == 1.0


def test_data_without_names_are_taken_in_the_order_of_the_bundle(tmp_path: Path) -> None:
    assert _against(tmp_path, []).facts["miou"] == 1.0


def test_what_the_bundle_does_not_know_is_ignored_and_said(tmp_path: Path) -> None:
    outcome = _against(tmp_path, ["red", "green", "blue", "grey"])
    assert outcome.facts["miou"] == 1.0
    assert "note: 3 classes chosen; the rest of the data's (1) is ignored (255)" in outcome.lines


@pytest.mark.parametrize("named", [["soil", "crop", "weed"], ["red", "green"]])
def test_other_classes_are_refused_by_the_names_of_both(tmp_path: Path, named: list[str]) -> None:
    with pytest.raises(ConfigError, match=rf"the data has the classes {', '.join(named)}, the model red, green, blue; ") as refused:
        _against(tmp_path, named)
    assert "\n" not in str(refused.value)


def test_the_config_names_other_classes_than_the_bundle(tmp_path: Path) -> None:
    section = DataSection(dir=str(_data(tmp_path / "data", ("val",))), classes=("green", "red", "blue"))
    with pytest.raises(ConfigError, match=r"\[data\] classes: the data has .* green.*the model red, green, blue; .* model's order"):
        load_labelled(section, CLASSES, seed=0)


def test_placeholders_fit_data_without_names_only(tmp_path: Path) -> None:
    section = DataSection(dir=str(_data(tmp_path / "data", ("val",))))
    made = load_dataset(section, seed=0, need=()).classes
    assert made == ("class_0", "class_1", "class_2")
    assert load_labelled(section, made, seed=0).classes == made
    (tmp_path / "data/dataset.json").write_text(json.dumps({"classes": list(CLASSES)}), encoding="utf-8")
    with pytest.raises(ConfigError, match="the model class_0, class_1, class_2; the model was made without names"):
        load_labelled(section, made, seed=0)


def test_a_palette_has_the_order_of_the_data_not_of_the_bundle(tmp_path: Path) -> None:
    """Where the config gives colours and no classes, they are those of dataset.json's classes: never taken for the bundle's."""
    data = _data(tmp_path / "data", ("val",))
    colours = np.array([(9, 0, 0), (0, 9, 0), (0, 0, 9)], dtype=np.uint8)
    for path in sorted((data / "masks").rglob("*.png")):
        values = np.asarray(Image.open(path))
        Image.fromarray(colours[values]).save(path)
    section = DataSection(dir=str(data), palette=("#090000", "#000900", "#000009"))
    assert load_labelled(section, CLASSES, seed=0).classes == CLASSES
    (data / "dataset.json").write_text(json.dumps({"classes": ["blue", "red", "green"]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="the data has the classes blue, red, green, the model red, green, blue"):
        load_labelled(section, CLASSES, seed=0)


# ------------------------------------------------------------------ what bench measures on


def test_bench_in_a_data_set_below_a_folder_called_masks(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "onnx")
    data = _data(tmp_path / "masks" / "data", ("val",))
    outcome = benching.bench(benching.BenchRequest(folder=bundle.folder, quick=True, threads=1, data=data), Silent())
    assert outcome.facts["frames"] == str(data)


def test_a_split_without_data_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "onnx")
    with pytest.raises(ConfigError, match="--split test goes with labelled images; add --data DIR"):
        bundles.verify(bundle.folder, data=None, config=None, target="host", split="test", ui=Silent())


def test_golden_frames_do_not_judge_a_target_without_f32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "half", replace(HOST, name="half", arithmetic="f16"))
    bundle, data = tiny_bundle(tmp_path, "null"), _data(tmp_path / "data", ("val",))
    with pytest.raises(ConfigError, match="answered in f32 and cannot judge f16, which half computes in; add --data DIR"):
        bundles.verify(bundle.folder, data=None, config=None, target="half", ui=Silent())
    with pytest.raises(TargetError, match="half computes float parts in f16 and has no f32"):
        bundles.verify(bundle.folder, data=data, config=None, target="half", arithmetic="f32", ui=Silent())
    goals = {target: [goal["goal"] for goal in bundles.verify(
        bundle.folder, data=data, config=None, target=target, split="val", ui=Silent()).facts["goals"]] for target in ("host", "half")}
    assert goals == {"host": ["golden"], "half": []}


def _predict(folder: Path, source: Path | str, out: Path, **more: str) -> Outcome:
    return bundles.predict(folder, source, out, target="host", overlay=False, force=True, ui=Silent(), **more)  # type: ignore[arg-type]


def test_predict_keeps_the_compiled_model_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    bundle = tiny_bundle(tmp_path / "bundle", "openvino")
    for _ in range(2):
        done = _predict(bundle.folder, bundle.folder / "golden", tmp_path / "out")
        assert f"settings: compiled model kept in {tmp_path / 'cache'}" in done.lines
        assert done.facts["cache_dir"] == str(tmp_path / "cache")
        assert len(list((tmp_path / "cache" / "openvino").rglob("*.blob"))) == 1
    other = tiny_bundle(tmp_path / "other", "onnx")
    done = _predict(other.folder, other.folder / "golden", tmp_path / "out")
    assert done.facts["cache_dir"] is None
    assert not any(line.startswith("settings") for line in done.lines)


def test_predict_says_that_it_waits_for_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    bundle = tiny_bundle(tmp_path / "bundle", "openvino")
    _predict(bundle.folder, bundle.folder / "golden", tmp_path / "out")
    (used,) = (tmp_path / "cache" / "openvino").rglob("lock")
    said: list[str] = []
    free, held = threading.Event(), threading.Event()

    class Said(Silent):
        def say(self, text: str) -> None:
            said.append(text)
            free.set()

    def hold() -> None:
        with patient_lock(used, holder="another"):
            held.set()
            free.wait(timeout=60)

    other = threading.Thread(target=hold, daemon=True)
    other.start()
    assert held.wait(timeout=60)
    monkeypatch.setattr(bundles, "SLOW_OPEN_S", 0.1)
    bundles.predict(bundle.folder, bundle.folder / "golden", tmp_path / "out", target="host", overlay=False, force=True, ui=Said())
    other.join(timeout=60)
    assert len(said) == 1
    assert said[0].startswith("still opening the model in openvino: ")
    assert said[0].endswith("or by another edgeseg that is waited for")


def test_predict_looks_at_its_source_before_it_opens_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", "onnx")
    monkeypatch.setattr(bundles, "open_session", lambda *_: pytest.fail("an engine was built before it was said"))
    with pytest.raises(InputMissingError, match="does not exist"):
        _predict(bundle.folder, tmp_path / "gone", tmp_path / "out")
    with pytest.raises(ConfigError, match="of files every frame is answered"):
        _predict(bundle.folder, bundle.folder / "golden", tmp_path / "out", drop="newest")
    pytest.importorskip("av")
    with pytest.raises(InputMissingError, match="there is no camera /dev/video97"):
        _predict(bundle.folder, "camera:97", tmp_path / "out")
    with pytest.raises(ConfigError, match="'camera:front' is no camera"):
        _predict(bundle.folder, "camera:front", tmp_path / "out")
    with pytest.raises(ConfigError, match="drop policy 'latest' is unknown"):
        _predict(bundle.folder, "rtsp://127.0.0.1:1/field", tmp_path / "out", drop="latest")
    assert not (tmp_path / "out").exists()


def test_predict_opens_a_stream_when_its_session_is_there_to_take_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    bundle = tiny_bundle(tmp_path / "bundle", "onnx")
    happened: list[str] = []
    sessions: list[Session] = []

    def opened(*how: Any) -> Session:
        time.sleep(0.2)  # an engine is built
        sessions.append(open_session(*how))
        happened.append("session")
        return sessions[0]

    monkeypatch.setattr(bundles, "open_session", opened)
    with socket.create_server(("127.0.0.1", 0)) as server:
        def hang_up() -> None:
            connection, _ = server.accept()
            happened.append("stream")
            connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        with pytest.raises(InputMissingError, match="cannot be opened"):
            _predict(bundle.folder, f"rtsp://127.0.0.1:{server.getsockname()[1]}/field", tmp_path / "out")
        thread.join(timeout=10)
    assert happened == ["session", "stream"]
    with pytest.raises(AssertionError, match="run after close"):
        sessions[0].run(tiny_frame())
