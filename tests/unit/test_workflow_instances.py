"""What the workflow does with the task of a network before and after torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from instance_tools import write_objects
from tiny_instances import tiny_instance_bundle

from edgeseg.core.config import INSTANCE_MODELS, Config, parse_config
from edgeseg.core.errors import ConfigError
from edgeseg.core.images import write_frame
from edgeseg.core.manifest import Contract
from edgeseg.models import MODELS
from edgeseg.report.model import ObjectPicture, ResultRow
from edgeseg.workflow import bundles
from edgeseg.workflow.chain import check_task
from edgeseg.workflow.learn.learning import contract_of
from edgeseg.workflow.ui import Silent


def config_of(**sections: dict[str, object]) -> Config:
    return parse_config(sections)


def test_a_board_knows_the_task_of_every_network() -> None:
    assert {name for name, spec in MODELS.items() if spec.task == "instance"} == set(INSTANCE_MODELS)


def test_the_contract_follows_from_the_network() -> None:
    size = {"size": [64, 96]}
    assert contract_of(config_of(data=size)) == Contract(height=64, width=96)
    objects = config_of(data={**size, "resize": "letterbox"}, model={"name": "mask_rcnn", "max_instances": 12})
    assert contract_of(objects) == Contract(height=64, width=96, resize="letterbox", task="instance", max_instances=12)


@pytest.mark.parametrize(("sections", "message"), [
    ({"model": {"name": "mask_rcnn"}, "goals": {"miou": 0.5}}, "miou says nothing about mask_rcnn; use ap, ap50, ap_drop"),
    ({"model": {"name": "mask_rcnn"}, "goals": {"miou_drop": 0.5}}, "miou_drop says nothing"),
    ({"model": {"name": "mask_rcnn"}, "data": {"resize": "tile"}}, "set data.resize=letterbox"),
    ({"goals": {"ap50": 0.5}}, "ap50 says nothing about fast_scnn; use miou, miou_drop"),
])
def test_what_means_nothing_for_the_task_is_refused(sections: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_task(config_of(**sections))


def test_what_means_something_passes() -> None:
    check_task(config_of(model={"name": "mask_rcnn"}, goals={"ap": 0.1, "agreement": 0.9, "class_drop": 0.1}))
    check_task(config_of(goals={"miou": 0.1, "agreement": 0.9, "class_drop": 0.1}))


def test_a_bundle_is_verified_on_labelled_objects(tmp_path: Path) -> None:
    bundle = tiny_instance_bundle(tmp_path, "null", side=84, classes=("background", "disc", "bar"))
    write_objects(tmp_path / "data")
    ui = Silent()
    golden = bundles.verify(bundle.folder, data=None, config=None, target="host", ui=ui)
    assert golden.passed
    assert any("100.0000% of the objects of 1 frames" in line for line in golden.lines)
    labelled = bundles.verify(bundle.folder, data=tmp_path / "data", config=None, target="host", split="val", ui=ui)
    assert labelled.facts["miou"] is None
    assert 0 <= labelled.facts["ap"] <= labelled.facts["ap50"] <= 1
    assert labelled.facts["num_objects"] > 4
    assert any(line.startswith("no mIoU: instances") for line in labelled.lines)
    assert [line.split(":")[0].strip() for line in labelled.lines if line.startswith("  ")] == ["disc", "bar"]


def test_a_score_is_asked_of_bundles_that_have_one(tmp_path: Path) -> None:
    from tiny_models import tiny_bundle

    semantic = tiny_bundle(tmp_path, "null")
    write_frame(tmp_path / "a.png", np.zeros((30, 40, 3), np.uint8))
    with pytest.raises(ConfigError, match="leave --min-score out"):
        bundles.predict(semantic.folder, tmp_path / "a.png", tmp_path / "out", target="host", overlay=True, force=False, min_score=0.3,
                        ui=Silent())


def test_a_row_of_objects_speaks_of_ap() -> None:
    row = ResultRow(
        target="host", bundle="b", bundle_sha256="0", format="onnx", precision="int8", runtime="onnxruntime", runtime_version="1",
        device="local", measured_on="here", is_target_machine=True, quick=True, threads=1, size_bytes=1, task="instance", ap=0.3, ap50=0.5,
        ap_float=0.31, class_ap=(None, 0.3), no_miou="instances: no class map",
    )
    assert (row.main_name, row.main, row.main_of_classes) == ("AP", 0.3, (None, 0.3))
    assert row.main_drop == pytest.approx(0.01)
    said = row.to_json()
    assert said["miou"] is None
    assert said["ap_drop"] == pytest.approx(0.01)
    assert ResultRow.from_json(said) == row


def test_the_page_shows_objects() -> None:
    from report_example import report

    from edgeseg.report.model import FloatReference
    from edgeseg.report.page import render_page

    plain = report()
    rows = tuple(
        ResultRow.from_json({**row.to_json(), "task": "instance", "miou": None, "iou": (), "ap": 0.4, "ap50": 0.6, "ap_float": 0.41,
                             "class_ap": (None, 0.5, 0.3, None)}) for row in plain.rows
    )
    frame = np.zeros((60, 80, 3), np.uint8)
    picture = ObjectPicture(id="leaf <1>", label=frame, float_answer=frame, bundle_answers={"onnx-int8": frame},
                            counts={"label": 1, "float": 2, "onnx-int8": 3}, note="x")
    reference = FloatReference(split="test", num_frames=3, miou=None, iou=(), pixel_accuracy=None, task="instance", ap=0.41, ap50=0.62,
                               class_ap=(None, 0.5, 0.32, None))
    page = render_page(report(rows=rows, pictures=(picture,), float_reference=reference))
    for words in ("AP of each class", "41.00 % AP", "AP50", "leaf &lt;1&gt;", "2 objects", "3 objects", "1 object<"):
        assert words in page
    assert "What is taken for what" not in page
    assert "mIoU of each" not in page
