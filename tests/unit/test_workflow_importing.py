"""`edgeseg import` from what is typed to the bundle: exact answers of a model whose answers are known, and every refusal in one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_tools import write_saved
from PIL import Image
from tiny_models import tiny_bundle

from edgeseg.core.bundle import open_bundle
from edgeseg.core.errors import BundleError, ConfigError, EdgesegError, InputMissingError
from edgeseg.core.vendors import quiet
from edgeseg.data.synthetic import write_field
from edgeseg.workflow.bundle.import_options import request_of
from edgeseg.workflow.bundle.importing import ImportRequest, import_model
from edgeseg.workflow.compress import climbing, quantizing
from edgeseg.workflow.compress.climbing import Climbed
from edgeseg.workflow.compress.quantizing import quantize_bundle
from edgeseg.workflow.ui import Silent
from targets.runtimes import RuntimeOptions, open_session

RGB = ("red", "green", "blue")


def pixel_model(
    path: Path, *, shape: tuple[Any, ...] = (1, 3, 24, 32), dtype: str = "float32", inputs: int = 1, opset: int = 18, extra: str = "",
) -> Path:
    """An ONNX file whose three scores are its three channels."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}[dtype]
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float16 if dtype == "float16" else np.float32).reshape(3, 3, 1, 1), "weight")
    twos = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twos")
    nodes = [helper.make_node("Conv", ["frame", "weight"], ["scores"])]
    if extra == "half inside":
        half = numpy_helper.from_array(np.eye(3, dtype=np.float16).reshape(3, 3, 1, 1), "half")
        nodes = [helper.make_node("Cast", ["half"], ["single"], to=kind), helper.make_node("Conv", ["frame", "single"], ["scores"])]
    if extra == "random":
        nodes = [
            helper.make_node("Conv", ["frame", "weight"], ["plain"]),
            helper.make_node("RandomUniformLike", ["plain"], ["noise"], high=500.0),
            helper.make_node("Add", ["plain", "noise"], ["scores"]),
        ]
    outputs = [helper.make_tensor_value_info("scores", kind, [1, 3, None, None])]
    if extra == "argmax":
        nodes = [helper.make_node("Conv", ["frame", "weight"], ["plain"]), helper.make_node("ArgMax", ["plain"], ["scores"], axis=1)]
        outputs = [helper.make_tensor_value_info("scores", TensorProto.INT64, [1, 1, None, None])]
    if extra == "halves and doubles":
        nodes = [
            helper.make_node("MaxPool", ["frame"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Resize", ["half", "", "twos"], ["twice"], mode="nearest"),
            helper.make_node("Add", ["twice", "frame"], ["scores"]),
        ]
    if extra == "second output":
        nodes.append(helper.make_node("Relu", ["scores"], ["other"]))
        outputs.append(helper.make_tensor_value_info("other", kind, [1, 3, None, None]))
    given = [helper.make_tensor_value_info(name, kind, list(shape)) for name in ("frame", "mask")[:inputs]]
    if inputs == 2:
        nodes.append(helper.make_node("Add", ["scores", "mask"], ["sum"]))
        outputs[0].name = "sum"
    graph = helper.make_graph(nodes, "pixels", given, outputs, [weight, twos, *([half] if extra == "half inside" else [])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


def ask(tmp_path: Path, model: Path, **wishes: Any) -> ImportRequest:
    return ImportRequest(**{"model": model, "out": tmp_path / "b", "classes": RGB, "mean": (0.0,), "scale": (1.0,), **wishes})


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_answers_are_the_ones_known(order: str, tmp_path: Path) -> None:
    """The class is the strongest channel, so a channel order, layout or mean in the wrong place shows."""
    request = ask(tmp_path, pixel_model(tmp_path / "m.onnx", opset=11), order=order, mean=(0.0, 40.0, 80.0), scale=(1.0, 2.0, 1.0))
    outcome = import_model(request, ui=Silent())
    assert outcome.facts["agreement"] == 1.0
    session = open_session(open_bundle(request.out), "onnxruntime", RuntimeOptions())
    frame = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    channels = frame if order == "rgb" else frame[:, :, ::-1]
    expected = ((channels.astype(np.float32) - np.array([0, 40, 80], np.float32)) / np.array([1, 2, 1], np.float32)).argmax(2)
    np.testing.assert_array_equal(session.run(frame), expected)
    assert open_bundle(request.out).manifest.reference is None


def test_an_answer_that_differs_from_the_original_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"less than 0\.999; nothing was written"):
        import_model(ask(tmp_path, pixel_model(tmp_path / "m.onnx", extra="random")), ui=Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("model", "wishes", "words"),
    [
        ({}, {"input": "image"}, r"no input 'image'; it has 'frame' \(float32 \[1, 3, 24, 32\]\); type --input frame"),
        ({}, {"output": "logits"}, "no output 'logits'; it has 'scores'"),
        ({"shape": (None, 3, None, None)}, {}, "leaves its size open; type --size HEIGHTxWIDTH"),
        ({}, {"classes": ("a", "b")}, "no axis of 2, as --classes names 2"),
        ({}, {"classes": ()}, "does not name its classes; type them in index order"),
        ({}, {"classes": ("a", "a", "b")}, "2 to 255 different names"),
        ({"inputs": 2}, {}, "takes 2 inputs, 'frame' .*, 'mask'"),
        ({"dtype": "float16"}, {}, "takes float16"),
        ({"extra": "second output"}, {}, "has 2 outputs, 'scores' .*, 'other'"),
        ({}, {"mean": (), "scale": ()}, "type what it was trained with"),
        ({"extra": "argmax"}, {"classes": ("a", "b"), "mean": (0.0, 0.0, -80.0)}, "answers class 2, and --classes names 2"),
        ({"extra": "halves and doubles", "shape": (1, 3, None, None)}, {"size": (25, 32)}, "does not run at --size 25x32"),
        ({}, {"format": "tflite"}, "cannot become tflite: no converter from ONNX"),
        ({}, {"format": "coreml"}, "--format coreml is unknown"),
    ],
)
def test_refusals(model: dict[str, Any], wishes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = pixel_model(tmp_path / "m.onnx", **model)
    with pytest.raises(ConfigError, match=words) as caught:
        import_model(ask(tmp_path, path, **wishes), ui=Silent())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_a_saved_model_with_an_open_input_asks_for_its_size(tmp_path: Path) -> None:
    folder = write_saved(tmp_path / "saved", shape=(-1, -1, -1, 3))
    with pytest.raises(ConfigError, match=r"input 'picture.*leaves its size open; type --size HEIGHTxWIDTH"):
        import_model(ask(tmp_path, folder), ui=Silent())
    outcome = import_model(ask(tmp_path, folder, size=(40, 48)), ui=Silent())
    assert outcome.facts["agreement"] >= 0.999
    contract = open_bundle(tmp_path / "b").manifest.contract
    assert (contract.height, contract.width) == (40, 48)


@pytest.mark.parametrize("kind", ["onnx", "openvino", "tflite", "saved", "keras"])
def test_a_file_cut_in_half_is_named(kind: str, tmp_path: Path) -> None:
    if kind == "saved":
        model = write_saved(tmp_path / "saved")
        damaged = model / "saved_model.pb"
    elif kind == "keras":
        if importlib.util.find_spec("keras") is None:
            pytest.skip("keras is not installed; it comes with pip install 'edgeseg[keras]'")
        model = damaged = tmp_path / "m.keras"
        damaged.write_bytes(b"PK\x03\x04" + bytes(200))
    else:
        bundle = tiny_bundle(tmp_path, kind)
        model = bundle.model_path
        damaged = model.with_suffix(".bin") if kind == "openvino" else model
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputMissingError, match="copy") as caught:
        import_model(ask(tmp_path, model, out=tmp_path / "new"), ui=Silent())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_code_in_a_keras_file_is_refused_without_a_word_of_how_to_run_it(tmp_path: Path) -> None:
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed; it comes with pip install 'edgeseg[keras]'")
    from exporters.imported.keras import require_keras

    keras = require_keras()
    inputs = keras.Input((64, 96, 3))
    scaled = keras.layers.Lambda(lambda x: x / 255)(inputs)
    with quiet():
        keras.Model(inputs, keras.layers.Conv2D(3, 1)(scaled)).save(str(tmp_path / "m.keras"))
    with pytest.raises(InputMissingError, match=r"carries Python code \(a Lambda layer\), which is never executed") as caught:
        import_model(ask(tmp_path, tmp_path / "m.keras"), ui=Silent())
    assert "unsafe" not in str(caught.value)
    assert "safe_mode" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [("saved_model.pb", "of a SavedModel name the folder: "), ("m.pth", "factory"), ("m.bin", "name the graph: m.xml"),
     ("m.txt", "no model that can be imported"), ("none.onnx", "does not exist")],
)
def test_what_is_no_model(name: str, words: str, tmp_path: Path) -> None:
    if name != "none.onnx":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputMissingError, match=words):
        import_model(ask(tmp_path, tmp_path / name), ui=Silent())


def test_an_existing_bundle_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError, match="--force"):
        import_model(ask(tmp_path, pixel_model(tmp_path / "m.onnx")), ui=Silent())


