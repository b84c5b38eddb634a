"""Reads an ONNX file with nothing but the standard library, for boards that have ONNX Runtime and not the `onnx` package.

The file is a protocol buffer (github.com/onnx/onnx/blob/main/onnx/onnx.proto); of it only what is asked for here is decoded: nodes with
their attributes, and shape and type of the constants. `with_outputs` gives the same file with further tensors among its outputs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from edgeseg.core.errors import BundleError

Value = int | float | str | tuple[int, ...] | tuple[float, ...] | None

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH: Final = 7
"""Field of ModelProto."""
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
"""Fields of GraphProto."""
INT8_TYPES: Final = frozenset({2, 3})
"""TensorProto.DataType: UINT8, INT8."""
_INT8, _INT64 = 3, 7
_SHAPES: Final = ("Shape", "Size", "ConstantOfShape")
"""What a frame's values do not reach: sizes are fixed in a bundle."""


@dataclass(frozen=True, kw_only=True)
class OnnxNode:
    """One node of the graph."""

    name: str
    kind: str
    """Its operator, `Conv`."""
    inputs: tuple[str, ...]
    """`""` = an optional input left out."""
    outputs: tuple[str, ...]
    attributes: dict[str, Value] = field(default_factory=dict)
    """Numbers, texts and lists; `None` for a tensor or a graph."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs that are there."""
        return tuple(name for name in self.inputs if name)


@dataclass(frozen=True, kw_only=True)
class OnnxConstant:
    """A tensor whose values are in the file."""

    shape: tuple[int, ...]
    dtype: int
    """TensorProto.DataType."""
    integers: tuple[int, ...] = ()
    """Its values, where they are int64 (sizes and axes) or a line of bytes (zero points)."""


@dataclass(frozen=True, kw_only=True)
class OnnxGraph:
    """What was read."""

    nodes: tuple[OnnxNode, ...]
    """In the order of the file, which is an order of execution."""
    constants: dict[str, OnnxConstant]
    """Initializers, and what Constant nodes give."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @cached_property
    def producers(self) -> dict[str, OnnxNode]:
        """The node that gives each tensor."""
        return {output: node for node in self.nodes for output in node.outputs}

    @cached_property
    def moving(self) -> frozenset[str]:
        """Tensors whose values depend on the frame."""
        found = set(self.inputs)
        for node in self.nodes:
            if node.kind not in _SHAPES and found.intersection(node.input_names):
                found.update(node.outputs)
        return frozenset(found)

    def producer(self, tensor: str) -> OnnxNode | None:
        """The node that gives a tensor; `None` for inputs and initializers."""
        return self.producers.get(tensor)


def read_onnx(data: bytes) -> OnnxGraph:
    """Decode a file's graph.

    Raises:
        BundleError: the bytes are no ONNX file.
    """
    try:
        graph = next(value for number, value in _fields(memoryview(data)) if number == _GRAPH and isinstance(value, memoryview))
        parts = list(_fields(graph))
        initializers = dict(_constant(part) for part in _of(parts, _INITIALIZER))
        given = [found for part in _of(parts, _NODE) if (found := _given(part)) is not None]
        return OnnxGraph(
            nodes=tuple(_node(part) for part in _of(parts, _NODE)), constants={**initializers, **dict(given)},
            inputs=tuple(name for name in map(_name, _of(parts, _INPUT)) if name not in initializers),
            outputs=tuple(map(_name, _of(parts, _OUTPUT))),
        )
    except (StopIteration, IndexError, struct.error, UnicodeDecodeError) as error:
        raise BundleError("the model file is no ONNX file; export the bundle again") from error


def with_outputs(data: bytes, names: tuple[str, ...]) -> bytes:
    """The same model with these tensors as further outputs; ONNX Runtime finds their types by itself.

    Raises:
        BundleError: the bytes are no ONNX file.
    """
    present = frozenset(read_onnx(data).outputs)
    added = b"".join(_field(_OUTPUT, _field(1, name.encode())) for name in names if name not in present)
    made = bytearray()
    for number, wire, start, value_start, end in _spans(memoryview(data)):
        if number == _GRAPH and wire == _BYTES:
            made += _field(_GRAPH, data[value_start:end] + added)
        else:
            made += data[start:end]
    return bytes(made)


def _of(parts: list[tuple[int, int | memoryview]], number: int) -> Iterator[memoryview]:
    return (value for found, value in parts if found == number and isinstance(value, memoryview))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: an int for a varint, the bytes of everything else."""
    for number, wire, _, start, end in _spans(data):
        yield number, _varint(data, start)[0] if wire == _VARINT else data[start:end]


