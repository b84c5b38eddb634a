"""Tiny models that obey the contract, one a format, made without torch: the class of a pixel is its strongest channel.

Legend: H/W = rows/columns at model size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from edgeseg.core.bundle import Bundle, BundleInfo, ModelFiles, seal_bundle
from edgeseg.core.files import write_json
from edgeseg.core.images import ClassMap, Frame
from edgeseg.core.lazy import require
from edgeseg.core.manifest import Contract, Reference

CLASSES: Final = ("red", "green", "blue")
PALETTE: Final = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def strongest_channel(frame_HWC: Frame) -> ClassMap:
    """What every tiny model but the null one answers."""
    return frame_HWC.argmax(axis=2).astype(np.uint8)


def brightness_step(frame_HWC: Frame) -> ClassMap:
    """What the null runtime answers for three classes."""
    return (frame_HWC.sum(axis=2, dtype=np.int64) * 3 // 766).astype(np.uint8)


def write_null(folder: Path, height: int, width: int) -> tuple[str, ...]:
    """Write the null model."""
    write_json(folder / "model.json", {"num_classes": 3})
    return ("model.json",)


def write_onnx(folder: Path, height: int, width: int, *, frame_dtype: str = "uint8") -> tuple[str, ...]:
    """Write a four-operator ONNX model; with another `frame_dtype` it breaks the contract."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    dtype = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}[frame_dtype]
    identity = numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "weight")
    nodes = [
        helper.make_node("Cast", ["frame"], ["real_NHWC"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real_NHWC"], ["x_NCHW"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x_NCHW", "weight"], ["scores_NCHW"]),
        helper.make_node("ArgMax", ["scores_NCHW"], ["index_NHW"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index_NHW"], ["class_map"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("frame", dtype, [1, height, width, 3])],
        [helper.make_tensor_value_info("class_map", TensorProto.UINT8, [1, height, width])], [identity],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx")
    return ("model.onnx",)


def write_openvino(folder: Path, height: int, width: int) -> tuple[str, ...]:
    """Write the same network as OpenVINO IR."""
    ov = require("openvino", extra="export")  # not a plain import: that would let it report each use from a forked process
    from openvino import opset13 as ops

    frame = ops.parameter([1, height, width, 3], np.uint8, name="frame")
    frame.output(0).set_names({"frame"})
    x_NCHW = ops.transpose(ops.convert(frame, "f32"), np.array([0, 3, 1, 2]))
    weight = ops.constant(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1))
    scores_NCHW = ops.convolution(x_NCHW, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    best = ops.topk(scores_NCHW, np.int64(1), 1, "max", "none")
    class_map = ops.convert(ops.squeeze(best.output(1), np.array([1])), "u8")
    class_map.output(0).set_names({"class_map"})
    ov.save_model(ov.Model([class_map], [frame], "tiny"), folder / "model.xml", compress_to_fp16=False)
    return ("model.xml", "model.bin")


def write_tflite(folder: Path, height: int, width: int) -> tuple[str, ...]:
    """Write the same network as a TFLite file, built operator by operator from the schema."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    buffers = [schema.BufferT()]

    def constant(array: np.ndarray) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), dtype=np.uint8)
        buffers.append(buffer)
        return len(buffers) - 1

    def tensor(name: str, shape: list[int], dtype: int, buffer: int = 0) -> schema.TensorT:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), np.array(shape, dtype=np.int32), dtype, buffer
        return made

    kinds, spatial = schema.TensorType, [1, height, width]
    tensors = [
        tensor("frame", [*spatial, 3], kinds.UINT8),
        tensor("real", [*spatial, 3], kinds.FLOAT32),
        tensor("weight", [3, 1, 1, 3], kinds.FLOAT32, constant(np.eye(3, dtype=np.float32))),
        tensor("bias", [3], kinds.FLOAT32, constant(np.zeros(3, dtype=np.float32))),
        tensor("scores", [*spatial, 3], kinds.FLOAT32),
        tensor("axis", [1], kinds.INT32, constant(np.array([3], dtype=np.int32))),
        tensor("index", spatial, kinds.INT32),
        tensor("class_map", spatial, kinds.UINT8),
    ]
    convolution = schema.Conv2DOptionsT()
    convolution.strideH = convolution.strideW = convolution.dilationHFactor = convolution.dilationWFactor = 1
    convolution.padding = schema.Padding.VALID
    best = schema.ArgMaxOptionsT()
    best.outputType = kinds.INT32
    codes, builtin = schema.BuiltinOperator, schema.BuiltinOptions
    used = [codes.CAST, codes.CONV_2D, codes.ARG_MAX]

    def operator(code: int, inputs: list[int], outputs: list[int], kind: int, options: object) -> schema.OperatorT:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = used.index(code), np.array(inputs, np.int32), np.array(outputs, np.int32)
        made.builtinOptionsType, made.builtinOptions = kind, options
        return made

    def code_of(code: int) -> schema.OperatorCodeT:
        made = schema.OperatorCodeT()
        made.builtinCode = made.deprecatedBuiltinCode = code
        made.version = 1
        return made

    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.inputs, graph.outputs = b"main", tensors, np.array([0], np.int32), np.array([7], np.int32)
    graph.operators = [
        operator(codes.CAST, [0], [1], builtin.CastOptions, schema.CastOptionsT()),
        operator(codes.CONV_2D, [1, 2, 3], [4], builtin.Conv2DOptions, convolution),
        operator(codes.ARG_MAX, [4, 5], [6], builtin.ArgMaxOptions, best),
        operator(codes.CAST, [6], [7], builtin.CastOptions, schema.CastOptionsT()),
    ]
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], buffers, [code_of(code) for code in used]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    (folder / "model.tflite").write_bytes(bytes(builder.Output()))
    return ("model.tflite",)


WRITERS: Final[dict[str, Callable[[Path, int, int], tuple[str, ...]]]] = {
    "null": write_null, "onnx": write_onnx, "openvino": write_openvino, "tflite": write_tflite, "tensorrt": write_onnx,
}
ANSWERS: Final[dict[str, Callable[[Frame], ClassMap]]] = {
    "null": brightness_step, "onnx": strongest_channel, "openvino": strongest_channel, "tflite": strongest_channel,
    "tensorrt": strongest_channel,
}


def tiny_frame(seed: int = 0, *, height: int = 24, width: int = 32) -> Frame:
    """Give a seeded random frame."""
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tiny_bundle(
    parent: Path, kind: str, *, height: int = 24, width: int = 32, resize: str = "stretch", resizer: str = "pillow",
    precision: str = "fp32", reference: Reference | None = None, write: Callable[[Path, int, int], tuple[str, ...]] | None = None,
) -> Bundle:
    """Seal a tiny bundle of a format into `parent/kind`, its golden answers computed in numpy."""
    work = parent / f"{kind}-work"
    work.mkdir(parents=True, exist_ok=True)
    files = (write or WRITERS[kind])(work, height, width)
    model = ModelFiles(folder=work, files=files, entry=files[0], format=kind, precision=precision, scheme={}, tools={})
    info = BundleInfo(
        name=f"tiny-{kind}", contract=Contract(height=height, width=width, resize=resize, resizer=resizer), classes=CLASSES,
        palette=PALETTE, reference=reference, parents=(), config_sha256="0" * 64,
    )
    return seal_bundle(
        parent / kind, model, info, golden_frames=[tiny_frame(9, height=height, width=width)], answer=lambda _: ("numpy", ANSWERS[kind]),
    )
