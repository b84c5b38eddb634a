"""Predict: images, folders and videos in, masks and overlays out."""

from __future__ import annotations

import contextlib
import io
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import PALETTE, brightness_step, tiny_bundle, tiny_frame

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError, DataError, InputMissingError, MissingExtraError, NoPermissionError, OutputError
from edgeseg.core.images import read_class_map, read_frame, write_frame
from targets.predict import PredictOptions, overlay, predict_frame, predict_source
from targets.runtimes import RuntimeOptions, Session, open_session
from targets.sources import open_source
from targets.stream.pipeline import Pipeline
from targets.stream.video import OverlayVideo


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path / "bundle", "null", resize="tile")


@pytest.fixture
def session(bundle: Bundle) -> Session:
    return open_session(bundle, "null", RuntimeOptions())


def write_video(path: Path, count: int, *, fps: int = 10, height: int = 48, width: int = 64) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(count):
            frame = np.full((height, width, 3), 20 + 200 * (i % 2), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def test_answers_at_frame_size(bundle: Bundle, session: Session) -> None:
    frame = tiny_frame(1, height=50, width=70)
    np.testing.assert_array_equal(predict_frame(session, bundle, frame), brightness_step(frame))


def test_overlay_is_half_frame_half_colour() -> None:
    frame = np.full((1, 3, 3), 100, dtype=np.uint8)
    blended = overlay(frame, np.array([[0, 1, 255]], dtype=np.uint8), PALETTE)
    assert blended.dtype == np.uint8
    np.testing.assert_allclose(blended[0], [[177.5, 50, 50], [50, 177.5, 50], [100, 100, 100]], atol=0.5)


def test_a_folder_keeps_its_shape(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("b.png", "a.png", "sub dir/a.png", "sub dir/twin.png", "sub dir/twin.bmp"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        write_frame(source / name, tiny_frame(len(name), height=30, width=40))
    (source / "notes.txt").write_text("no image", encoding="utf-8")
    seen: list[tuple[int, int | None, int]] = []
    done = predict_source(session, bundle, source, out, on_frame=lambda i, n, dropped: seen.append((i, n, dropped)))
    assert done.num_frames == 5
    assert seen == [(i, 5, 0) for i in range(1, 6)]
    names = ["a", "b", "sub dir/a", "sub dir/twin.bmp", "sub dir/twin.png"]
    assert done.overlays is not None
    for folder, suffix in ((done.masks, ".png"), (done.overlays, ".jpg")):
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        assert files == [name + suffix for name in names]
    frame = read_frame(source / "a.png")
    np.testing.assert_array_equal(read_class_map(done.masks / "a.png"), brightness_step(frame))
    expected = Image.fromarray(overlay(frame, brightness_step(frame), PALETTE))
    stream = io.BytesIO()
    expected.save(stream, "JPEG", quality=90, subsampling=0)
    np.testing.assert_array_equal(read_frame(done.overlays / "a.jpg"), read_frame(stream.getvalue()))
    with Image.open(done.masks / "a.png") as mask:
        assert mask.mode == "P"


def test_masks_alone(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    write_frame(tmp_path / "a.png", tiny_frame())
    done = predict_source(session, bundle, tmp_path / "a.png", tmp_path / "out", PredictOptions(overlays=False))
    assert done.overlays is None
    assert [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")] == ["masks/a.png"]


def test_workers_are_as_many_as_this_process_may_have_processors(
    bundle: Bundle, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []

    class Watched(Pipeline):  # type: ignore[type-arg]
        def __init__(self, *steps: object, workers: int, **more: object) -> None:
            made.append(workers)
            super().__init__(*steps, workers=workers, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("targets.predict.Pipeline", Watched)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    write_frame(tmp_path / "a.png", tiny_frame())
    for cores in (2, 5):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))  # as under taskset, or in a cpuset
        predict_source(session, bundle, tmp_path / "a.png", tmp_path / "out")
    assert made == [2, 4]


def test_sources_stream(tmp_path: Path) -> None:
    for i in range(3):
        write_frame(tmp_path / f"{i}.png", tiny_frame(i))
    (tmp_path / "1.png").write_bytes(b"not an image")
    frames = iter(open_source(tmp_path))
    assert next(frames).name == "0"  # nothing was read yet
    with pytest.raises(DataError, match=r"1\.png: not a readable image"):
        next(frames).read()


def test_a_video_comes_out_as_masks_and_a_video(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 12)
    done = predict_source(session, bundle, tmp_path / "clip.mp4", tmp_path / "out")
    assert done.num_frames == 12
    masks = sorted(done.masks.iterdir())
    assert [m.name for m in masks] == [f"{i:06}.png" for i in range(12)]
    assert {int(read_class_map(m)[10, 10]) for m in masks[::2]} == {0}
    assert {int(read_class_map(m)[10, 10]) for m in masks[1::2]} == {2}
    again = open_source(done.overlays)
    assert again.fps == pytest.approx(10)
    assert [f.read().frame_HWC.shape for f in again] == [(48, 64, 3)] * 12
    assert Fraction(again.count or 0) == 12


def test_odd_sizes_make_a_video_too(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "odd.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.height, stream.width, stream.pix_fmt = 31, 45, "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(tiny_frame(0, height=31, width=45), format="rgb24")))
        container.mux(stream.encode(None))
    done = predict_source(session, bundle, tmp_path / "odd.avi", tmp_path / "out")
    assert read_class_map(done.masks / "000000.png").shape == (31, 45)
    assert next(iter(open_source(done.overlays))).read().frame_HWC.shape == (30, 44, 3)


def test_bad_sources(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputMissingError, match="holds no images"):
        predict_source(session, bundle, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(InputMissingError, match="does not exist"):
        predict_source(session, bundle, tmp_path / "gone", tmp_path / "out")
    (tmp_path / "a.txt").write_text("text", encoding="utf-8")
    with pytest.raises(DataError, match="neither an image nor a video"):
        predict_source(session, bundle, tmp_path / "a.txt", tmp_path / "out")
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 2000)
    with pytest.raises(DataError, match=r"bad\.mp4: not a readable video"):
        predict_source(session, bundle, tmp_path / "bad.mp4", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_video_cut_in_half_leaves_no_half_video(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mkv", 60, height=240, width=320)
    whole = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "clip.mkv").write_bytes(whole[: len(whole) // 2] + b"\xff" * 50)
    with contextlib.suppress(DataError):  # FFmpeg may also take what it can read of a cut stream
        predict_source(session, bundle, tmp_path / "clip.mkv", tmp_path / "out")
    masks = list((tmp_path / "out" / "masks").iterdir())
    assert 0 < len(masks) <= 60
    assert sum(1 for _ in open_source(tmp_path / "out" / "overlay.mp4")) == len(masks)  # finished, and as long as the masks go


def test_without_the_extra_a_video_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"edgeseg\[video\]"):
        open_source(tmp_path / "clip.mp4")


def test_nowhere_to_write(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    write_frame(tmp_path / "a.png", tiny_frame())
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises((OutputError, NoPermissionError)):
        predict_source(session, bundle, tmp_path / "a.png", tmp_path / "file" / "out")


def test_a_picture_that_changes_its_size_begins_a_new_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    video = OverlayVideo(tmp_path / "overlay.mp4", 10)
    for i, (height, width) in enumerate([(48, 64)] * 3 + [(31, 45)] * 2):
        video.write(tiny_frame(i, height=height, width=width), None)
    video.close()
    video.close()
    assert [f.read().frame_HWC.shape for f in open_source(tmp_path / "overlay.mp4")] == [(48, 64, 3)] * 3
    assert [f.read().frame_HWC.shape for f in open_source(tmp_path / "overlay-2.mp4")] == [(30, 44, 3)] * 2
    assert len(list(tmp_path.iterdir())) == 2


def test_frames_with_times_keep_them(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    video = OverlayVideo(tmp_path / "overlay.mp4", 25)
    for i, time_s in enumerate((7.0, 7.1, 7.1, 9.0)):  # two were dropped, and one time came twice
        video.write(tiny_frame(i, height=48, width=64), time_s)
    video.close()
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([0, 0.1, 0.1, 2.0], abs=0.01)


def test_jpegs_at_reduced_scale_are_asked_for(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", "null")
    session = open_session(bundle, "null", RuntimeOptions())
    (tmp_path / "in").mkdir()
    Image.fromarray(tiny_frame(5, height=6, width=8)).resize((256, 192)).save(tmp_path / "in" / "a.jpg", quality=95)
    with pytest.raises(ConfigError, match="add --no-overlay"):
        predict_source(session, bundle, tmp_path / "in", tmp_path / "out", PredictOptions(fast_jpeg=True))
    masks = {}
    for fast in (False, True):
        done = predict_source(session, bundle, tmp_path / "in", tmp_path / str(fast), PredictOptions(fast_jpeg=fast, overlays=False))
        masks[fast] = read_class_map(done.masks / "a.png")
    assert masks[True].shape == masks[False].shape == (192, 256)
    assert (masks[True] == masks[False]).mean() > 0.8


def test_enough_frames(bundle: Bundle, session: Session, tmp_path: Path) -> None:
    for i in range(5):
        write_frame(tmp_path / "in" / f"{i}.png", tiny_frame(i))
    done = predict_source(session, bundle, tmp_path / "in", tmp_path / "out", PredictOptions(max_frames=2))
    assert (done.num_frames, done.dropped, done.stopped) == (2, 0, False)
    assert sorted(path.name for path in done.masks.iterdir()) == ["0.png", "1.png"]
