"""Answers given on a device come back as they were, and verify judges them as it judges a session here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_instances import same_objects, tiny_instance_bundle
from tiny_models import CLASSES, tiny_bundle, tiny_frame

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import DataError
from edgeseg.core.images import Frame, read_frame, write_frame
from edgeseg.core.instances import as_instances
from targets.devices import LocalDevice
from targets.devices.remote import answers_on
from targets.runtimes import RuntimeOptions, open_session
from targets.verify import check_golden, verify


def frames_in(folder: Path) -> list[Path]:
    """Two files of the same name, of other sizes than the model's."""
    paths = [folder / "a" / "field.png", folder / "b" / "field.png"]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        write_frame(path, tiny_frame(seed, height=30 + seed, width=70))
    return paths


def labelled(bundle: Bundle, paths: list[Path]) -> list[tuple[str, Frame, np.ndarray]]:
    return [(path.parent.name, read_frame(path), np.zeros(read_frame(path).shape[:2], np.uint8)) for path in paths]


@pytest.mark.parametrize("resize", ["letterbox", "tile"])
def test_verify_finds_on_a_device_what_it_finds_here(tmp_path: Path, resize: str) -> None:
    bundle = tiny_bundle(tmp_path, "null", resize=resize)
    paths = frames_in(tmp_path)
    here = verify(open_session(bundle, "null", RuntimeOptions()), bundle, labelled(bundle, paths))
    stages: list[str] = []
    with answers_on(LocalDevice(), bundle, paths, on_progress=lambda stage, done: stages.append(stage)) as session:
        there = verify(session, bundle, labelled(bundle, paths))
    assert there.to_json() == here.to_json()
    assert np.array_equal(there.confusions_NCC, here.confusions_NCC)
    assert there.golden_passed
    assert stages.count("answer") == len(paths)
    assert session.runtime == "null"
    assert session.settings["runtime"] == "null"
    assert session.measured_on.is_target
    assert len(CLASSES) == len(there.iou)


def test_golden_frames_alone_and_objects(tmp_path: Path) -> None:
    bundle = tiny_instance_bundle(tmp_path, "null")
    with answers_on(LocalDevice(), bundle, ()) as session:
        assert check_golden(bundle, session) == 1.0
    frame = bundle.golden_frames()[0]
    with answers_on(LocalDevice(), bundle, ()) as session:
        found = as_instances(session.run(frame))
    direct = as_instances(open_session(bundle, "null", RuntimeOptions()).run(frame))
    assert len(found) > 0
    same_objects(found, direct)


def test_a_torn_frame_is_called_by_its_name(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "null")
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(b"\xff\xd8 no more")
    with pytest.raises(DataError, match=r"^torn\.jpg: not a readable image"), answers_on(LocalDevice(), bundle, [torn]):
        pass
