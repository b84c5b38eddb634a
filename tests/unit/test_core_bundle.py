"""A bundle opens only when every byte is as its manifest says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, check_target, open_bundle, seal_bundle
from edgeseg.core.errors import BundleError, ConfigError
from edgeseg.core.manifest import Contract, Parent, Reference, check_path, parse_manifest

PLAIN = {"height": 8, "width": 12, "resize": "stretch", "decision": "argmax", "threshold": None}
FRAME = np.full((8, 12, 3), 9, dtype=np.uint8)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    work = tmp_path / "work"
    work.mkdir()
    (work / "model.json").write_bytes(b"0123456789" * 10)
    model = ModelFiles(folder=work, files=("model.json",), entry="model.json", format="null", precision="fp32", scheme={}, tools={"x": "1"})
    info = BundleInfo(
        name="demo-null-fp32",
        contract=Contract(height=8, width=12),
        classes=("soil", "crop"),
        palette=((0, 0, 0), (0, 255, 0)),
        reference=Reference(dataset="d", dataset_sha256="0" * 64, split="test", num_frames=3, miou=0.5, iou=(0.5, None)),
        parents=(Parent(kind="checkpoint", sha256="1" * 64),),
        config_sha256="2" * 64,
    )
    return seal_bundle(tmp_path / "bundle", model, info, golden_frames=[FRAME], answer=lambda _: ("null 1", lambda f: f[:, :, 0] // 9))


def test_sealed_bundle_opens_and_keeps_its_golden_answers(bundle: Bundle) -> None:
    opened = open_bundle(bundle.folder)
    assert opened.manifest == bundle.manifest
    assert opened.manifest.sha256 == bundle.manifest.sha256
    ((frame, class_map),) = opened.golden_pairs()
    assert np.array_equal(frame, FRAME)
    assert np.all(class_map == 1)
    assert opened.size_bytes == 100
    assert opened.manifest.reference is not None
    assert opened.manifest.reference.iou == (0.5, None)


def test_failed_seal_leaves_the_old_bundle(bundle: Bundle, tmp_path: Path) -> None:
    before = sorted(p.name for p in tmp_path.iterdir())
    model = ModelFiles(
        folder=tmp_path / "work", files=("model.json",), entry="model.json", format="null", precision="fp32", scheme={}, tools={}
    )

    def explode(_: Bundle) -> Any:
        raise BundleError("the runtime refused it")

    manifest = bundle.manifest
    info = BundleInfo(
        name=manifest.name,
        contract=manifest.contract,
        classes=manifest.classes,
        palette=manifest.palette,
        reference=None,
        parents=(),
        config_sha256="",
    )
    with pytest.raises(BundleError, match="refused"):
        seal_bundle(bundle.folder, model, info, golden_frames=[FRAME], answer=explode)
    assert open_bundle(bundle.folder).manifest == manifest
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: _flip(b / "model.json"), "model.json was changed"),
        (lambda b: (b / "model.json").write_bytes(b"01234" * 10), "has 50 bytes, manifest.json says 100"),
        (lambda b: (b / "model.json").unlink(), "model.json is missing"),
        (lambda b: (b / "extra.sh").write_text("x"), r"extra\.sh is not listed"),
        (lambda b: (b / "link").symlink_to("model.json"), "link is a link"),
        (lambda b: (b / "manifest.json").unlink(), "is not a bundle"),
        (lambda b: (b / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda b: _flip(b / "golden/000_class_map.png"), "was changed"),
    ],
)
def test_any_damage_is_refused_by_name(bundle: Bundle, damage: Callable[[Path], object], message: str) -> None:
    damage(bundle.folder)
    with pytest.raises(BundleError, match=message):
        open_bundle(bundle.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2 is unknown"),
        ({"schema": True}, "schema True is unknown"),
        ({"format": "pt"}, "format 'pt' is unknown"),
        ({"surprise": 1}, "unknown fields surprise"),
        ({"entry": "../model.json"}, "not among files"),
        ({"classes": ["a"]}, "2 to 255"),
        ({"palette": [[0, 0, 0]]}, "differ in length"),
        ({"name": "../x"}, "outside"),
        ({"contract": {"height": 0, "width": 4, "resize": "stretch", "decision": "argmax", "threshold": None}}, "out of range"),
        ({"contract": {"height": 4, "width": 4, "resize": "stretch", "decision": "threshold", "threshold": None}}, "goes with"),
        ({"contract": {**PLAIN, "decision": "vote"}}, "'vote' is unknown; one of argmax, threshold, thresholds"),
        ({"contract": {**PLAIN, "decision": "thresholds"}}, "thresholds goes with"),
        ({"contract": {**PLAIN, "thresholds": [0.5, 0.5]}}, "thresholds goes with"),
        ({"contract": {**PLAIN, "decision": "thresholds", "thresholds": [0.5, 0.6]}}, "sum to 1"),
        ({"contract": {**PLAIN, "decision": "thresholds", "thresholds": [0.0, 1.0]}}, "above 0"),
        ({"contract": {**PLAIN, "decision": "thresholds", "thresholds": [0.5, 0.25, 0.25]}}, "differ in length"),
        ({"contract": {**PLAIN, "decision": "thresholds", "thresholds": ["a", 0.5]}}, "must be numbers"),
    ],
)
def test_bad_manifest_is_refused(bundle: Bundle, change: dict[str, Any], message: str) -> None:
    raw = json.loads((bundle.folder / "manifest.json").read_text())
    with pytest.raises(BundleError, match=message):
        parse_manifest(json.dumps({**raw, **change}))


def test_thresholds_are_read_back_and_a_threshold_is_for_two_classes(bundle: Bundle) -> None:
    raw = json.loads((bundle.folder / "manifest.json").read_text())
    raw["contract"] |= {"decision": "thresholds", "thresholds": [0.75, 0.25]}
    manifest = parse_manifest(json.dumps(raw))
    assert manifest.contract.thresholds == (0.75, 0.25)
    assert parse_manifest(json.dumps(manifest.to_json())) == manifest
    three = {"classes": ["a", "b", "c"], "palette": [[0, 0, 0]] * 3, "reference": None}
    with pytest.raises(BundleError, match="for two classes"):
        parse_manifest(json.dumps({**raw, **three, "contract": {**PLAIN, "decision": "threshold", "threshold": 0.5}}))


def test_duplicate_keys_and_nan_are_refused(bundle: Bundle) -> None:
    text = (bundle.folder / "manifest.json").read_text()
    with pytest.raises(BundleError, match="duplicate key"):
        parse_manifest(text.replace('"schema": 1,', '"schema": 1, "schema": 1,'))
    with pytest.raises(BundleError, match="NaN"):
        parse_manifest(text.replace('"miou": 0.5', '"miou": NaN'))
    with pytest.raises(BundleError, match="nested too deeply"):
        parse_manifest("[" * 100_000)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "C:x", "a\\b", "", "./x", "a//b", "x\0"])
def test_paths_stay_inside(path: str) -> None:
    with pytest.raises(BundleError, match="does not stay inside"):
        check_path(path)


def test_force_replaces_a_bundle_and_nothing_else(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "saved" / "model.onnx"
    model.parent.mkdir()
    model.write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "manifest.json").write_text("{}")  # another kind of manifest
    (tmp_path / "link").symlink_to(bundle.folder)
    for good in ("bundle", "empty", "new", "link"):
        assert check_target(tmp_path / good, model, force=True) == (tmp_path / good).resolve()
    for there in ("bundle", "empty"):
        with pytest.raises(ConfigError, match="add --force to replace it"):
            check_target(tmp_path / there, model, force=False)
    for other in (tmp_path / "page", tmp_path / "work", tmp_path / "work" / "model.json"):
        with pytest.raises(ConfigError, match="is no bundle"):
            check_target(other, model, force=True)
    inside = bundle.folder / "golden"
    for out, source in [
        (model, model), (bundle.folder, bundle.folder), (tmp_path / "link", bundle.folder), (bundle.folder, inside),
        (inside, bundle.folder), (bundle.folder / "new", bundle.folder), (tmp_path, model), (model.parent, model),
    ]:
        with pytest.raises(ConfigError, match="one lies inside the other"):
            check_target(out, source, force=True)
    for here in (bundle.folder, inside):
        monkeypatch.chdir(here)
        with pytest.raises(ConfigError, match="the folder you are in"):
            check_target(bundle.folder, model, force=True)
