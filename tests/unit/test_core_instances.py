"""What an instance model may answer, how answers are kept, and what a manifest says of them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_instances import SIDE, tiny_instance_bundle
from tiny_models import tiny_bundle

from edgeseg.core.bundle import open_bundle
from edgeseg.core.errors import BundleError
from edgeseg.core.instances import Instances, from_outputs, read_instances, write_instances
from edgeseg.core.manifest import Contract, InstanceReference, parse_manifest

ROWS = np.array([[1, 2, 3, 4, 0.4, 2], [5, 6, 7, 8, 0, 0], [0, 0, 9, 9, 0.9, 1], [1, 1, 2, 2, 0.4, 1]], dtype=np.float32)
MASKS = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((4, SIDE, SIDE), dtype=np.uint8)


def test_empty_slots_are_left_out_and_the_best_comes_first() -> None:
    found = from_outputs(ROWS, MASKS, num_classes=3)
    assert found.scores_K.tolist() == pytest.approx([0.9, 0.4, 0.4])
    assert found.classes_K.tolist() == [1, 2, 1]  # equal scores keep their order
    assert found.masks_Khw[:, 0, 0].tolist() == [2, 0, 3]
    assert found.boxes_K4[0].tolist() == [0, 0, 9, 9]
    assert len(from_outputs(np.zeros((4, 6), np.float32), MASKS, num_classes=3)) == 0


@pytest.mark.parametrize(("row", "value", "message"), [
    ((0, 0), np.nan, "NaN"), ((0, 3), np.inf, "NaN or infinity"), ((0, 4), 1.5, "a score of 1.5"), ((0, 5), 3, "outside 1..2"),
    ((2, 5), 0, "outside 1..2"),
])
def test_what_is_no_object_is_refused(row: tuple[int, int], value: float, message: str) -> None:
    rows = ROWS.copy()
    rows[row] = value
    with pytest.raises(ValueError, match=message):
        from_outputs(rows, MASKS, num_classes=3)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="not \\[K, 6\\]"):
        from_outputs(ROWS[:, :5], MASKS, num_classes=3)
    with pytest.raises(ValueError, match="not \\[K, 6\\]"):
        from_outputs(ROWS, MASKS[:3], num_classes=3)


def test_written_objects_are_read_back_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    found = from_outputs(ROWS, MASKS, num_classes=3)
    write_instances(tmp_path / "a.npz", found)
    write_instances(tmp_path / "b.npz", found)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = read_instances(tmp_path / "a.npz")
    for name in ("boxes_K4", "scores_K", "classes_K", "masks_Khw"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
        assert getattr(again, name).dtype == getattr(found, name).dtype


def archive_of(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


GOOD = {"boxes": np.zeros((2, 4), np.float32), "scores": np.zeros(2, np.float32), "classes": np.zeros(2, np.int64),
        "masks": np.zeros((2, 28, 28), np.uint8)}


@pytest.mark.parametrize("data", [
    b"", b"PK\x03\x04 cut", archive_of(**GOOD)[:-40], archive_of(**{**GOOD, "boxes": np.array([object()])}),
    archive_of(**{**GOOD, "scores": np.zeros(3, np.float32)}), archive_of(**{**GOOD, "masks": np.zeros((2, 28, 28), np.float32)}),
    archive_of(**{k: v for k, v in GOOD.items() if k != "masks"}), archive_of(**GOOD, more=np.zeros(1)),
    archive_of(**{**GOOD, "scores": np.float32(1)}),
], ids=["empty", "no-zip", "cut", "pickle", "lengths", "dtype", "missing", "more", "scalar"])
def test_another_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(BundleError, match=r"a\.npz"):
        read_instances(tmp_path / "a.npz")


def test_a_bare_array_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(BundleError, match="not a readable"):
        read_instances(tmp_path / "a.npz")


def test_a_sealed_bundle_keeps_its_golden_objects(tmp_path: Path) -> None:
    reference = InstanceReference(dataset="d", dataset_sha256="0" * 64, split="val", num_frames=3, ap=0.5, ap50=0.75,
                                  class_ap=(None, 0.5, None))
    bundle = open_bundle(tiny_instance_bundle(tmp_path, "null", reference=reference).folder)
    assert bundle.manifest.reference == reference
    assert bundle.manifest.golden[0].answer == "golden/000_instances.npz"
    ((_, answer),) = bundle.golden_pairs()
    assert isinstance(answer, Instances)
    assert answer.classes_K.tolist() == [1, 2]
    assert bundle.size_bytes == (bundle.folder / "model.json").stat().st_size  # golden answers are not the model
    assert zipfile.is_zipfile(bundle.folder / "golden/000_instances.npz")
    (bundle.folder / "golden/000_instances.npz").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"000_instances\.npz"):
        open_bundle(bundle.folder)


def test_a_semantic_manifest_is_as_it_was(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "null")
    raw = json.loads((bundle.folder / "manifest.json").read_text())
    assert set(raw["contract"]) == {"height", "width", "resize", "decision", "threshold"}
    assert parse_manifest(json.dumps(raw)).contract == Contract(height=24, width=32)
    assert parse_manifest(json.dumps(raw)).sha256 == bundle.manifest.sha256


@pytest.mark.parametrize(("change", "message"), [
    ({"task": "panoptic"}, "task 'panoptic' is unknown; one of semantic, instance"),
    ({"max_instances": 0}, "is not 1..255"), ({"max_instances": 256}, "is not 1..255"), ({"max_instances": True}, "is bool"),
    ({"resize": "tile"}, "cuts objects apart"), ({"decision": "threshold", "threshold": 0.5}, "not for instances"),
    ({"task": "semantic", "max_instances": 4}, "goes with task 'instance'"), ({"surprise": 1}, "unknown fields surprise"),
    ({"task": "semantic", "max_instances": 0}, r"golden\[0\] lacks class_map"),
])
def test_a_bad_instance_contract_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    raw = json.loads((tiny_instance_bundle(tmp_path, "null").folder / "manifest.json").read_text())
    with pytest.raises(BundleError, match=message):
        parse_manifest(json.dumps({**raw, "contract": {**raw["contract"], **change}}))


def test_a_reference_must_fit_the_task(tmp_path: Path) -> None:
    raw = json.loads((tiny_instance_bundle(tmp_path, "null").folder / "manifest.json").read_text())
    facts = {"dataset": "d", "dataset_sha256": "0" * 64, "split": "val", "num_frames": 3}
    with pytest.raises(BundleError, match="reference lacks ap, ap50, class_ap"):
        parse_manifest(json.dumps({**raw, "reference": {**facts, "miou": 0.5, "iou": [1, 1, 1]}}))
    with pytest.raises(BundleError, match="class_ap needs one value a class"):
        parse_manifest(json.dumps({**raw, "reference": {**facts, "ap": 0.5, "ap50": 0.6, "class_ap": [None]}}))
