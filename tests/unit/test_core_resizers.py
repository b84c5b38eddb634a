"""A frame comes to model size by the filter the contract names, the same bits in training and on a board, aligned with its label."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny_bundle, tiny_frame

from edgeseg.core.bundle import open_bundle
from edgeseg.core.config import AugmentSection, parse_config
from edgeseg.core.errors import BundleError, ConfigError
from edgeseg.core.images import (
    IGNORE_INDEX,
    jpeg_scale,
    label_to_model,
    picture_to_model,
    place,
    read_class_map,
    read_frame,
    read_picture,
    resize_frame,
    to_model,
    write_frame,
)
from edgeseg.core.manifest import Contract, Manifest, parse_manifest
from edgeseg.core.resizers import RESIZERS
from edgeseg.data.augment import augment
from edgeseg.data.loader import generator
from targets.measure.loop import StepTimes, Stream
from targets.predict import PredictOptions, predict_frame, predict_source
from targets.runtimes import RuntimeOptions, open_session

STILL = AugmentSection(scale=(1.0, 1.0), flip=0, brightness=0, contrast=0, saturation=0, hue=0, blur=0)
COLOURS = np.array([[200, 40, 40], [40, 180, 60], [30, 60, 220]], dtype=np.uint8)
SIZES = [((60, 80), (24, 32)), ((96, 128), (24, 32)), ((20, 30), (48, 64)), ((100, 20), (24, 32)), ((30, 150), (48, 32)),
         ((48, 64), (24, 32))]


@pytest.mark.parametrize("policy", ["stretch", "letterbox", "tile"])
@pytest.mark.parametrize(("frame_hw", "model_hw"), SIZES)
def test_a_file_gives_the_bits_of_its_frame(frame_hw: tuple[int, int], model_hw: tuple[int, int], policy: str, tmp_path: Path) -> None:
    write_frame(tmp_path / "a.png", tiny_frame(3, height=frame_hw[0], width=frame_hw[1]))
    frame, picture = read_frame(tmp_path / "a.png"), read_picture(tmp_path / "a.png")
    assert isinstance(picture.pixels, Image.Image)
    placement = place(frame_hw, model_hw, policy, "opencv")
    for one, other in zip(picture_to_model(picture, placement), to_model(frame, placement), strict=True):
        assert one.shape == (*model_hw, 3)
        assert one.dtype == np.uint8
        assert one.flags.c_contiguous
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize("policy", ["stretch", "letterbox"])
@pytest.mark.parametrize("model_hw", [(36, 48), (45, 60), (30, 40), (180, 240), (135, 36), (200, 61)])
def test_a_label_lies_where_its_frame_lies(model_hw: tuple[int, int], policy: str, resizer: str) -> None:
    """The nearest class by colour is the label's but for pixels on a border, whichever way the frame was resized."""
    coarse = np.random.default_rng(1).integers(0, 3, (6, 8), dtype=np.uint8)
    label = np.kron(coarse, np.ones((15, 15), dtype=np.uint8)).astype(np.uint8)
    placement = place((90, 120), model_hw, policy, resizer)
    frame, placed = to_model(COLOURS[label], placement)[0], label_to_model(label, placement)[0]
    found = ((frame[:, :, None].astype(int) - COLOURS.astype(int)) ** 2).sum(axis=-1).argmin(axis=-1)
    inside = placed != IGNORE_INDEX
    assert (found == placed)[inside].mean() > 0.85
    for axis in (0, 1):  # a shift either way would make it worse
        for step in (-1, 1):
            moved = np.roll(placed, step, axis)
            both = inside & (moved != IGNORE_INDEX)
            assert (found == moved)[both].mean() < (found == placed)[both].mean()


