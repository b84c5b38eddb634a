"""The main job, end to end, as a user runs it: one command, six bundles, a report; then everything that is done with a bundle."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from chain_tools import edgeseg, one_line_error, read_rows, write_tiny_project
from PIL import Image

FORMATS = ("onnx", "openvino", "tflite")
BUNDLES = [f"tiny-{format_}-{precision}" for format_ in FORMATS for precision in ("fp32", "int8")]
WANTED_KEYS = {
    "target",
    "format",
    "precision",
    "runtime",
    "device",
    "measured_on",
    "miou",
    "miou_float",
    "mean_dice",
    "mean_boundary_f1",
    "confusion",
    "worst_class_drop",
    "agreement",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "fps",
    "size_bytes",
    "peak_rss_bytes",
    "recommended",
    "passed",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run is complete."""
    folder = tmp_path_factory.mktemp("project with a space")
    write_tiny_project(folder)
    done = edgeseg("run", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Recommended:" in done.stdout
    return folder


@pytest.fixture(scope="module")
def run(project: Path) -> Path:
    return project / "runs" / "tiny"


def test_six_bundles_each_true_to_torch(run: Path) -> None:
    assert sorted(p.name for p in (run / "bundles").iterdir()) == sorted(BUNDLES)
    for name in BUNDLES:
        verified = json.loads((run / "verify" / f"{name}.json").read_text())
        assert verified["golden_agreement"] == 1.0
        assert verified["agreement"] >= (0.999 if name.endswith("fp32") else 0.8)


def test_results_have_one_object_per_bundle_and_place(run: Path) -> None:
    rows = read_rows(run)
    assert all(set(row) >= WANTED_KEYS for row in rows)
    places = {(row["target"], row["bundle"], row["arithmetic"]) for row in rows}
    assert len(places) == len(rows)
    assert sum(row["arithmetic"] == "f32" for row in rows) == 6 + 2 + 4 + 2  # more where a runtime would choose bf16 by itself
    for row in rows:
        if row["target"] == "jetson-orin-nano":  # this machine cannot run it; accuracy is known, speed is not made up
            assert row["p50_ms"] is None
            assert not row["recommended"]
        else:
            assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
            assert row["peak_rss_bytes"] > 10_000_000
        folder = run / "bundles" / row["bundle"]
        files = [p for p in folder.glob("*") if p.is_file() and p.name != "manifest.json"]
        assert row["size_bytes"] == sum(p.stat().st_size for p in files)


def test_recommended_bundle_is_never_slower_than_its_own_fp32(run: Path) -> None:
    for row in read_rows(run):
        if row["recommended"] and row["precision"] == "int8":
            assert row["speedup_vs_fp32"]["low"] > 1
        assert row["reason"]


def test_manifest_tells_where_everything_came_from(run: Path) -> None:
    manifest = json.loads((run / "bundles" / "tiny-tflite-int8" / "manifest.json").read_text())
    assert manifest["scheme"]["calibration"]["split"] == "train"
    assert manifest["scheme"]["calibration"]["num_frames"] == 8
    assert re.fullmatch("[0-9a-f]{64}", manifest["scheme"]["calibration"]["ids_sha256"])
    assert manifest["parents"][0]["kind"] == "bundle"
    assert manifest["reference"]["split"] == "test"
    assert manifest["reference"]["num_frames"] == 5


class _Page(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for key, value in attrs if key in ("src", "href") and not (value or "").startswith(("data:", "#"))]


def test_page_is_self_contained_and_names_every_bundle(run: Path) -> None:
    text = (run / "report.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.fetched == []
    assert all(f"{format_}" in text for format_ in FORMATS)
    assert "was not measured" in text
    assert str(run) not in text


def test_second_run_does_nothing_again(project: Path, run: Path) -> None:
    before = read_rows(run)
    done = edgeseg("run", cwd=project)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = [line for line in done.stderr.splitlines() if re.match(r"[a-z0-9-]+: (unchanged|done)", line)]
    assert steps
    assert all(line.endswith("unchanged") for line in steps)
    assert read_rows(run) == before


def test_a_missed_goal_is_exit_1_and_costs_no_new_training(project: Path) -> None:
    done = edgeseg("run", "--set", "goals.miou=0.999", cwd=project)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "train: unchanged" in done.stderr
    assert re.search(r"MISSED: mIoU: at least 99\.90 %, got ", done.stdout)
    assert edgeseg("run", cwd=project).returncode == 0


def test_a_goal_that_few_images_cannot_decide_is_exit_3(project: Path, run: Path) -> None:
    best = max(row["miou"] for row in read_rows(run))
    done = edgeseg("run", "--set", f"goals.miou={best}", cwd=project)
    assert done.returncode == 3, done.stdout[-2000:]
    assert re.search(r"NOT DECIDED: mIoU: at least [\d.]+ %, got .* more\s+images? needed", done.stdout, re.DOTALL)
    assert json.loads((run / "summary.json").read_text())["undecided"] is True
    assert "not decided" in (run / "report.html").read_text(encoding="utf-8")
    assert edgeseg("run", cwd=project).returncode == 0


def test_report_prints_the_list(project: Path, run: Path) -> None:
    done = edgeseg("report", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == read_rows(run)
    assert json.loads(edgeseg("report", str(run), "--json", cwd=project.parent).stdout) == read_rows(run)
    assert "exit" not in edgeseg("report", "nix", cwd=project).stdout
    assert "no results for run 'nix'" in one_line_error(edgeseg("report", "nix", cwd=project), 66)


@pytest.mark.parametrize("name", BUNDLES)
def test_each_bundle_verifies_on_labelled_data(project: Path, run: Path, name: str) -> None:
    done = edgeseg("verify", str(run / "bundles" / name), "--data", "data", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    row = next(row for row in read_rows(run) if row["bundle"] == name and row["arithmetic"] == "f32")
    assert facts["miou"] == pytest.approx(row["miou"], abs=1e-9)
    assert facts["golden_agreement"] == 1.0


def test_verify_without_data_says_what_it_did_not_check(project: Path, run: Path) -> None:
    done = edgeseg("verify", str(run / "bundles" / BUNDLES[0]), cwd=project)
    assert done.returncode == 0, done.stderr
    assert "not verified: accuracy" in done.stdout


def test_verify_judges_the_goals_of_a_config(project: Path, run: Path) -> None:
    config = project / "strict.toml"
    config.write_text((project / "edgeseg.toml").read_text() + "miou = 0.999\n")
    done = edgeseg("verify", str(run / "bundles" / BUNDLES[0]), "--config", str(config), cwd=project)
    assert done.returncode == 1
    assert "MISSED: miou" in done.stdout


def test_bench_of_one_bundle(project: Path, run: Path) -> None:
    done = edgeseg(
        "bench", str(run / "bundles" / "tiny-openvino-int8"), "--quick", "--target", "intel-cpu", "--threads", "1", "--json", cwd=project
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["quick"] is True
    assert facts["num_threads"] == 1
    assert facts["inference"]["num_frames"] >= 50
    assert facts["settings"]["executed_precision"] == "f32"


def test_bench_for_a_target_this_machine_cannot_run_is_refused(project: Path, run: Path) -> None:
    done = edgeseg("bench", str(run / "bundles" / "tiny-onnx-fp32"), "--quick", "--target", "jetson-orin-nano", cwd=project)
    assert "on this machine has no TensorrtExecutionProvider" in one_line_error(done, 13)
    done = edgeseg("bench", str(run / "bundles" / "tiny-onnx-int8"), "--quick", "--target", "jetson-orin-nano", cwd=project)
    assert re.search(r"activations in uint8.*make the bundle with \[export\] formats = \[\"tensorrt\"\]", one_line_error(done, 13))
    done = edgeseg("bench", str(run / "bundles" / "tiny-tflite-int8"), "--quick", "--target", "intel-cpu", cwd=project)
    assert "intel-cpu does not run tflite; it runs openvino" in one_line_error(done, 13)


def test_predict_writes_masks_at_frame_size(project: Path, run: Path, tmp_path: Path) -> None:
    images = tmp_path / "in"
    images.mkdir()
    frame = next((project / "data" / "images" / "test").iterdir())
    with Image.open(frame) as image:
        image.resize((150, 70)).save(images / "a b.png")
        image.convert("L").save(images / "gray.png")
    done = edgeseg("predict", str(run / "bundles" / "tiny-tflite-int8"), str(images), "--out", str(tmp_path / "out"), "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_frames"] == 2
    with Image.open(tmp_path / "out" / "masks" / "a b.png") as mask:
        assert mask.size == (150, 70)
        assert int(np.asarray(mask).max()) < 3
    assert (tmp_path / "out" / "overlays" / "gray.jpg").is_file()
    again = edgeseg("predict", str(run / "bundles" / "tiny-tflite-int8"), str(images), "--out", str(tmp_path / "out"), cwd=project)
    assert "--force" in one_line_error(again, 2)


def test_steps_are_commands_of_their_own_and_find_what_is_done(project: Path) -> None:
    for verb in ("train", "prune", "export", "quantize"):
        done = edgeseg(verb, "--json", cwd=project)
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout)["step"] == verb
        assert "done in" not in done.stderr
    done = edgeseg("export", "--set", "train.epochs=7", cwd=project)
    assert "step 'train' was not done for this configuration; type: edgeseg train" in one_line_error(done, 66)


def test_run_is_locked(project: Path, run: Path) -> None:
    import fcntl

    with (run / ".lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert "is in use by" in one_line_error(edgeseg("run", cwd=project), 75)


def test_the_parity_ladder_of_a_bundle_stands_on_its_run(run: Path) -> None:
    done = edgeseg("verify", str(run / "bundles" / "tiny-tflite-int8"), "--ladder", "--json", cwd=run)
    found = json.loads(done.stdout)
    assert [rung["name"] for rung in found["rungs"]][:3] == ["torch", "onnx fp32", "tflite fp32"]
    assert len(found["rungs"]) == 4
    assert found["notes"] == []
    for rung in found["rungs"][1:3]:
        assert rung["agreement"] > 0.999
        assert rung["logit_sqnr_db"] > 60
        assert rung["fallen"] == []
    assert done.returncode == (0 if found["passed"] else 1)


def test_a_rung_that_fell_off_is_the_exit_code_of_the_run(project: Path, run: Path) -> None:
    done = edgeseg("run", "--ladder", cwd=project)
    ladders = json.loads((run / "parity.json").read_text())["ladders"]
    fallen = [rung["name"] for ladder in ladders for rung in ladder["rungs"] if rung["fallen"]]
    assert fallen == [f"{format_} int8" for format_ in FORMATS]  # after so few epochs: 91 to 94 % of the pixels, and 97 are asked
    assert done.returncode == 1  # every goal is reached, as the fixture saw
    assert "a rung fell off" in done.stderr
