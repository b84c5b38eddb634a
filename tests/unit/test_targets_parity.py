"""The ladder of parity names the operation that was made wrong: faults planted in graphs of every format."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export_tools import CASES, PALETTE, RUNTIME_OF, exported, frames_of, quantized, trained

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import ConfigError
from edgeseg.core.manifest import Parent
from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint
from edgeseg.workflow.parity import ladder
from edgeseg.workflow.parity.results import Limit
from edgeseg.workflow.parity.rungs import Rungs, find_rungs, refuse_alone
from edgeseg.workflow.places import Place
from edgeseg.workflow.steps import tree_sha256
from targets.boards import find_target
from targets.devices.check import describe
from targets.devices.local import LocalDevice
from targets.parity import FLOAT_DB, INT8_DB, OBSERVERS, by_name, by_value
from targets.parity.compare import EXACT_DB, aligned, cosine, sqnr_db, without_scale
from targets.runtimes import RuntimeOptions, own_arithmetic
from targets.runtimes.options import PRECISION_HINTS

NAME = "fast_scnn"
OPTIONS = RuntimeOptions(num_threads=1)
FORMATS = [format for format in RUNTIME_OF if format != "tensorrt"]  # the same graph as onnx but for its ends


class Quiet:
    """A Ui that says nothing."""

    def say(self, text: str) -> None:
        pass

    def progress(self, label: str, done: int, total: int, detail: str = "") -> None:
        pass


def changed(bundle: Bundle, folder: Path, change: Callable[[Path], None]) -> Bundle:
    """A copy of a bundle whose model file was tampered with."""
    shutil.copytree(bundle.folder, folder)
    copy = Bundle(folder, bundle.manifest)
    change(copy.model_path)
    return copy


def move_pixels(path: Path) -> None:
    """Change the coordinate mode of the first Resize that enlarges more than one pixel."""
    import onnx

    model = onnx.load(str(path))
    resize = [node for node in model.graph.node if node.op_type == "Resize"][-1]
    attribute = next(a for a in resize.attribute if a.name == "coordinate_transformation_mode")
    attribute.s = b"asymmetric"
    onnx.save(model, path)


def clip_onnx(path: Path) -> None:
    """Give the third Add an eighth of its range."""
    import onnx

    model = onnx.load(str(path))
    add = [node for node in model.graph.node if node.op_type == "Add"][2]
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == add.output[0])
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == quantize.input[1])
    scale.CopyFrom(onnx.numpy_helper.from_array((onnx.numpy_helper.to_array(scale) / 8).astype(np.float32), scale.name))
    onnx.save(model, path)


def clip_openvino(path: Path) -> None:
    """The same; an Add's range is that of the FakeQuantize behind it."""
    import openvino as ov
    from openvino import opset13 as ops

    model = ov.Core().read_model(path)
    fakes = [
        node for node in model.get_ordered_ops()
        if node.get_type_name() == "FakeQuantize" and node.input_value(0).get_node().get_friendly_name().endswith("aten::add/Add")
    ]
    for port in range(1, 5):
        end = fakes[2].input_value(port).get_node()
        smaller = ops.constant((end.get_data() / 8).astype(np.float32))
        fakes[2].input(port).replace_source_output(smaller.output(0))
    ov.save_model(model, path.with_name("other.xml"), compress_to_fp16=False)
    path.with_name("other.bin").replace(path.with_suffix(".bin"))
    path.with_name("other.xml").replace(path)


