"""Objects on frames of any size: found, laid over each other, drawn, written, verified and judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_instances import blocks_as_objects, blocks_frame, tiny_instance_bundle
from tiny_models import CLASSES, tiny_bundle, tiny_frame

from edgeseg.core.bundle import Bundle
from edgeseg.core.config import GoalsSection
from edgeseg.core.errors import BundleError, DataError
from edgeseg.core.images import place, read_class_map, read_frame, to_model, write_frame
from edgeseg.core.instances import InstanceLabel, Instances
from edgeseg.core.manifest import InstanceReference
from targets.instances import Shown, at_least, describe, draw, find_instances, object_colours, object_map, put_back, shown_label
from targets.measure.loop import StepTimes, Stream
from targets.predict import PredictOptions, predict_source
from targets.runtimes import RuntimeOptions, Session, open_session
from targets.verify import check_golden
from targets.verify_instances import judge_instances, verify_instances

SIDE = 84


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_instance_bundle(tmp_path / "bundle", "null", side=SIDE)


@pytest.fixture
def session(bundle: Bundle) -> Session:
    return open_session(bundle, "null", RuntimeOptions())


def label_of(frame: np.ndarray) -> InstanceLabel:
    objects = blocks_as_objects(frame)
    masks = np.stack([(frame[:, :, 0] >= low) & (frame[:, :, 0] < high) for low, high in ((100, 200), (200, 256))])
    return InstanceLabel(boxes_N4=objects.boxes_K4, classes_N=objects.classes_K, masks_NHW=masks, crowd_N=np.zeros(2, bool))


def test_finds_objects_in_a_frame_of_another_size(bundle: Bundle, session: Session) -> None:
    frame = blocks_frame(168, 336)
    found = find_instances(session, bundle.manifest.contract, frame)
    np.testing.assert_allclose(found.boxes_K4, blocks_as_objects(frame).boxes_K4, atol=4)  # one pixel at model size is four here
    whole = object_map(found, (168, 336))
    label = label_of(frame)
    for number, mask in enumerate(label.masks_NHW, start=1):
        assert (mask & (whole == number)).sum() / (mask | (whole == number)).sum() > 0.9


def two_squares() -> Instances:
    return Instances(
        boxes_K4=np.array([[0, 0, 10, 10], [5, 5, 15, 15]], np.float32), scores_K=np.array([0.9, 0.4], np.float32),
        classes_K=np.array([2, 1]), masks_Khw=np.full((2, 28, 28), 255, np.uint8),
    )


def test_the_better_object_lies_on_top() -> None:
    whole = object_map(two_squares(), (20, 20))
    assert (whole[7, 7], whole[12, 12], whole[2, 12]) == (1, 2, 0)
    assert (whole == 1).sum() == 100
    assert (whole == 2).sum() == 75


def test_low_scores_are_left_out() -> None:
    assert at_least(two_squares(), 0.5).classes_K.tolist() == [2]
    assert len(at_least(two_squares(), 0.4)) == 2
    assert not object_map(at_least(two_squares(), 0.95), (20, 20)).any()


def test_described_objects_say_what_the_map_shows() -> None:
    said = describe(two_squares(), CLASSES, (12, 20))
    assert (said["height"], said["width"]) == (12, 20)
    assert said["objects"][0] == {"id": 1, "class": "blue", "class_index": 2, "score": 0.9, "box": [0, 0, 10, 10], "pixels": 100}
    assert said["objects"][1]["box"] == [5, 5, 15, 12]  # cut off at the border


def test_put_back_does_either_task(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    frame = blocks_frame(168, 336)
    placement = place((168, 336), (SIDE, SIDE), "stretch")
    whole = put_back([session.run(part) for part in to_model(frame, placement)], placement)
    assert set(np.unique(whole).tolist()) == {0, 1, 2}
    semantic = tiny_bundle(tmp_path, "null", resize="tile")
    tiles = place((50, 70), (24, 32), "tile")
    classes = open_session(semantic, "null", RuntimeOptions())
    assert put_back([classes.run(part) for part in to_model(tiny_frame(0, height=50, width=70), tiles)], tiles).shape == (50, 70)


def test_drawn_objects_are_half_frame_half_colour() -> None:
    frame = np.full((60, 80, 3), 100, np.uint8)
    shown = shown_label(label_of(blocks_frame(60, 80)), CLASSES)
    drawn = draw(frame, shown)
    first, second = object_colours(2)
    np.testing.assert_allclose(drawn[25, 30], (np.array(first) + 100) / 2, atol=0.5)
    np.testing.assert_allclose(drawn[48, 60], (np.array(second) + 100) / 2, atol=0.5)
    assert tuple(drawn[29, 39]) == first  # a corner of its box
    assert tuple(drawn[2, 2]) == (100, 100, 100)
    assert (frame == 100).all()
    assert draw(frame, []).tolist() == frame.tolist()


def test_drawing_survives_boxes_without_area_and_at_the_border() -> None:
    patch = shown_label(label_of(blocks_frame(60, 80)), CLASSES)[0].patch
    for box in ((0, 0, 0, 0), (80, 60, 80, 60), (79.5, 59.5, 80, 60), (3, 3, 3, 9)):
        assert draw(np.zeros((60, 80, 3), np.uint8), [Shown(patch, box, "soil")]).shape == (60, 80, 3)


def test_predict_writes_maps_overlays_and_objects(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    (tmp_path / "in" / "day 1").mkdir(parents=True)
    write_frame(tmp_path / "in" / "day 1" / "a.png", blocks_frame(168, 168))
    write_frame(tmp_path / "in" / "b.png", np.zeros((40, 50, 3), np.uint8))
    made = predict_source(session, bundle, tmp_path / "in", tmp_path / "out")
    assert made.num_frames == 2
    assert made.objects == tmp_path / "out" / "objects"
    said = json.loads((tmp_path / "out/objects/day 1/a.json").read_text())
    assert said["frame"] == "day 1/a"
    assert [one["class"] for one in said["objects"]] == ["green", "blue"]
    assert json.loads((tmp_path / "out/objects/b.json").read_text())["objects"] == []
    mask = read_class_map(tmp_path / "out/masks/day 1/a.png")
    assert [int((mask == one["id"]).sum()) for one in said["objects"]] == [one["pixels"] for one in said["objects"]]
    with Image.open(tmp_path / "out/masks/day 1/a.png") as image:
        assert image.mode == "P"
    drawn = read_frame(tmp_path / "out/overlays/day 1/a.jpg")
    assert (drawn != blocks_frame(168, 168)).any()


def test_predict_leaves_out_what_has_no_score(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    frame = blocks_frame(84, 84)
    frame[60:66, 12:20] = 128  # stretches the gray object's box, so its share falls
    write_frame(tmp_path / "a.png", frame)
    predict_source(session, bundle, tmp_path / "a.png", tmp_path / "out", PredictOptions(min_score=0.9))
    assert [one["class"] for one in json.loads((tmp_path / "out/objects/a.json").read_text())["objects"]] == ["blue"]


def test_a_semantic_bundle_has_no_objects(tmp_path: Path) -> None:
    semantic = tiny_bundle(tmp_path / "bundle", "null")
    write_frame(tmp_path / "a.png", tiny_frame(0))
    made = predict_source(open_session(semantic, "null", RuntimeOptions()), semantic, tmp_path / "a.png", tmp_path / "out")
    assert made.objects is None
    assert not (tmp_path / "out/objects").exists()


def test_the_measured_loop_takes_objects(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    write_frame(tmp_path / "a.png", blocks_frame(168, 168))
    ticks = iter(range(0, 10**9, 10))
    times = StepTimes()
    stream = Stream(session, bundle.manifest.contract, [tmp_path / "a.png"], lambda: next(ticks))
    stream.step(times)
    stream.step(times)
    assert [len(part) for part in (times.inference, times.resize_back, times.end_to_end)] == [2, 2, 2]


REFERENCE = InstanceReference(
    dataset="d", dataset_sha256="5" * 64, split="val", num_frames=2, ap=0.9, ap50=0.95, class_ap=(None, 0.95, 0.85),
)


def frames() -> list[tuple[str, np.ndarray, InstanceLabel]]:
    return [(f"f{i}", frame, label_of(frame)) for i, frame in enumerate((blocks_frame(84, 84), np.roll(blocks_frame(84, 84), 9, axis=1)))]


def test_verify_scores_compares_and_judges(tmp_path: Path) -> None:
    bundle = tiny_instance_bundle(tmp_path, "null", side=SIDE, reference=REFERENCE)
    session = open_session(bundle, "null", RuntimeOptions())
    seen: list[int] = []
    right = [blocks_as_objects(frame) for _, frame, _ in frames()]
    result = verify_instances(
        session, bundle, frames(), reference=right, dataset_sha256="5" * 64, split="val", on_frame=seen.append,
    )
    assert seen == [1, 2]
    assert result.score.ap == pytest.approx(1)
    assert result.score.num_objects == 4
    assert result.agreement == 1
    assert result.golden_agreement == 1
    assert result.golden_passed
    assert result.ap_drop == pytest.approx(-0.1)
    assert result.class_drop == (None, pytest.approx(-0.05), pytest.approx(-0.15))
    assert result.worst_class_drop == pytest.approx(-0.05)
    said = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert said["miou"] is None
    assert said["no_miou"].startswith("instances")
    assert said["class_ap"] == {"red": None, "green": 1.0, "blue": 1.0}
    assert said["not_evaluated"] == []
    assert {"agreement", "golden_agreement", "worst_class_drop", "class_drop", "iou", "miou_drop", "pixel_accuracy", "frames"} <= set(said)
    goals = GoalsSection(agreement=1, ap=0.99, ap50=0.99, ap_drop=0.0, class_drop=0.0)
    assert [(f.goal, f.passed) for f in judge_instances(result, goals)] == [
        ("golden", True), ("agreement", True), ("ap", True), ("ap50", True), ("ap_drop", True), ("class_drop", True),
    ]
    assert not any(f.passed for f in judge_instances(result, GoalsSection(miou=0.1))[1:])  # never passes for want of a number


def test_verify_notices_what_differs(tmp_path: Path) -> None:
    bundle = tiny_instance_bundle(tmp_path, "null", side=SIDE, reference=REFERENCE)
    session = open_session(bundle, "null", RuntimeOptions())
    other = [blocks_as_objects(frame) for _, frame, _ in frames()]
    other[1] = replace(other[1], scores_K=other[1].scores_K - np.float32([0.02, 0]))
    assert verify_instances(session, bundle, frames(), reference=other).agreement == pytest.approx(3 / 5)
    assert verify_instances(session, bundle, frames(), reference=other).frames[0].agreement == 1
    int8 = Bundle(bundle.folder, replace(bundle.manifest, precision="int8"))
    assert verify_instances(session, int8, frames(), reference=other).agreement == 1
    assert verify_instances(session, bundle, frames(), dataset_sha256="6" * 64).ap_drop is None
    assert verify_instances(session, bundle, frames(), split="test").reference_ap is None
    assert verify_instances(session, bundle, frames()).agreement is None


def test_verify_refuses_what_cannot_be_evaluated(bundle: Bundle, session: Session) -> None:
    with pytest.raises(DataError, match="no labelled frames"):
        verify_instances(session, bundle, [])
    with pytest.raises(DataError, match="f1: no reference answer"):
        verify_instances(session, bundle, frames(), reference=[blocks_as_objects(blocks_frame(84, 84))])
    name, frame, label = frames()[0]
    crowd = replace(label, crowd_N=np.ones(2, bool))
    with pytest.raises(DataError, match="1 frames hold no labelled object"):
        verify_instances(session, bundle, [(name, frame, crowd)])


def test_golden_objects_of_a_bundle_that_changed_its_mind(tmp_path: Path, session: Session, bundle: Bundle) -> None:
    assert check_golden(bundle, session) == 1
    shifted = Bundle(bundle.folder, replace(bundle.manifest, golden=()))
    with pytest.raises(BundleError, match="no golden frames"):
        check_golden(shifted, session)
    frame = blocks_frame(SIDE, SIDE)
    write_frame(bundle.folder / bundle.manifest.golden[0].frame, np.roll(frame, 20, axis=0))
    assert check_golden(bundle, session) < 0.5
