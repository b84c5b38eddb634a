"""Tiny instance models that obey the contract, one a format, made without torch. Slot i looks at channel i of the frame: its score is the
channel's mean, its mask the channel itself, its box is fixed; the last slot stays empty.

Legend: K = slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from tiny_models import CLASSES, PALETTE, tiny_frame, write_null

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, seal_bundle
from edgeseg.core.images import Frame
from edgeseg.core.instances import Instances, from_outputs
from edgeseg.core.manifest import Contract, InstanceReference

SIDE: Final = 28
SLOTS: Final = np.array(
    [[2, 3, 20, 22, 0, 1], [0, 0, 28, 28, 0, 2], [10, 5, 26, 15, 0, 1], [0, 0, 0, 0, 0, 0]], dtype=np.float32
)
SCORE_COLUMN: Final = np.array([[0, 0, 0, 0, 1 / 255, 0]], dtype=np.float32)


def channels_as_objects(frame_HWC: Frame) -> Instances:
    """What every tiny model but the null one answers."""
    detections = SLOTS.copy()
    detections[:3, 4] = frame_HWC.mean(axis=(0, 1), dtype=np.float64) / 255
    masks = np.zeros((len(SLOTS), SIDE, SIDE), dtype=np.uint8)
    masks[:3] = frame_HWC.transpose(2, 0, 1)
    return from_outputs(detections, masks, num_classes=len(CLASSES))


def write_onnx(folder: Path, *, masks_name: str = "masks") -> tuple[str, ...]:
    """Write the ONNX model; with another `masks_name` it breaks the contract."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "column": np.array([3, 1]), "cube": np.array([3, SIDE, SIDE]), "none": np.zeros((1, 1), np.float32), "slots": SLOTS,
        "score": SCORE_COLUMN, "blank": np.zeros((1, SIDE, SIDE), np.uint8), "axes": np.array([1, 2]),
    }
    nodes = [
        helper.make_node("Cast", ["frame"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "column"], ["means"]),
        helper.make_node("Concat", ["means", "none"], ["all"], axis=0),
        helper.make_node("Mul", ["all", "score"], ["scores"]),
        helper.make_node("Add", ["scores", "slots"], ["detections"]),
        helper.make_node("Transpose", ["frame"], ["turned"], perm=[3, 0, 1, 2]),
        helper.make_node("Reshape", ["turned", "cube"], ["channels"]),
        helper.make_node("Concat", ["channels", "blank"], [masks_name], axis=0),
    ]
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(masks_name, TensorProto.UINT8, [4, SIDE, SIDE]),  # the order of outputs does not matter
         helper.make_tensor_value_info("detections", TensorProto.FLOAT, [4, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx")
    return ("model.onnx",)


def write_openvino(folder: Path) -> tuple[str, ...]:
    """Write the same network as OpenVINO IR."""
    import openvino as ov
    from openvino import opset13 as ops

    frame = ops.parameter([1, SIDE, SIDE, 3], np.uint8, name="frame")
    frame.output(0).set_names({"frame"})
    means = ops.unsqueeze(ops.reduce_mean(ops.convert(frame, "f32"), np.array([0, 1, 2]), False), np.array([1]))
    scores = ops.multiply(ops.concat([means, ops.constant(np.zeros((1, 1), np.float32))], 0), ops.constant(SCORE_COLUMN))
    detections = ops.add(scores, ops.constant(SLOTS))
    channels = ops.reshape(ops.transpose(frame, np.array([3, 0, 1, 2])), np.array([3, SIDE, SIDE]), False)
    masks = ops.concat([channels, ops.constant(np.zeros((1, SIDE, SIDE), np.uint8))], 0)
    detections.output(0).set_names({"detections"})
    masks.output(0).set_names({"masks"})
    ov.save_model(ov.Model([masks, detections], [frame], "tiny"), folder / "model.xml", compress_to_fp16=False)
    return ("model.xml", "model.bin")


def write_tflite(folder: Path) -> tuple[str, ...]:
    """Write the same network as a TFLite file, built operator by operator from the schema."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kinds, codes, builtin = schema.TensorType, schema.BuiltinOperator, schema.BuiltinOptions
    buffers, tensors, operators, used = [schema.BufferT()], [], [], []

    def tensor(name: str, shape: Sequence[int], kind: int, data: np.ndarray | None = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), np.array(shape, np.int32), kind, 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), dtype=np.uint8)
            buffers.append(buffer)
            made.buffer = len(buffers) - 1
        tensors.append(made)
        return len(tensors) - 1

    def operator(code: int, inputs: list[int], output: int, kind: int = 0, options: Any = None) -> None:
        if code not in used:
            used.append(code)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = used.index(code), np.array(inputs, np.int32), np.array([output], np.int32)
        made.builtinOptionsType, made.builtinOptions = kind, options
        operators.append(made)

    def whole(*values: int) -> np.ndarray:
        return np.array(values, dtype=np.int32)

    def join() -> Any:
        options = schema.ConcatenationOptionsT()
        options.axis = 0
        return options

    real, byte, index = kinds.FLOAT32, kinds.UINT8, kinds.INT32
    frame = tensor("frame", [1, SIDE, SIDE, 3], byte)
    floats, mean = tensor("real", [1, SIDE, SIDE, 3], real), tensor("mean", [1, 3], real)
    means, scores = tensor("means", [3, 1], real), tensor("scores", [4, 6], real)
    every, detections = tensor("every", [4, 1], real), tensor("detections", [4, 6], real)
    turned, channels = tensor("turned", [3, 1, SIDE, SIDE], byte), tensor("channels", [3, SIDE, SIDE], byte)
    masks = tensor("masks", [4, SIDE, SIDE], byte)
    operator(codes.CAST, [frame], floats, builtin.CastOptions, schema.CastOptionsT())
    operator(codes.MEAN, [floats, tensor("axes", [2], index, whole(1, 2))], mean, builtin.ReducerOptions, schema.ReducerOptionsT())
    operator(codes.RESHAPE, [mean, tensor("column", [2], index, whole(3, 1))], means)
    operator(codes.CONCATENATION, [means, tensor("none", [1, 1], real, np.zeros((1, 1), np.float32))], every,
             builtin.ConcatenationOptions, join())
    operator(codes.MUL, [every, tensor("score", [1, 6], real, SCORE_COLUMN)], scores, builtin.MulOptions, schema.MulOptionsT())
    operator(codes.ADD, [scores, tensor("slots", [4, 6], real, SLOTS)], detections, builtin.AddOptions, schema.AddOptionsT())
    operator(codes.TRANSPOSE, [frame, tensor("order", [4], index, whole(3, 0, 1, 2))], turned)
    operator(codes.RESHAPE, [turned, tensor("cube", [3], index, whole(3, SIDE, SIDE))], channels)
    operator(codes.CONCATENATION, [channels, tensor("blank", [1, SIDE, SIDE], byte, np.zeros((1, SIDE, SIDE), np.uint8))], masks,
             builtin.ConcatenationOptions, join())

    def code_of(code: int) -> Any:
        made = schema.OperatorCodeT()
        made.builtinCode = made.deprecatedBuiltinCode = code
        made.version = 1
        return made

    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.operators = b"main", tensors, operators
    graph.inputs, graph.outputs = np.array([frame], np.int32), np.array([masks, detections], np.int32)
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], buffers, [code_of(code) for code in used]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    (folder / "model.tflite").write_bytes(bytes(builder.Output()))
    return ("model.tflite",)


INSTANCE_WRITERS: Final[dict[str, Callable[[Path], tuple[str, ...]]]] = {
    "null": lambda folder: write_null(folder, SIDE, SIDE), "onnx": write_onnx, "openvino": write_openvino, "tflite": write_tflite,
    "tensorrt": write_onnx,
}


def blocks_frame(height: int = SIDE, width: int = SIDE) -> Frame:
    """Black, with a gray rectangle (class 1 of the null runtime) and a white one (class 2)."""
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    frame[height // 7 : height // 2, width // 7 : width // 2] = 128
    frame[height // 2 : height * 6 // 7, width // 2 : width * 6 // 7] = 255
    return frame


def blocks_as_objects(frame_HWC: Frame) -> Instances:
    """What the null runtime answers for `blocks_frame`: each rectangle is one object with a full mask and score 1."""
    boxes = []
    for low, high in ((100, 200), (200, 256)):
        rows, columns = np.nonzero((frame_HWC[:, :, 0] >= low) & (frame_HWC[:, :, 0] < high))
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return Instances(
        boxes_K4=np.array(boxes, np.float32), scores_K=np.ones(2, np.float32), classes_K=np.array([1, 2]),
        masks_Khw=np.full((2, SIDE, SIDE), 255, np.uint8),
    )


def tiny_instance_bundle(
    parent: Path, kind: str, *, side: int = SIDE, resize: str = "stretch", precision: str = "fp32",
    reference: InstanceReference | None = None, write: Callable[[Path], tuple[str, ...]] | None = None,
    classes: tuple[str, ...] = CLASSES,
) -> Bundle:
    """Seal a tiny instance bundle of a format into `parent/kind`, its golden answers computed in numpy."""
    work = parent / f"{kind}-work"
    work.mkdir(parents=True, exist_ok=True)
    files = (write or INSTANCE_WRITERS[kind])(work)
    model = ModelFiles(folder=work, files=files, entry=files[0], format=kind, precision=precision, scheme={}, tools={})
    info = BundleInfo(
        name=f"tiny-{kind}", contract=Contract(height=side, width=side, resize=resize, task="instance", max_instances=len(SLOTS)),
        classes=classes, palette=PALETTE, reference=reference, parents=(), config_sha256="0" * 64,
    )
    frame, answer = (blocks_frame(side, side), blocks_as_objects) if kind == "null" else (tiny_frame(9, height=SIDE, width=SIDE),
                                                                                          channels_as_objects)
    return seal_bundle(parent / kind, model, info, golden_frames=[frame], answer=lambda _: ("numpy", answer))


def same_objects(got: Instances, wanted: Instances) -> None:
    """Assert that two answers hold the same objects, scores to 1e-5."""
    np.testing.assert_array_equal(got.boxes_K4, wanted.boxes_K4)
    np.testing.assert_allclose(got.scores_K, wanted.scores_K, atol=1e-5)
    np.testing.assert_array_equal(got.classes_K, wanted.classes_K)
    np.testing.assert_array_equal(got.masks_Khw, wanted.masks_Khw)
