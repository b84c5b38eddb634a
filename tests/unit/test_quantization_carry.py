"""Learnt ranges find their tensors by value: whatever the layout, shared by equals, and what is not matched is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, seal_bundle
from edgeseg.core.manifest import INPUT_NAME, OUTPUT_NAME, Contract
from quantization.carry import carry, fingerprint, learnt, load_ranges, save_ranges

HW = (16, 24)
FRAME = np.random.default_rng(0).integers(0, 256, (*HW, 3), dtype=np.uint8)
A = FRAME.astype(np.float32).transpose(2, 0, 1)[None] * 0.5 - 20
"""What the graph below computes first."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """frame -> float -> channels first -> `a` = x / 2 - 20 -> the same transposed; its sigmoid; the answer."""
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["x", "half"], ["halved"]),
        helper.make_node("Sub", ["halved", "twenty"], ["a"]),
        helper.make_node("Transpose", ["a"], ["a_turned"], perm=[0, 2, 3, 1]),
        helper.make_node("Sigmoid", ["a_turned"], ["lone"]),
        helper.make_node("ArgMax", ["lone"], ["index"], axis=3, keepdims=0),
        helper.make_node("Cast", ["index"], [OUTPUT_NAME], to=TensorProto.UINT8),
    ]
    constants = [helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]), helper.make_tensor("twenty", TensorProto.FLOAT, [], [20.0])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [1, *HW, 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, [1, *HW])], constants,
    )
    folder = tmp_path_factory.mktemp("carry")
    (folder / "work").mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save_model(model, str(folder / "work/model.onnx"))
    info = BundleInfo(name="by-hand", contract=Contract(height=HW[0], width=HW[1]), classes=("a", "b", "c"), palette=((0, 0, 0),) * 3,
                      reference=None, parents=(), config_sha256="0" * 64)
    files = ModelFiles(folder=folder / "work", files=("model.onnx",), entry="model.onnx", format="onnx", precision="fp32", scheme={},
                       tools={})
    return seal_bundle(folder / "bundle", files, info, golden_frames=[], answer=lambda _: ("none", lambda frame: frame[:, :, 0]))


def test_a_range_goes_to_every_tensor_with_its_values_and_the_rest_is_counted(bundle: Bundle) -> None:
    nowhere = np.random.default_rng(1).normal(0, 40, A.shape)
    ranges = learnt(["sub", "gone"], [(-21.0, 108.0), (-9.0, 9.0)], FRAME, [(0, A + 1e-3), (1, nowhere)])
    carried = carry(ranges, bundle)
    assert carried.ranges == {"a": (-21.0, 108.0), "a_turned": (-21.0, 108.0)}
    assert carried.lost == ("gone",)
    assert carried.calibrated == 4  # values, x, halved, lone
    assert carried.facts() == {"carried": 2, "calibrated": 4, "lost": ["gone"]}


def test_equal_values_share_the_wider_range(bundle: Bundle) -> None:
    ranges = learnt(["one", "other"], [(-20.0, 90.0), (-15.0, 110.0)], FRAME, [(0, A), (1, A.transpose(0, 2, 3, 1))])
    assert set(carry(ranges, bundle).ranges.values()) == {(-20.0, 110.0)}


def test_values_of_another_size_or_slightly_other_numbers_are_no_match(bundle: Bundle) -> None:
    ranges = learnt(["cut", "near"], [(0.0, 1.0), (0.0, 2.0)], FRAME, [(0, A[:, :, 1:]), (1, 1.01 * A)])
    carried = carry(ranges, bundle)
    assert carried.ranges == {}
    assert carried.lost == ("cut", "near")


def test_a_fingerprint_does_not_know_order_and_takes_what_is_small() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(3, 40, 7)).astype(np.float32)
    np.testing.assert_allclose(fingerprint(values), fingerprint(rng.permutation(values.ravel())), rtol=1e-6, atol=1e-7)
    marks = fingerprint(values)
    assert (marks[2], marks[-1]) == (values.min(), values.max())
    assert fingerprint(np.zeros(1)).tolist() == [0.0] * len(marks)
    assert len(fingerprint(np.array([1.0, 2.0]))) == len(marks)


def test_what_is_saved_is_read_back_in_the_same_bytes(tmp_path: Path) -> None:
    ranges = learnt(["one"], [(-20.0, 90.0)], FRAME, [(0, A), (0, A[:, :, 1:])])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_ranges(tmp_path / name, ranges)
    for name in ("qat.json", "qat.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    again = load_ranges(tmp_path / "a")
    assert (again.names, again.ranges, again.slots_V, again.sizes_V) == (ranges.names, ranges.ranges, ranges.slots_V, ranges.sizes_V)
    np.testing.assert_array_equal(again.marks_VM, ranges.marks_VM)
    np.testing.assert_array_equal(again.frame, FRAME)