def _spans(data: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """Of each field: its number, its wire type, where it starts, where its value starts, and where it ends."""
    position = 0
    while position < len(data):
        start = position
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value = position
            _, position = _varint(data, position)
        elif wire == _BYTES:
            length, value = _varint(data, position)
            position = value + length
        elif wire in (_FIXED32, _FIXED64):
            value = position
            position += 4 if wire == _FIXED32 else 8
        else:
            raise IndexError(f"wire type {wire}")
        if position > len(data):
            raise IndexError("a field ends after its message")
        yield number, wire, start, value, position


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _field(number: int, value: bytes) -> bytes:
    return _number(number << 3 | _BYTES) + _number(len(value)) + value


def _number(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _text(value: int | memoryview) -> str:
    return str(bytes(value), "utf-8") if isinstance(value, memoryview) else ""


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _name(value_info: memoryview) -> str:
    return next((_text(value) for number, value in _fields(value_info) if number == 1), "")


def _node(data: memoryview) -> OnnxNode:
    parts = list(_fields(data))
    texts = {number: tuple(_text(value) for found, value in parts if found == number) for number in (1, 2, 3, 4)}
    return OnnxNode(
        name="".join(texts[3]), kind="".join(texts[4]), inputs=texts[1], outputs=texts[2],
        attributes=dict(_attribute(value) for value in _of(parts, 5)),
    )


def _given(data: memoryview) -> tuple[str, OnnxConstant] | None:
    """The tensor of a Constant node, by the name of its output; `None` for any other node, and for a Constant given as plain numbers."""
    parts = list(_fields(data))
    if not any(number == 4 and _text(value) == "Constant" for number, value in parts):
        return None
    output = next(_text(value) for number, value in parts if number == 2)
    for attribute in _of(parts, 5):
        for value in _of(list(_fields(attribute)), 5):
            return output, _constant(value)[1]
    return None


def _attribute(data: memoryview) -> tuple[str, Value]:
    parts = list(_fields(data))
    name = "".join(_text(value) for number, value in parts if number == 1)
    numbers = [_signed(number) for value in parts if value[0] == 8 for number in _packed(value[1])]
    reals = [real for value in parts if value[0] == 7 for real in _reals(value[1])]
    if numbers or reals:
        return name, tuple(numbers) if numbers else tuple(reals)
    for number, value in parts:
        if number == 2 and isinstance(value, memoryview):
            return name, float(struct.unpack("<f", value)[0])
        if number == 3 and isinstance(value, int):
            return name, _signed(value)
        if number == 4:
            return name, _text(value)
    return name, None


def _packed(value: int | memoryview) -> list[int]:
    if isinstance(value, int):
        return [value]
    found, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        found.append(number)
    return found


def _reals(value: int | memoryview) -> list[float]:
    return [] if isinstance(value, int) else [real for (real,) in struct.iter_unpack("<f", value)]


def _constant(data: memoryview) -> tuple[str, OnnxConstant]:
    name, shape, dtype = "", [], 0
    integers: list[int] = []
    narrow: list[int] = []
    raw: memoryview | None = None
    for number, value in _fields(data):
        if number == 1:
            shape += _packed(value)
        elif number == 2 and isinstance(value, int):
            dtype = value
        elif number == 5:
            narrow += map(_signed, _packed(value))
        elif number == 7:
            integers += map(_signed, _packed(value))
        elif number == 8:
            name = _text(value)
        elif number == 9 and isinstance(value, memoryview):
            raw = value
    if dtype == _INT64 and raw is not None:
        integers = [one for (one,) in struct.iter_unpack("<q", raw)]
    if dtype in INT8_TYPES and len(shape) <= 1:
        integers = narrow if raw is None else [one for (one,) in struct.iter_unpack("b" if dtype == _INT8 else "B", raw)]
    return name, OnnxConstant(shape=tuple(shape), dtype=dtype, integers=tuple(integers))