@pytest.mark.parametrize("out", ["bundles", "saved", "saved/new", "."])
def test_force_does_not_replace_what_is_no_bundle(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of bundles, the model itself, a place inside it, the current folder."""
    other = tiny_bundle(tmp_path / "bundles", "null").folder
    saved = write_saved(tmp_path / "saved", shape=(1, 40, 48, 3))
    before = sorted(path for path in tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="choose another --out"):
        import_model(ask(tmp_path, saved, out=Path(out), force=True), ui=Silent())
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert open_bundle(other)


def test_force_replaces_a_bundle(tmp_path: Path) -> None:
    tiny_bundle(tmp_path, "null").folder.rename(tmp_path / "b")
    import_model(ask(tmp_path, pixel_model(tmp_path / "m.onnx"), force=True), ui=Silent())
    assert open_bundle(tmp_path / "b").manifest.format == "onnx"


def test_weights_beside_an_onnx_file_are_part_of_its_hash(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(pixel_model(tmp_path / "plain.onnx")))
    onnx.save(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.data", size_threshold=0)
    hashes = []
    for out in ("b", "c"):
        import_model(ask(tmp_path, tmp_path / "m.onnx", out=tmp_path / out), ui=Silent())
        hashes.append(open_bundle(tmp_path / out).manifest.parents[0].sha256)
        values = np.fromfile(tmp_path / "m.data", np.float32)
        np.where(values == 1, np.float32(1.5), values).tofile(tmp_path / "m.data")
    assert hashes[0] != hashes[1]


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("extra", ["", "half inside"])
def test_float16_inside_an_onnx_file_is_said(extra: str, tmp_path: Path) -> None:
    heard = Heard()
    import_model(ask(tmp_path, pixel_model(tmp_path / "m.onnx", extra=extra)), ui=heard)
    assert any("holds float16" in line for line in heard.lines) == bool(extra)


def _typed(**words: Any) -> ImportRequest:
    plain = {"model": Path("m.onnx"), "out": Path("b"), "classes": "", "mean": "", "scale": "", "size": "", "order": "", "layout": "",
             "output_layout": "", "resize": "stretch", "resizer": "pillow", "decision": "", "scores": ""}
    return request_of(**{**plain, **words})


def test_words_become_values(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("soil\ncrop\n\nweed\n")
    request = _typed(mean="123.675, 116.28,103.53", scale="58", size="360x480", classes=str(tmp_path / "names.txt"))
    assert (request.mean, request.scale, request.size) == ((123.675, 116.28, 103.53), (58.0,), (360, 480))
    assert request.classes == ("soil", "crop", "weed")
    for words, message in [
        ({"mean": "a,b"}, "--mean a,b: expected a number"),
        ({"scale": "nan"}, "finite"),
        ({"size": "512"}, "HEIGHTxWIDTH"),
        ({"size": "0x5"}, "at least 16x16"),
        ({"layout": "nchw"}, "did you mean NCHW"),
        ({"order": "BGR"}, "did you mean bgr"),
        ({"resizer": "opencl"}, "did you mean opencv"),
        ({"decision": "treshold"}, "did you mean threshold"),
    ]:
        with pytest.raises(ConfigError, match=message):
            _typed(**words)


def test_quantizing_a_bundle_needs_training_frames(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path, "onnx")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Path | None, type[EdgesegError], str]] = [
        (None, ConfigError, "add --data DIR"), (tmp_path / "none", InputMissingError, "does not exist"),
        (tmp_path / "empty", InputMissingError, "holds no images"),
    ]
    for data, kind, words in cases:
        with pytest.raises(kind, match=words):
            quantize_bundle(bundle.folder, data=data, out=None, num_frames=4, force=False, ui=Silent())


def test_quantizing_a_bundle_on_a_plain_folder_of_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for index in range(5):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / "pictures" / f"{index}.png")
    bundle = tiny_bundle(tmp_path, "onnx")
    outcome = quantize_bundle(bundle.folder, data=tmp_path / "pictures", out=tmp_path / "q", num_frames=4, force=False, ui=Silent())
    assert outcome.facts["num_frames"] == 5
    assert outcome.facts["calibration"]["num_frames"] == 4
    assert outcome.facts["agreement_with_float"] > 0.9
    assert outcome.facts["miou"] is None
    assert open_bundle(tmp_path / "q").manifest.precision == "int8"


def of_precision(precision: str) -> Callable[..., Climbed]:
    """A climb that says it ended with `precision`."""

    def climb(request: climbing.Climb, output: Path) -> Climbed:
        found = climbing.climb(request, output)
        return replace(found, model=replace(found.model, precision=precision))

    return climb


def test_the_folder_is_named_after_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / "pictures" / "0.png")
    folder = tiny_bundle(tmp_path, "onnx").folder
    monkeypatch.setattr(quantizing, "climb", of_precision("mixed"))

    def quantize() -> dict[str, Any]:
        return quantize_bundle(folder, data=tmp_path / "pictures", out=None, num_frames=1, force=False, ui=Silent()).facts

    assert quantize()["bundle"] == str(tmp_path / "onnx-mixed")
    assert open_bundle(tmp_path / "onnx-mixed").manifest.name == "tiny-onnx-mixed"
    assert not (tmp_path / "onnx-int8").exists()
    monkeypatch.setattr(quantizing, "climb", lambda *_: pytest.fail("worked before it refused"))
    with pytest.raises(ConfigError, match="onnx-mixed exists"):
        quantize()


@pytest.mark.parametrize(("rescue", "last"), [("off", "off"), ("post_training", "post_training"), ("mixed", "mixed"), ("qat", "mixed")])
def test_quantizing_a_bundle_climbs_as_far_as_the_config_says(
    rescue: str, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_field(tmp_path / "data", seed=3, counts={"train": 4, "val": 1, "test": 1}, size_hw=(48, 64))
    for path in (tmp_path / "data").glob("*.json"):
        path.write_text(path.read_text().replace('"soil"', '"red"').replace('"crop"', '"green"').replace('"weed"', '"blue"'))
    (tmp_path / "edgeseg.toml").write_text(f'[data]\ndir = "data"\nsize = [48, 64]\n[quantize]\nrescue = "{rescue}"\n')
    asked: list[str] = []

    def climb(request: climbing.Climb, output: Path) -> Climbed:
        asked.append(request.last)
        return climbing.climb(replace(request, last=min(request.last, "post_training", key=climbing.RUNGS.index)), output)

    monkeypatch.setattr(quantizing, "climb", climb)
    folder = tiny_bundle(tmp_path, "onnx").folder
    facts = quantize_bundle(folder, data=tmp_path / "edgeseg.toml", out=None, num_frames=4, force=False, ui=Silent()).facts
    assert asked == [last]
    assert ("ladder" in open_bundle(tmp_path / "onnx-int8").manifest.scheme) == (rescue != "off")
    assert (facts["ladder"] is None) == (rescue == "off")
    if facts["ladder"]:
        assert facts["ladder"]["judged_on"]["also_calibrates"]  # four frames


def test_quantizing_never_replaces_the_float_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And inside a bundle, "." is that bundle: its int8 goes beside it."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / "pictures" / "0.png")
    folder = tiny_bundle(tmp_path, "onnx").folder

    def quantize(source: Path, out: Path | None) -> None:
        quantize_bundle(source, data=tmp_path / "pictures", out=out, num_frames=1, force=True, ui=Silent())

    for out in (folder, folder / "int8", tmp_path):
        with pytest.raises(ConfigError, match="one lies inside the other"):
            quantize(folder, out)
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="one lies inside the other"):
        quantize(Path(), Path())
    quantize(Path(), None)
    assert open_bundle(folder).manifest.precision == "fp32"
    assert open_bundle(tmp_path / "onnx-int8").manifest.precision == "int8"
