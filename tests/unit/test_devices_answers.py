"""Answers given on a device come back as they were, and verify judges them as it judges a session here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_instances import same_objects, tiny_instance_bundle
from tiny_models import CLASSES, tiny_bundle, tiny_frame

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import DataError, DeviceError
from edgeseg.core.images import Frame, read_class_map, read_frame, write_class_map, write_frame
from edgeseg.core.instances import as_instances
from targets.devices import Job, LocalDevice, Progress
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


class Tampered(LocalDevice):
    """A device whose first answer is another one."""

    def __init__(self, change: Callable[[Path], object]) -> None:
        super().__init__()
        self._change = change

    def run(self, job: Job, *, what: str, timeout_s: float, on_progress: Progress, into: Path | None = None) -> dict[str, Any]:
        result = super().run(job, what=what, timeout_s=timeout_s, on_progress=on_progress, into=into)
        assert into is not None
        first = sorted((into / "answers").iterdir())[0]
        self._change(first)
        return {**result, "num_answers": sum(1 for _ in first.parent.iterdir())}


def another_size(answer: Path) -> None:
    write_class_map(answer, read_class_map(answer)[:1])


def another_class(answer: Path) -> None:
    write_class_map(answer, np.full_like(read_class_map(answer), len(CLASSES)))


def a_folder(answer: Path) -> None:
    answer.unlink()
    answer.mkdir()


@pytest.mark.parametrize("change", [another_size, another_class, a_folder, Path.unlink, lambda answer: answer.write_bytes(b"no picture")])
def test_what_is_no_answer_is_not_judged(tmp_path: Path, change: Callable[[Path], object]) -> None:
    bundle = tiny_bundle(tmp_path, "null")
    with pytest.raises(DeviceError, match="says what edgeseg does not understand"), answers_on(Tampered(change), bundle, ()) as session:
        check_golden(bundle, session)


def test_objects_are_no_class_map(tmp_path: Path) -> None:
    bundle = tiny_instance_bundle(tmp_path, "null")
    changed = Tampered(lambda answer: write_class_map(answer, np.zeros((32, 32), np.uint8)))
    with pytest.raises(DeviceError, match="is no answer"), answers_on(changed, bundle, ()) as session:
        check_golden(bundle, session)


def test_a_torn_frame_is_called_by_its_name(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "null")
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(b"\xff\xd8 no more")
    with pytest.raises(DataError, match=r"^torn\.jpg: not a readable image"), answers_on(LocalDevice(), bundle, [torn]):
        pass
