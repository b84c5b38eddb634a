"""Arrays that come again: they do, and no frame gets those of another that is still under way."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny_bundle, tiny_frame
from waiting_tools import comes_true

from edgeseg.core.bundle import Bundle
from edgeseg.core.images import ClassMap, Frame, Placement, read_class_map, read_frame, to_frame
from edgeseg.core.instances import Answer
from targets.measure.loop import StepTimes, Stream, cycle
from targets.predict import PredictOptions, predict_frame, predict_source
from targets.runtimes import RuntimeOptions, open_session
from targets.runtimes.again import Again
from targets.stream.ring import Ring

MODEL_HW = (24, 32)


class Watched:
    """A session that notes which arrays it is given, and keeps them, so that none lies where another lay."""

    def __init__(self, bundle: Bundle) -> None:
        self.inner = open_session(bundle, "null", RuntimeOptions())
        self.settings = self.inner.settings
        self.calls: list[tuple[Frame, ClassMap | None]] = []

    def run(self, frame_HWC: Frame, out: ClassMap | None = None) -> Answer:
        answer = self.inner.run(frame_HWC, out)
        self.calls.append((frame_HWC, out))
        return answer

    def close(self) -> None:
        self.inner.close()

    def pairs(self) -> set[tuple[int, int]]:
        return {(id(frame), id(out)) for frame, out in self.calls}


def folder_of(path: Path, sizes: list[tuple[int, int]], suffix: str = "png") -> Path:
    path.mkdir()
    for number, (height, width) in enumerate(sizes):
        Image.fromarray(tiny_frame(number, height=height, width=width)).save(path / f"{number:03}.{suffix}")
    return path


def same_as_one_by_one(bundle: Bundle, source: Path, masks: Path) -> int:
    session = open_session(bundle, "null", RuntimeOptions())
    files = sorted(source.iterdir())
    for file in files:
        expected = predict_frame(session, bundle, read_frame(file))
        np.testing.assert_array_equal(read_class_map(masks / f"{file.stem}.png"), expected, err_msg=file.name)
    return len(files)


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "tile"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_masks_are_those_of_the_plain_loop(workers: int, resize: str, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", "null", resize=resize)
    source = folder_of(tmp_path / "in", [MODEL_HW, (50, 70), (20, 90), MODEL_HW, (24, 64)] * 4)
    done = predict_source(open_session(bundle, "null", RuntimeOptions()), bundle, source, tmp_path / "out", PredictOptions(workers=workers))
    assert same_as_one_by_one(bundle, source, done.masks) == done.num_frames == 20


@pytest.mark.parametrize("size", [MODEL_HW, (48, 64)])
def test_the_next_frames_leave_the_arrays_of_a_slow_one_alone(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", "null")
    source, session = folder_of(tmp_path / "in", [size] * 12), Watched(bundle)
    first = threading.Lock()

    def slow(class_maps: list[ClassMap], placement: Placement) -> ClassMap:
        if first.acquire(blocking=False):
            assert comes_true(lambda: len(session.calls) >= 5), "the others were to be answered meanwhile"
        return to_frame(class_maps, placement)

    monkeypatch.setattr("targets.predict.to_frame", slow)
    done = predict_source(session, bundle, source, tmp_path / "out", PredictOptions(workers=3, overlays=False))
    assert same_as_one_by_one(bundle, source, done.masks) == 12


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_predict_asks_with_arrays_that_come_again(suffix: str, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", "null")
    session, workers = Watched(bundle), 2
    predict_source(session, bundle, folder_of(tmp_path / "in", [MODEL_HW, (48, 64)] * 30, suffix), tmp_path / "out",
                   PredictOptions(workers=workers))
    assert len(session.calls) == 60
    assert len(session.pairs()) <= 2 * (workers + 1) + workers + 3  # two queues, the workers, the two threads, and who takes the results
    assert len({frame for frame, _ in session.pairs()}) == len({out for _, out in session.pairs()}) == len(session.pairs())


def test_the_measured_loops_ask_with_arrays_that_come_again(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", "null", resize="tile")
    session = Watched(bundle)
    files = sorted(folder_of(tmp_path / "in", [MODEL_HW, (48, 64), (24, 50)], "jpg").iterdir())
    stream = Stream(session, bundle.manifest.contract, files, lambda: 0)
    for _ in range(6):
        stream.step(StepTimes())
    assert len(session.calls) == 2 * (1 + 4 + 2)
    assert len(session.pairs()) == 4
    session.calls.clear()
    call = cycle(session, bundle.manifest.contract, [tiny_frame(1), tiny_frame(2)])
    for _ in range(6):
        call()
    assert len(session.pairs()) == 2


def test_arrays_are_handed_out_again_when_they_were_given_back(tmp_path: Path) -> None:
    ring = Ring(tiny_bundle(tmp_path, "null").manifest.contract)
    one, other = ring.take(), ring.take()
    assert one is not other
    ring.give_back(one)
    assert ring.take() is one
    assert ring.take() not in (one, other)


def test_again_makes_at_the_second_time_and_keeps_nothing_alive() -> None:
    again: Again[object] = Again()
    frame, answer = np.zeros(3, np.uint8), np.zeros(2, np.uint8)
    made: list[int] = []

    def make(frame: np.ndarray, answer: np.ndarray) -> object:
        made.append(len(frame))
        return object()

    assert again.of(frame, answer, make) is None
    first = again.of(frame, answer, make)
    assert first is again.of(frame, answer, make) is not None
    assert again.of(answer, frame, make) is None
    assert made == [3]
    gone = weakref.ref(frame)
    del frame
    gc.collect()
    assert gone() is None
