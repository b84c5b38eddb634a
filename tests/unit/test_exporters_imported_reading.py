"""How an imported model is read: what can be found is found, what fits in two ways is refused with what to type."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import Contract
from exporters.imported.base import Facts, Port, Reading
from exporters.imported.ends import AnswerEnd, FrameEnd
from exporters.imported.reading import Wishes, choose_ports, fix_input, read_output
from exporters.imported.reference import prepare

THREE = ("soil", "crop", "weed")
TWO = ("soil", "plant")


def port(*shape: int | None, name: str = "x", dtype: str = "float32") -> Port:
    return Port(name=name, dtype=dtype, shape=shape)


def facts(output: Port, last_op: str = "conv") -> Facts:
    return Facts(output=output, last_op=last_op, quantized=False, runtime="none")


def read(output: Port, *, last_op: str = "conv", input: Port | None = None, **wishes: object) -> Reading:
    wanted = Wishes(**{"classes": THREE, "mean": (0.0,), "scale": (255.0,), **wishes})  # type: ignore[arg-type]
    chosen = input or port(1, 3, 64, 96)
    shape, layout, order = fix_input(chosen, wanted)
    return read_output(chosen, shape, layout, order, facts(output, last_op), wanted)


@pytest.mark.parametrize(
    ("given", "wishes", "shape", "layout", "order"),
    [
        (port(1, 3, 64, 96), {}, (1, 3, 64, 96), "NCHW", "rgb"),
        (port(None, 64, 96, 3), {}, (1, 64, 96, 3), "NHWC", "rgb"),
        (port(None, 3, None, None), {"size": (32, 48)}, (1, 3, 32, 48), "NCHW", "rgb"),
        (port(None, None, None, 3), {"size": (32, 48), "order": "bgr"}, (1, 32, 48, 3), "NHWC", "bgr"),
        (port(1, 64, 96, 1), {}, (1, 64, 96, 1), "NHWC", "gray"),
        (port(1, 3, 40, 3), {"layout": "NHWC"}, (1, 3, 40, 3), "NHWC", "rgb"),
        (Port(name="x", dtype="float32", shape=None), {"layout": "NCHW", "size": (32, 48)}, (1, 3, 32, 48), "NCHW", "rgb"),
        (port(1, 3, 64, 96), {"size": (64, 96)}, (1, 3, 64, 96), "NCHW", "rgb"),
    ],
)
def test_input_is_found(given: Port, wishes: dict[str, object], shape: tuple[int, ...], layout: str, order: str) -> None:
    assert fix_input(given, Wishes(classes=THREE, **wishes)) == (shape, layout, order)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "wishes", "words"),
    [
        (port(None, 3, None, None), {}, "leaves its size open; type --size HEIGHTxWIDTH"),
        (port(1, 3, 64, 3), {}, "type --layout NCHW or --layout NHWC"),
        (port(None, None, None, None), {"size": (32, 32)}, "type --layout NCHW or --layout NHWC"),
        (port(1, 12, 64, 96), {}, "type --layout"),
        (port(1, 12, 64, 96), {"layout": "NCHW"}, "12 channels"),
        (port(4, 3, 64, 96), {}, "takes 4 pictures at once"),
        (port(1, 1000), {}, "has 2 axes"),
        (port(1, 3, 64, 96, dtype="float16"), {}, "takes float16; float32 and uint8 can be fed"),
        (port(1, 3, 64, 96, dtype="int8"), {}, "edgeseg quantize"),
        (port(1, 3, 64, 96), {"size": (96, 64)}, "is fixed to 64x96"),
        (port(1, 3, 64, 96), {"order": "gray"}, "has 3 channels"),
        (port(1, 1, 64, 96), {"order": "bgr"}, "leave --order out"),
    ],
)
def test_input_is_refused(given: Port, wishes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fix_input(given, Wishes(classes=THREE, **wishes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("output", "wishes", "layout", "answers", "decision"),
    [
        (port(1, 3, 16, 24), {}, "NCHW", "scores", "argmax"),
        (port(1, 16, 24, 3), {}, "NHWC", "scores", "argmax"),
        (port(1, 3, 24, 3), {"output_layout": "NCHW"}, "NCHW", "scores", "argmax"),
        (port(1, 2, 16, 24), {"classes": TWO}, "NCHW", "scores", "argmax"),
        (port(1, 2, 16, 24), {"classes": TWO, "threshold": 0.3}, "NCHW", "scores", "threshold"),
        (port(1, 16, 24, 1), {"classes": TWO, "threshold": 0.5}, "NHWC", "scores", "threshold"),
        (port(1, 16, 24), {"classes": TWO, "threshold": 0.5}, "NHW", "scores", "threshold"),
        (port(1, 64, 96, dtype="int64"), {}, "NHW", "classes", "argmax"),
        (port(1, 1, 64, 96, dtype="uint8"), {}, "NCHW", "classes", "argmax"),
        (port(1, 64, 96, 1, dtype="int32"), {}, "NHWC", "classes", "argmax"),
        (port(1, 64, 96), {"decision": "class-map"}, "NHW", "classes", "argmax"),
    ],
)
def test_output_is_found(output: Port, wishes: dict[str, object], layout: str, answers: str, decision: str) -> None:
    reading = read(output, **wishes)
    assert (reading.output_layout, reading.answers, reading.contract.decision) == (layout, answers, decision)


@pytest.mark.parametrize(
    ("output", "wishes", "words"),
    [
        (port(1, 21, 16, 24), {}, r"no axis of 3, as --classes names 3 \(soil, crop, weed\).*21"),
        (port(1, 3, 64, 96), {"classes": TWO}, r"a background included \(3\)"),  # and not its width
        (port(1, 16, 24, 5), {}, r"a background included \(5\)"),
        (port(1, 3, 24, 3), {}, "type --output-layout"),
        (port(1, 3, 16, 24, dtype="float16"), {}, "gives float16"),
        (port(1, 3, 16, 24, dtype="int8"), {}, "is no class map"),
        (port(1, 1, 16, 24), {"classes": TWO}, "type --threshold"),
        (port(1, 1, 16, 24), {"classes": TWO, "decision": "argmax"}, "argmax needs two"),
        (port(1, 1, 16, 24), {"classes": TWO, "threshold": 1.5}, "a probability between 0 and 1"),
        (port(1, 3, 16, 24), {"threshold": 0.5}, "decides between two classes"),
        (port(1, 64, 96, dtype="int64"), {"threshold": 0.5}, "leave --threshold out"),
        (port(1, 3), {}, "holds no scores a pixel"),
    ],
)
def test_output_is_refused(output: Port, wishes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(output, **wishes)


def test_whether_scores_are_probabilities_is_read_from_the_graph_or_asked() -> None:
    output = port(1, 1, 16, 24)
    assert read(output, classes=TWO, threshold=0.3, last_op="sigmoid").probabilities
    assert not read(output, classes=TWO, threshold=0.3, last_op="conv").probabilities
    assert read(output, classes=TWO, threshold=0.3, last_op="conv", scores="probabilities").probabilities
    with pytest.raises(ConfigError, match="--scores logits or --scores probabilities"):
        read(output, classes=TWO, threshold=0.3, last_op="")


@pytest.mark.parametrize(
    ("mean", "scale", "words"),
    [
        ((), (), "--mean 0 --scale 255"),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "--mean 123.675,116.28,103.53 --scale 58.395,57.12,57.375"),
        ((), (1 / 255,), "perhaps --scale 255"),
        ((0.5,), (255.0,), "perhaps --mean 127.5"),
        ((1.0, 2.0), (1.0,), "give one, or one a channel"),
        ((0.0,), (0.0,), "must be above 0"),
    ],
)
def test_normalisation_that_is_in_doubt_is_refused(mean: tuple[float, ...], scale: tuple[float, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(port(1, 3, 16, 24), mean=mean, scale=scale)


def test_uint8_input_takes_no_normalisation() -> None:
    with pytest.raises(ConfigError, match="leave --mean and --scale out"):
        read(port(1, 3, 16, 24), input=port(1, 64, 96, 3, dtype="uint8"))
    assert read(port(1, 3, 16, 24), input=port(1, 64, 96, 3, dtype="uint8"), mean=(), scale=()).scale == ()


def test_ports() -> None:
    one, other = port(1, name="a"), Port(name="b", dtype="int32", shape=(2, None), aliases=("b:0",))
    assert choose_ports([one], [one, other], Wishes(classes=THREE, output="b:0")) == (one, other)
    for inputs, outputs, wishes, words in [
        ([one], [one], {"input": "z"}, r"no input 'z'; it has 'a' \(float32 \[1\]\); type --input a"),
        ([one], [one, other], {"output": "z"}, r"no output 'z'; it has 'a' .*, 'b' \(int32 \[2, \?\]\)"),
        ([one], [one, other], {}, "has 2 outputs, .*; type --output a"),
        ([one, other], [one], {}, "takes 2 inputs, .*; a bundle takes one"),
    ]:
        with pytest.raises(ConfigError, match=words):
            choose_ports(inputs, outputs, Wishes(classes=THREE, **wishes))  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("order", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_frame_end_prepares_as_numpy_does(layout: str, order: str, dtype: str) -> None:
    channels = 1 if order == "gray" else 3
    shape = (1, channels, 24, 40) if layout == "NCHW" else (1, 24, 40, channels)
    numbers = ((103.0, 116.0, 123.0)[:channels], (57.0, 58.0, 59.0)[:channels]) if dtype == "float32" else ((), ())
    reading = Reading(
        input=port(*shape, dtype=dtype), layout=layout, order=order, mean=numbers[0], scale=numbers[1], output=port(1, 3, 24, 40),
        output_layout="NCHW", answers="scores", probabilities=False, num_classes=3, contract=Contract(height=24, width=40),
    )
    frame = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    expected = prepare(frame, reading)
    got = FrameEnd(reading)(torch.from_numpy(frame[None])).numpy()
    assert got.shape == expected.shape == shape
    assert got.dtype == expected.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    if order == "bgr" and dtype == "uint8":
        first = got[0, 0] if layout == "NCHW" else got[0, :, :, 0]
        np.testing.assert_array_equal(first, frame[:, :, 2])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW"])
def test_class_numbers_are_enlarged_to_the_nearest(layout: str) -> None:
    classes = np.random.default_rng(0).integers(0, 3, (5, 8))
    shaped = {"NCHW": classes[None, None], "NHWC": classes[None, :, :, None], "NHW": classes[None]}[layout]
    reading = Reading(
        input=port(1, 3, 10, 16), layout="NCHW", order="rgb", mean=(0.0,) * 3, scale=(1.0,) * 3,
        output=port(*shaped.shape, dtype="int64"), output_layout=layout, answers="classes", probabilities=False, num_classes=3,
        contract=Contract(height=10, width=16),
    )
    got = AnswerEnd(reading, "")(torch.from_numpy(shaped)).numpy()
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[0], classes.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("num_scores", [1, 2])
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("format", ["onnx", "openvino", "tflite"])
def test_threshold_decides_by_probability(num_scores: int, probabilities: bool, format: str) -> None:
    logits = torch.randn(1, num_scores, 12, 20, generator=torch.Generator().manual_seed(1))
    both = torch.cat([torch.zeros_like(logits), logits], 1) if num_scores == 1 else logits
    probability = both.softmax(1)[:, 1:]
    given = (probability if num_scores == 1 else both.softmax(1)) if probabilities else logits
    reading = read(
        port(1, num_scores, 12, 20), input=port(1, 3, 12, 20), classes=TWO, threshold=0.3,
        scores="probabilities" if probabilities else "logits",
    )
    got = AnswerEnd(reading, format)(given)[0]
    clear = (probability[0, 0] - 0.3).abs() > 1e-5
    assert torch.equal(got[clear], (probability[0, 0] > 0.3)[clear].to(torch.uint8))
