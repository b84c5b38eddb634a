"""Objects, end to end, as a user runs it: one command from a COCO folder to bundles that find what torch finds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from chain_tools import edgeseg, one_line_error, read_rows
from instance_tools import write_objects
from PIL import Image

pytestmark = pytest.mark.slow

FORMATS = ("onnx", "openvino")  # LiteRT's converter takes minutes; tests/contract has it
CONFIG = """
name = "objects"
targets = ["host"]

[data]
dir = "data"
size = [64, 96]
resize = "letterbox"

[model]
name = "mask_rcnn"
encoder = "mobilenet_v3_small"
width = 0.125
max_instances = 8

[train]
epochs = 2
batch_size = 2
eval_every = 1
warmup_epochs = 1
ema = 0.5

[export]
formats = ["onnx", "openvino"]
golden_frames = 2

[quantize]
calibration_frames = 4

[bench]
quick = true

[goals]
agreement = 0.99
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    write_objects(folder / "data", counts={"train": 4, "val": 2, "test": 3})
    (folder / "edgeseg.toml").write_text(CONFIG)
    done = edgeseg("run", cwd=folder, timeout_s=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def run(project: Path) -> Path:
    return project / "runs" / "objects"


def test_every_bundle_finds_what_torch_finds(run: Path) -> None:
    for format_ in FORMATS:
        manifest = json.loads((run / "bundles" / f"objects-{format_}-fp32" / "manifest.json").read_text())
        assert manifest["contract"]["task"] == "instance"
        assert manifest["contract"]["max_instances"] == 8
        assert set(manifest["reference"]) == {"dataset", "dataset_sha256", "split", "num_frames", "ap", "ap50", "class_ap"}
        assert [pair["instances"] for pair in manifest["golden"]] == ["golden/000_instances.npz", "golden/001_instances.npz"]
        verified = json.loads((run / "verify" / f"objects-{format_}-fp32.json").read_text())
        assert verified["golden_agreement"] == 1
        assert verified["agreement"] >= 0.99
        assert verified["ap"] == pytest.approx(manifest["reference"]["ap"], abs=0.01)
        assert verified["ap_drop"] == pytest.approx(0, abs=0.01)
        int8 = json.loads((run / "verify" / f"objects-{format_}-int8.json").read_text())
        assert int8["golden_agreement"] == 1
        assert int8["agreement"] is not None


def test_the_report_says_ap_and_why_there_is_no_miou(run: Path) -> None:
    rows = read_rows(run)
    assert {row["format"] for row in rows if row["target"] == "host"} == set(FORMATS)
    for row in rows:
        assert row["miou"] is None
        assert row["no_miou"].startswith("instances")
        assert 0 <= row["ap"] <= row["ap50"] <= 1
        assert row["task"] == "instance"
        assert row["p50_ms"] > 0
        assert row["class_ap"][0] is None
    page = (run / "report.html").read_text()
    assert "AP of each class" in page
    assert "Confusion" not in page
    assert page.count("<figcaption>") >= 3 * 3


def test_the_table_and_a_second_run(project: Path) -> None:
    again = edgeseg("run", cwd=project, timeout_s=300)
    assert again.returncode == 0
    assert "done in" not in again.stderr
    assert " AP " in again.stdout


def test_a_bundle_verifies_predicts_and_benches_alone(project: Path, tmp_path: Path) -> None:
    bundle = "runs/objects/bundles/objects-onnx-fp32"
    golden = edgeseg("verify", bundle, "--json", cwd=project)
    assert json.loads(golden.stdout)["golden_agreement"] == 1
    labelled = edgeseg("verify", bundle, "--data", "data", "--json", cwd=project)
    assert labelled.returncode == 0, labelled.stderr
    facts = json.loads(labelled.stdout)
    assert facts["ap"] == pytest.approx(json.loads((project / "runs/objects/verify/objects-onnx-fp32.json").read_text())["ap"])
    assert facts["ap_drop"] is not None

    out = tmp_path / "found"
    done = edgeseg("predict", bundle, "data/test", "--out", str(out), "--min-score", "0.05", cwd=project)
    assert done.returncode == 0, done.stderr
    said = json.loads((out / "objects" / "test_001.json").read_text())
    mask = np.asarray(Image.open(out / "masks" / "test_001.png"))
    assert mask.shape == (96, 128)
    assert set(np.unique(mask).tolist()) <= {0, *(one["id"] for one in said["objects"])}
    assert all(one["class"] in ("disc", "bar") and one["score"] >= 0.05 for one in said["objects"])
    assert (out / "overlays" / "test_001.jpg").is_file()

    bench = edgeseg("bench", bundle, "--quick", "--json", cwd=project)
    assert bench.returncode == 0, bench.stderr
    assert json.loads(bench.stdout)["resize_back"]["p50_ms"] > 0


@pytest.mark.parametrize(("setting", "message"), [
    ("data.resize=tile", "cuts the objects of mask_rcnn apart"),
    ("goals.miou=0.5", "[goals] miou says nothing about mask_rcnn; use ap, ap50"),
])
def test_settings_without_a_meaning_are_refused_before_anything_runs(project: Path, setting: str, message: str) -> None:
    assert message in one_line_error(edgeseg("run", "--set", setting, "--set", "name=other", cwd=project), 2)