def clip_tflite(path: Path) -> None:
    """The same; a tensor's range is its own."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(data)
    for buffer in model.buffers:
        if buffer.offset > 1:  # values that lie behind the flatbuffer
            buffer.data = np.frombuffer(data[buffer.offset : buffer.offset + buffer.size], np.uint8)
            buffer.offset = buffer.size = 0
    graph = model.subgraphs[0]
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    add = [operator for operator in graph.operators if codes[operator.opcodeIndex] == schema.BuiltinOperator.ADD][2]
    quantization = graph.tensors[int(add.outputs[0])].quantization
    quantization.scale = np.asarray(quantization.scale, np.float32) / 8
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


CLIPPED = {"onnx": clip_onnx, "openvino": clip_openvino, "tflite": clip_tflite}


def torch_tensors(format: str) -> list[tuple[str, np.ndarray]]:
    from edgeseg.workflow.parity.torch_rung import TorchRung

    rung = TorchRung.__new__(TorchRung)
    rung._net, rung._contract = trained(NAME), CASES[NAME].contract
    return rung.tensors(frames_of(NAME, 1, first=9000)[0], format)


def observed(bundle: Bundle, options: RuntimeOptions = OPTIONS):  # noqa: ANN201
    observer = OBSERVERS[bundle.manifest.format]
    return observer.graph(bundle), observer.values(bundle, options, frames_of(NAME, 1, first=9000)[0])


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_blamed_where_nothing_is_wrong(format: str) -> None:
    graph, values = observed(exported(format, NAME))
    assert by_value(torch_tensors(format), graph, values) is None
    assert len(values) > 40


def test_a_resize_in_another_coordinate_mode_is_found_by_values_alone(tmp_path: Path) -> None:
    wrong = changed(exported("onnx", NAME), tmp_path / "b", move_pixels)
    blame = by_value(torch_tensors("onnx"), *observed(wrong))
    assert blame is not None
    assert blame.op.startswith("Resize #")
    assert "in coordinate mode asymmetric" in blame.words
    assert blame.sqnr_before_db > FLOAT_DB > blame.sqnr_after_db


def test_a_resize_in_another_coordinate_mode_is_found_by_name(tmp_path: Path) -> None:
    right = exported("onnx", NAME)
    wrong = changed(right, tmp_path / "b", move_pixels)
    blame = by_name(*observed(right), *observed(wrong), limit_db=FLOAT_DB)
    assert blame is not None
    assert blame.op.startswith("Resize #")
    assert blame.sqnr_before_db == EXACT_DB


@pytest.mark.parametrize("format", FORMATS)
def test_a_clipped_range_is_found_and_said(format: str, tmp_path: Path) -> None:
    wrong = changed(quantized(format, NAME)[0], tmp_path / "b", CLIPPED[format])
    blame = by_name(*observed(exported(format, NAME)), *observed(wrong), limit_db=INT8_DB)
    assert blame is not None
    assert blame.op.upper().startswith("ADD #")
    assert blame.cause.startswith("range clipped to")
    adds = [op for op in OBSERVERS[format].graph(exported(format, NAME)).ops if op.kind.upper() == "ADD" and len(op.inputs) == 2]
    assert blame.op_name == adds[2].name


def meta() -> CheckpointMeta:
    case = CASES[NAME]
    return CheckpointMeta(
        model=case.section, num_classes=case.num_classes, contract=case.contract, classes=tuple(f"class{i}" for i in range(5)),
        palette=PALETTE, config_sha256="0" * 64, dataset="drawn", dataset_sha256="0" * 64,
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "trained"
    save_checkpoint(folder, trained(NAME), meta())
    return folder


def test_bf16_is_blamed_on_the_runtime(checkpoint: Path) -> None:
    own = own_arithmetic("openvino")
    if own == "f32":
        pytest.skip("OpenVINO computes in f32 on this processor")
    rungs = Rungs(checkpoint=checkpoint, bundles=(("openvino fp32", exported("openvino", NAME)),))
    frames = frames_of(NAME, 2, first=9000)
    limits = {**ladder.LIMITS, own: ladder.LIMITS["fp32"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "LIMITS", limits)
        results = ladder.climb(rungs, frames, None, target=find_target("host"), arithmetic=own, ui=Quiet())
    assert [one.name for one in results] == ["torch", "openvino fp32", f"openvino fp32 in {own}"]
    assert results[1].fallen == ()
    assert results[2].fallen
    assert results[2].blame is not None
    assert results[2].blame.cause == f"{own} chosen by the runtime"
    assert "Convolution #" in results[2].blame.op


def test_the_whole_ladder_with_a_fault_on_one_rung(checkpoint: Path, tmp_path: Path) -> None:
    wrong = changed(quantized("onnx", NAME)[0], tmp_path / "b", clip_onnx)
    rungs = Rungs(checkpoint=checkpoint, bundles=(("onnx fp32", exported("onnx", NAME)), ("onnx int8", wrong)), notes=("a note",))
    frames = frames_of(NAME, 3, first=9000)
    results = ladder.climb(rungs, frames, None, target=find_target("host"), arithmetic="f32", ui=Quiet())
    assert [one.name for one in results] == ["torch", "onnx fp32", "onnx int8"]
    exact, int8 = results[1], results[2]
    assert exact.agreement is not None
    assert exact.agreement > 0.999
    assert exact.logit_sqnr_db is not None
    assert exact.logit_sqnr_db > 90
    assert exact.boundary_agreement is not None
    assert exact.boundary_agreement > 0.99
    assert int8.fallen
    assert int8.blame is not None
    assert "range clipped" in int8.blame.words
    lines = ladder.ladder_lines(results, rungs.notes)
    assert any("FELL OFF" in line for line in lines)
    assert any("first to diverge: Add #" in line for line in lines)
    assert lines[-1] == "note: a note"
    assert int8.to_json()["blame"]["op_index"] == int8.blame.op_index


def test_a_device_is_the_highest_rung(checkpoint: Path) -> None:
    """A worker process of this machine is the device: it gets files and sends answers as any other does."""
    there = Place(LocalDevice(), describe(LocalDevice(), lambda stage, done: None))
    bundle, frames = quantized("onnx", NAME)[0], frames_of(NAME, 3, first=9000)
    rungs = Rungs(checkpoint=checkpoint, bundles=(("onnx fp32", exported("onnx", NAME)), ("onnx int8", bundle)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ladder, "LIMITS", {**ladder.LIMITS, "int8": Limit(agreement=1.1, sqnr_db=0.0)})
        results = ladder.climb(rungs, frames, None, target=find_target("host"), arithmetic="f32", there=there, ui=Quiet())
    assert [one.name for one in results] == ["torch", "onnx fp32", "onnx int8", "onnx int8 on local"]
    device = results[-1]
    assert (device.agreement, device.compared_with, device.logit_sqnr_db) == (1.0, "onnx int8", None)
    assert device.fallen == ("pixel agreement below 110.0%",)
    lines = ladder.ladder_lines(results, ())
    assert lines[-1] == "  first to diverge: nothing to look at: the same file answers otherwise on local"
    assert f"{there.machine.cpu})" in lines[-3]


def with_parents(bundle: Bundle, folder: Path, *parents: Parent) -> Bundle:
    """A sealed copy that names its parents."""
    from edgeseg.core.bundle import open_bundle
    from edgeseg.core.files import write_json

    shutil.copytree(bundle.folder, folder)
    write_json(folder / "manifest.json", replace(bundle.manifest, parents=parents).to_json())
    return open_bundle(folder)


def test_rungs_are_found_by_hash_and_what_is_missing_is_said(checkpoint: Path, tmp_path: Path) -> None:
    made_of = Parent(kind="checkpoint", sha256=tree_sha256(checkpoint))
    bundles = tmp_path / "bundles"
    onnx = with_parents(exported("onnx", NAME), bundles / "a", made_of)
    tflite = with_parents(exported("tflite", NAME), bundles / "b", made_of)
    int8 = with_parents(quantized("tflite", NAME)[0], bundles / "c", Parent(kind="bundle", sha256=tflite.manifest.sha256))
    found = find_rungs(int8, checkpoint=checkpoint)
    assert [name for name, _ in found.bundles] == ["onnx fp32", "tflite fp32", "tflite int8"]
    assert found.bundles[0][1].manifest.sha256 == onnx.manifest.sha256
    assert found.notes == ()
    missing = find_rungs(int8, checkpoint=None)
    assert missing.checkpoint is None
    assert "add --checkpoint DIR" in missing.notes[0]
    shutil.copytree(checkpoint, tmp_path / "checkpoints" / "trained")
    assert find_rungs(int8, checkpoint=None).checkpoint == tmp_path / "checkpoints" / "trained"
    shutil.rmtree(bundles / "b")
    alone = find_rungs(int8, checkpoint=None)
    assert [name for name, _ in alone.bundles] == ["tflite int8"]
    with pytest.raises(ConfigError, match=r"stands alone .*does not lie beside"):
        refuse_alone(alone)


def test_another_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    bundle = with_parents(exported("onnx", NAME), tmp_path / "bundles" / "a", Parent(kind="checkpoint", sha256="0" * 64))
    with pytest.raises(ConfigError, match=r"is not what .* was made from"):
        find_rungs(bundle, checkpoint=checkpoint)


def test_every_arithmetic_has_a_limit() -> None:
    assert {one for one in PRECISION_HINTS if one != "f32"} <= set(ladder.LIMITS)


def test_what_is_neither_a_bundle_nor_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no bundle .* and no run"):
        ladder.verify_ladder(tmp_path, data=None, config=None, checkpoint=None, target="host", ui=Quiet())


def test_measures_of_distance() -> None:
    signal = np.array([3.0, 4.0], np.float32)
    assert sqnr_db(signal, signal) == EXACT_DB
    assert sqnr_db(signal, signal + np.array([0.5, 0], np.float32)) == pytest.approx(20.0)
    assert sqnr_db(signal, np.array([np.nan, 0], np.float32)) == -EXACT_DB
    assert cosine(signal, 2.0**60 * signal) == pytest.approx(1.0)
    assert cosine(signal, np.array([-4.0, 3.0], np.float32)) == pytest.approx(0.0)
    assert without_scale(signal, (2.0**60 * signal).astype(np.float32)) == pytest.approx(signal)
    channels_first = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    (turned,) = aligned(channels_first, np.zeros((1, 3, 4, 2)))
    assert np.array_equal(turned[0, :, :, 1], channels_first[0, 1])
    assert list(aligned(channels_first, np.zeros((1, 5, 4, 2)))) == []


def test_what_only_the_ladder_understands_is_refused_without_it(tmp_path: Path) -> None:
    from edgeseg.workflow.bundles import refuse_without_ladder

    (tmp_path / "bundles").mkdir()
    with pytest.raises(ConfigError, match="add --ladder for all of them"):
        refuse_without_ladder(tmp_path, None)
    with pytest.raises(ConfigError, match="--checkpoint goes with --ladder"):
        refuse_without_ladder(tmp_path / "bundles", tmp_path)
    refuse_without_ladder(exported("onnx", NAME).folder, None)


def test_ladders_that_are_kept_are_read_back_by_bundle(tmp_path: Path) -> None:
    from edgeseg.core.files import write_json

    assert ladder.climbed_ladders(tmp_path, {"a"}) == []
    (tmp_path / ladder.FILE).write_text("torn {")
    assert ladder.climbed_ladders(tmp_path, {"a"}) == []
    write_json(tmp_path / ladder.FILE, {"ladders": [{"bundle_sha256": "a"}, {"bundle_sha256": "b"}]})
    assert ladder.climbed_ladders(tmp_path, {"a"}) == [{"bundle_sha256": "a"}]