@pytest.mark.parametrize("size_hw", [(7, 60), (60, 9), (11, 60), (60, 13), (90, 21), (13, 200)])
def test_the_centres_of_pixels_stay_at_their_halves(size_hw: tuple[int, int]) -> None:
    """A ramp stays the same ramp: OpenCV's INTER_AREA on mixed axes would move it."""
    ramp = np.linspace(20, 220, 40)
    frame = np.repeat(np.add.outer(ramp / 2, ramp / 2)[:, :, None], 3, axis=2).round().astype(np.uint8)
    got = resize_frame(frame, *size_hw, "opencv").astype(float)[:, :, 0]
    at = [np.clip((np.arange(size) + 0.5) * 40 / size - 0.5, 0, 39) for size in size_hw]
    expected = np.add.outer(np.interp(at[0], np.arange(40), ramp / 2), np.interp(at[1], np.arange(40), ramp / 2))
    np.testing.assert_allclose(got[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1.5)


def test_the_bits_are_the_same_on_every_processor() -> None:
    """Whole numbers throughout: as written down on x86-64, and seen on aarch64 (docs/adr/0022)."""
    frame = np.random.default_rng(7).integers(0, 256, (97, 130, 3), dtype=np.uint8)
    sizes = [(48, 65), (60, 100), (20, 31), (150, 20), (12, 400), (200, 300)]
    digest = hashlib.sha256(b"".join(resize_frame(frame, *size_hw, "opencv").tobytes() for size_hw in sizes)).hexdigest()
    assert digest == "5c79bdcd0e9eee634ffff37293532dba064bbf74e5ee375d37a9abd84c5aa3c3"


def test_nothing_is_left_out_when_shrinking() -> None:
    frame = np.zeros((64, 64, 3), dtype=np.uint8)
    frame[:, 5] = 255
    for width in (63, 40, 33, 32, 31, 13, 8):
        assert abs(resize_frame(frame, 64, width, "opencv")[0, :, 0].sum(dtype=int) * 64 / width - 255) < 200


def test_training_sees_what_a_board_sees() -> None:
    frame = tiny_frame(2, height=90, width=120)
    label = frame[:, :, 0] // 100
    for model_hw in ((48, 96), (180, 240), (30, 40)):
        contract = Contract(height=model_hw[0], width=model_hw[1], resizer="opencv")
        seen, _ = augment(frame, label, crop_hw=model_hw, section=STILL, rng=generator(7, purpose=9, epoch=0), model_hw=model_hw,
                          resizer="opencv")
        np.testing.assert_array_equal(seen, to_model(frame, contract.place((90, 120)))[0])
        assert (seen != to_model(frame, place((90, 120), model_hw, "stretch"))[0]).any()


@pytest.mark.parametrize("changes", [
    {"scale": (1.7, 1.7)}, {"scale": (0.4, 0.4)}, {"scale": (0.4, 2.5), "flip": 0.5, "rotate_deg": 20.0},
], ids=str)
def test_a_crop_is_aligned_with_its_label(changes: dict[str, object]) -> None:
    coarse = np.random.default_rng(1).integers(0, 3, (6, 8), dtype=np.uint8)
    label = np.kron(coarse, np.ones((15, 15), dtype=np.uint8)).astype(np.uint8)
    section = AugmentSection(**{**vars(STILL), **changes})  # type: ignore[arg-type]
    for index in range(4):
        frame, got = augment(COLOURS[label], label, crop_hw=(48, 64), section=section, resizer="opencv",
                             rng=generator(7, purpose=9, epoch=0, index=index), model_hw=(60, 80))
        found = ((frame[:, :, None].astype(int) - COLOURS.astype(int)) ** 2).sum(axis=-1).argmin(axis=-1)
        inside = got != IGNORE_INDEX
        assert (found == got)[inside].mean() > 0.8


def test_predict_and_bench_bring_frames_by_it(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", "null", resizer="opencv")
    session = open_session(bundle, "null", RuntimeOptions())
    contract = bundle.manifest.contract
    (tmp_path / "in").mkdir()
    Image.fromarray(tiny_frame(5, height=96, width=128)).save(tmp_path / "in" / "a.jpg", quality=95)
    predict_source(session, bundle, tmp_path / "in", tmp_path / "out", PredictOptions(overlays=False))
    frame = read_frame(tmp_path / "in" / "a.jpg")
    np.testing.assert_array_equal(read_class_map(tmp_path / "out" / "masks" / "a.png"), predict_frame(session, bundle, frame))
    seen: list[np.ndarray] = []
    given = session.run

    class Watching:
        def run(self, model_frame: np.ndarray, out: np.ndarray | None = None) -> object:
            seen.append(np.array(model_frame))
            return given(model_frame, out)

    predict_frame(Watching(), bundle, frame)  # type: ignore[arg-type]
    Stream(Watching(), contract, [tmp_path / "in" / "a.jpg"], lambda: 0).step(StepTimes())  # type: ignore[arg-type]
    for model_frame in seen:
        np.testing.assert_array_equal(model_frame, resize_frame(frame, contract.height, contract.width, "opencv"))
    assert len(seen) == 2
    predict_source(session, bundle, tmp_path / "in", tmp_path / "fast", PredictOptions(overlays=False, fast_jpeg=True))
    assert jpeg_scale((96, 128), (contract.height, contract.width), "stretch") > 1
    assert read_class_map(tmp_path / "fast" / "masks" / "a.png").shape == (96, 128)


WITHOUT_OPENCV = """
import sys
sys.modules["cv2"] = None
from pathlib import Path
from edgeseg.core.bundle import open_bundle
from edgeseg.core.errors import MissingExtraError
from edgeseg.core.images import read_frame, resize_frame, to_model
from targets.runtimes import RuntimeOptions, open_session
bundle, image = open_bundle(Path(sys.argv[1])), Path(sys.argv[2])
frame = read_frame(image)
placement = bundle.manifest.contract.place(frame.shape[:2])
for ask in (lambda: open_session(bundle, "null", RuntimeOptions()), lambda: to_model(frame, placement)):
    try:
        ask()
    except MissingExtraError as error:
        print(error)
resize_frame(frame, 5, 5)
"""


def test_without_opencv_it_says_what_to_type(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", "null", resizer="opencv")
    write_frame(tmp_path / "a.png", tiny_frame(1, height=50, width=70))
    command = [sys.executable, "-c", WITHOUT_OPENCV, str(bundle.folder), str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = "cv2 is not installed; type: pip install 'edgeseg[opencv]' (on a board: edgeseg devices setup NAME --extra opencv)"
    assert done.stdout.splitlines() == [line, line]


def test_the_manifest_keeps_it_and_older_ones_mean_pillow(tmp_path: Path) -> None:
    pillow, opencv = (tiny_bundle(tmp_path / name, "null", resizer=name) for name in RESIZERS)
    text = (pillow.folder / "manifest.json").read_text(encoding="utf-8")
    assert "resizer" not in text
    assert parse_manifest(text).contract.resizer == "pillow"
    assert open_bundle(opencv.folder).manifest.contract.resizer == "opencv"
    assert pillow.manifest.sha256 != opencv.manifest.sha256
    assert isinstance(opencv.manifest, Manifest)
    broken = (opencv.folder / "manifest.json").read_text(encoding="utf-8").replace('"resizer": "opencv"', '"resizer": "sharp"')
    with pytest.raises(BundleError, match=r"contract.resizer 'sharp' is unknown; one of pillow, opencv"):
        parse_manifest(broken)


def test_the_config_names_it() -> None:
    assert parse_config({}).data.resizer == "pillow"
    assert parse_config({"data": {"resizer": "opencv"}}).data.resizer == "opencv"
    with pytest.raises(ConfigError, match="resizer"):
        parse_config({"data": {"resizer": "opencl"}})
    with pytest.raises(ConfigError, match="resizer 'sharp' is unknown"):
        place((10, 10), (5, 5), "stretch", "sharp")
