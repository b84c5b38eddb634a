"""A model trained elsewhere, as a user types it: import, verify, quantize, predict; and what goes wrong in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from chain_tools import edgeseg, one_line_error
from PIL import Image

from edgeseg.data.synthetic import write_field

TYPED = ("--classes", "soil,crop,weed", "--mean", "0,-40,0", "--scale", "1")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A data set, and an ONNX file whose three scores are its three channels."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    write_field(tmp_path / "data", seed=3, counts={"train": 4, "val": 2, "test": 3}, size_hw=(48, 64))
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "weight")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["scores"])], "pixels",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3, "h", "w"])], [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    return tmp_path


def test_from_a_file_to_an_int8_bundle_that_predicts(place: Path) -> None:
    done = edgeseg("import", "m.onnx", *TYPED, "--size", "48x64", "--data", "data", "--out", "b", cwd=place)
    assert done.returncode == 0, done.stderr
    for words in ("layout NCHW, channels rgb, (value - 0,-40,0) / 1 of 0..255", "as the original in onnxruntime", "mIoU: the original"):
        assert words in done.stdout + done.stderr
    assert edgeseg("verify", "b", "--data", "data", cwd=place).returncode == 0
    done = edgeseg("quantize", "b", "--data", "data", "--frames", "4", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["bundle"] == "b-int8"
    assert facts["calibration"]["num_frames"] == 4
    assert facts["miou"] == pytest.approx(facts["miou_float"], abs=0.02)
    done = edgeseg("predict", "b-int8", "data/images/test", "--out", "out", cwd=place)
    assert done.returncode == 0, done.stderr
    masks = sorted((place / "out" / "masks").iterdir())
    with Image.open(masks[0]) as mask, Image.open(place / "data/images/test" / masks[0].name) as image:
        expected = (np.asarray(image.convert("RGB"), np.float32) + np.array([0, 40, 0], np.float32)).argmax(2)
        assert np.mean(np.asarray(mask) == expected) > 0.98


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [
        (("m.onnx", *TYPED), 2, "type --size HEIGHTxWIDTH"),
        (("m.onnx", *TYPED[2:], "--size", "48x64"), 2, "--classes"),
        (("m.onnx", *TYPED, "--size", "48x64", "--layout", "nchw"), 2, "did you mean NCHW"),
        (("cut.onnx", *TYPED), 66, "is not a whole ONNX model"),
        (("none.onnx", *TYPED), 66, "does not exist"),
    ],
)
def test_what_is_wrong_is_one_line(place: Path, typed: tuple[str, ...], code: int, words: str) -> None:
    content = (place / "m.onnx").read_bytes()
    (place / "cut.onnx").write_bytes(content[: len(content) // 2])
    assert words in one_line_error(edgeseg("import", *typed, "--out", "b", cwd=place), code)
    assert not (place / "b").exists()
    assert not list(place.glob(".*"))


def test_quantize_tells_a_bundle_from_a_config(place: Path) -> None:
    line = one_line_error(edgeseg("quantize", "edgeseg.toml", "--data", "data", cwd=place), 2)
    assert "go with a bundle" in line
    line = one_line_error(edgeseg("quantize", "edgeseg.toml", "--frames", "32", cwd=place), 2)
    assert "--set quantize.calibration_frames=32" in line
