"""A TensorFlow SavedModel without TensorFlow: just enough of the wire format of protocol buffers, numbers from TensorFlow's .proto files.

Legend: H/W = rows/columns, C = channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

_FLOAT: Final = 1
_INT32: Final = 3
_DTYPES: Final = {"float32": _FLOAT, "int32": _INT32}


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _entry(number: int, key: str, value: bytes) -> bytes:
    """One pair of a map field."""
    return _field(number, _field(1, key) + _field(2, value))


def _shape(axes: tuple[int, ...]) -> bytes:
    return b"".join(_field(2, _field(1, axis)) for axis in axes)


def _type(dtype: int = _FLOAT) -> bytes:
    return _field(6, dtype)


def _node(name: str, op: str, inputs: tuple[str, ...] = (), **attributes: bytes) -> bytes:
    body = _field(1, name) + _field(2, op) + b"".join(_field(3, name) for name in inputs)
    return _field(1, body + b"".join(_entry(5, key, value) for key, value in attributes.items()))


def _constant(name: str, array: np.ndarray) -> bytes:
    dtype = _DTYPES[array.dtype.name]
    tensor = _field(1, dtype) + _field(2, _shape(array.shape)) + _field(4, array.tobytes())
    return _node(name, "Const", dtype=_type(dtype), value=_field(8, tensor))


def _numbers(*values: int) -> bytes:
    return _field(1, _field(3, b"".join(map(_varint, values))))


def graph_of_convolution(weights_HWIO: np.ndarray, bias_C: np.ndarray, *, shape: tuple[int, ...], stride: int = 2) -> bytes:
    """Give the graph alone, which in a file is a frozen graph."""
    type_ = _type()
    nodes = b"".join([
        _node("picture", "Placeholder", dtype=type_, shape=_field(7, _shape(shape))),
        _constant("weights", weights_HWIO.astype(np.float32)),
        _constant("bias", bias_C.astype(np.float32)),
        _node("conv", "Conv2D", ("picture", "weights"), T=type_, strides=_numbers(1, stride, stride, 1), padding=_field(2, "SAME"),
              data_format=_field(2, "NHWC"), dilations=_numbers(1, 1, 1, 1)),
        _node("scores", "BiasAdd", ("conv", "bias"), T=type_, data_format=_field(2, "NHWC")),
    ])
    return nodes + _field(4, _field(1, 1882))


def write_saved_model(folder: Path, weights_HWIO: np.ndarray, bias_C: np.ndarray, *, shape: tuple[int, ...], stride: int = 2) -> Path:
    """Write one convolution (`SAME`) with bias as a SavedModel: float32 `picture` of `shape` (-1 = open) in, float32 `scores` out."""
    out_shape = (shape[0], *(side if side < 0 else -(-side // stride) for side in shape[1:3]), weights_HWIO.shape[3])
    graph = graph_of_convolution(weights_HWIO, bias_C, shape=shape, stride=stride)

    def info(name: str, axes: tuple[int, ...]) -> bytes:
        return _field(1, name) + _field(2, _FLOAT) + _field(3, _shape(axes))

    signature = _entry(1, "picture", info("picture:0", shape)) + _entry(2, "scores", info("scores:0", out_shape)) + _field(
        3, "tensorflow/serving/predict")
    meta = _field(1, _field(4, "serve") + _field(5, "2.21.0")) + _field(2, graph) + _entry(5, "serving_default", signature)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_bytes(_field(1, 1) + _field(2, meta))
    return folder
