"""Every runtime of the registry answers instance bundles by the same contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_instances
from tiny_instances import INSTANCE_WRITERS, SIDE, blocks_as_objects, blocks_frame, channels_as_objects, same_objects, tiny_instance_bundle
from tiny_models import tiny_frame

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import BundleError
from edgeseg.core.instances import Instances
from targets.runtimes import RUNTIMES, RuntimeOptions, Session, open_session
from targets.verify import check_golden

ELSEWHERE = {"tflite_runtime", "tensorrt"}
PAIRS = [(name, format) for name, runtime in RUNTIMES.items() if name not in ELSEWHERE for format in sorted(runtime.formats)]
SDK_PAIRS = [pair for pair in PAIRS if pair[0] != "null"]
OPTIONS = RuntimeOptions(num_threads=1)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    return {format: tiny_instance_bundle(tmp_path_factory.mktemp("bundles"), format) for format in INSTANCE_WRITERS}


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair))
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    name, format = request.param
    assert RUNTIMES[name].version() is not None, f"{name} is not installed; type: make setup"
    return name, format


@pytest.fixture
def session(pair: tuple[str, str], bundles: dict[str, Bundle]) -> Iterator[Session]:
    opened = open_session(bundles[pair[1]], pair[0], OPTIONS)
    yield opened
    opened.close()


def frame_and_answer(format: str, seed: int) -> tuple[np.ndarray, Instances]:
    if format == "null":
        frame = np.roll(blocks_frame(), seed, axis=(0, 1))
        return frame, blocks_as_objects(frame)
    frame = tiny_frame(seed, height=SIDE, width=SIDE)
    frame[:, :, seed % 3] //= 2  # else all scores are nearly equal
    return frame, channels_as_objects(frame)


def test_answers_as_the_model_says(pair: tuple[str, str], session: Session) -> None:
    for seed in range(3):
        frame, wanted = frame_and_answer(pair[1], seed)
        answer = session.run(frame)
        assert isinstance(answer, Instances)
        assert (answer.boxes_K4.dtype, answer.scores_K.dtype, answer.classes_K.dtype) == (np.float32, np.float32, np.int64)
        assert len(answer) == len(wanted)  # the empty slot is no object
        same_objects(answer, wanted)


def test_an_answer_belongs_to_the_caller(pair: tuple[str, str], session: Session) -> None:
    frame, wanted = frame_and_answer(pair[1], 1)
    first = session.run(frame)
    session.run(frame_and_answer(pair[1], 2)[0])
    assert isinstance(first, Instances)
    same_objects(first, wanted)
    first.masks_Khw[:] = 7
    first.boxes_K4[:] = 7
    again = session.run(frame)
    assert isinstance(again, Instances)
    same_objects(again, wanted)


def test_golden_objects_come_out_as_sealed(pair: tuple[str, str], session: Session, bundles: dict[str, Bundle]) -> None:
    assert check_golden(bundles[pair[1]], session) == 1.0


@pytest.mark.parametrize("pair", SDK_PAIRS, ids=lambda pair: "-".join(pair))
def test_a_model_with_other_slots_is_refused(pair: tuple[str, str], bundles: dict[str, Bundle]) -> None:
    bundle = bundles[pair[1]]
    contract = replace(bundle.manifest.contract, max_instances=5)
    with pytest.raises(BundleError, match=r"'detections' is .*\[4, 6\], the contract says float32 \[5, 6\]"):
        open_session(Bundle(bundle.folder, replace(bundle.manifest, contract=contract)), pair[0], OPTIONS)


@pytest.mark.parametrize("pair", SDK_PAIRS, ids=lambda pair: "-".join(pair))
def test_an_instance_model_is_no_semantic_one(pair: tuple[str, str], bundles: dict[str, Bundle]) -> None:
    bundle = bundles[pair[1]]
    contract = replace(bundle.manifest.contract, task="semantic", max_instances=0)
    with pytest.raises(BundleError, match="the contract wants 'class_map'"):
        open_session(Bundle(bundle.folder, replace(bundle.manifest, contract=contract)), pair[0], OPTIONS)


def test_a_missing_output_is_named(tmp_path: Path) -> None:
    bundle = tiny_instance_bundle(tmp_path, "onnx", write=lambda folder: tiny_instances.write_onnx(folder, masks_name="segments"))
    with pytest.raises(BundleError, match="has the outputs segments, detections; the contract wants 'masks'"):
        open_session(bundle, "onnxruntime", OPTIONS)


def test_objects_outside_the_classes_are_refused(pair: tuple[str, str], bundles: dict[str, Bundle]) -> None:
    bundle = bundles[pair[1]]
    fewer = Bundle(bundle.folder, replace(bundle.manifest, classes=bundle.manifest.classes[:2]))
    if pair[1] == "null":
        pytest.skip("the null model names its number of classes and is refused when it is opened")
    session = open_session(fewer, pair[0], OPTIONS)
    with pytest.raises(BundleError, match=r"classes 1\.\.2 outside 1\.\.1; export the bundle again"):
        session.run(tiny_frame(0, height=SIDE, width=SIDE))
    session.close()
