"""Int8 ONNX graphs in the form that ONNX Runtime runs fastest; the answers stay what they were, bit for bit.

Facts about ONNX Runtime 1.31.1 on x86-64 (AVX-512 VNNI), one thread, us; the command is `python -m benchmarks.layer_times BUNDLE`:
a 3x3 convolution of stride 2 from the frame's 3 channels to 32 takes 910 in float and 1461 in int8 at 360x480, since the int8 kernel
copies its input 3 bytes at a time. Reading 4 pixels as one of 12 channels, which moves no byte, it takes 700.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgeseg.core.lazy import require

BLOCK: Final = 4
"""Pixels of a row read as one: 12 channels. The kernel gets zeros where its taps do not fill the blocks."""
_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def read_pixels_in_blocks(model: Any) -> int:  # noqa: ANN401 - an SDK object
    """Let the first int8 convolutions read `BLOCK` pixels as one of many channels; gives how many were changed.

    Changed are convolutions without padding that read a uint8 frame [1, H, W, 3] through Transpose -> DequantizeLinear and are followed
    by [Relu ->] QuantizeLinear, where whole blocks of outputs fit. Sums of integers are the same sums, so no bit of the answer changes.
    """
    found = [stem for node in model.graph.node if (stem := _Stem.of(model.graph, node)) is not None]
    for index, stem in enumerate(found):
        _rewrite(model.graph, stem, f"in_blocks_{index}")
    if found:
        _settle(model.graph)
    return len(found)


@dataclass(frozen=True, kw_only=True)
class _Stem:
    """A convolution that fits: the nodes from its frame to its quantized output."""

    transpose: Any
    frame: Any
    """DequantizeLinear of the frame."""
    weights: Any
    """DequantizeLinear of the weights."""
    bias: Any | None
    """DequantizeLinear of the bias."""
    conv: Any
    relu: Any | None
    quantize: Any
    strides: tuple[int, int]
    out_hw: tuple[int, int]

    @classmethod
    def of(cls, graph: Any, conv: Any) -> _Stem | None:  # noqa: ANN401
        if conv.op_type != "Conv":
            return None
        producer = {output: node for node in graph.node for output in node.output}
        initial = {tensor.name: tensor for tensor in graph.initializer}
        sources = [producer[name] for name in conv.input if name in producer]
        if len(sources) != len(conv.input) or any(source.op_type != "DequantizeLinear" for source in sources):
            return None
        transpose = producer.get(sources[0].input[0])
        values = {a.name: require("onnx", extra="export").helper.get_attribute_value(a) for a in conv.attribute}
        weights = initial.get(sources[1].input[0])
        plain = values.get("group", 1) == 1 and not any(values.get("pads", ())) and set(values.get("dilations", (1,))) == {1}
        if transpose is None or transpose.op_type != "Transpose" or list(transpose.attribute[0].ints) != _CHANNELS_FIRST or not plain:
            return None
        if weights is None or weights.dims[1] != 3 or len(weights.dims) != 4 or values.get("auto_pad", b"NOTSET") != b"NOTSET":
            return None
        shape = _shapes(graph).get(transpose.input[0])
        relu, quantize = _followers(graph, conv)
        if shape is None or quantize is None:
            return None
        strides, kernel = list(values.get("strides", (1, 1))), weights.dims[2:]
        out_hw = tuple((size - taps) // step + 1 for size, taps, step in zip(shape[1:3], kernel, strides, strict=True))
        if strides[1] >= BLOCK or BLOCK % strides[1] or out_hw[1] % (BLOCK // strides[1]):
            return None
        return cls(transpose=transpose, frame=sources[0], weights=sources[1], bias=sources[2] if len(sources) > 2 else None, conv=conv,
                   relu=relu, quantize=quantize, strides=(strides[0], strides[1]), out_hw=(out_hw[0], out_hw[1]))


def _followers(graph: Any, conv: Any) -> tuple[Any | None, Any | None]:  # noqa: ANN401
    """Relu, where there is one, and QuantizeLinear, each the only reader of what is before it."""
    relu, tensor = None, conv.output[0]
    while True:
        readers = [node for node in graph.node if tensor in node.input]
        if len(readers) != 1 or readers[0].op_type not in ("Relu", "QuantizeLinear") or (relu is not None and readers[0].op_type == "Relu"):
            return None, None
        if readers[0].op_type == "QuantizeLinear":
            return relu, readers[0]
        relu, tensor = readers[0], readers[0].output[0]


def block_weights(weights_OIHW: np.ndarray[Any, Any], stride: int) -> np.ndarray[Any, Any]:
    """The same convolution for blocks: [(BLOCK / stride) O, BLOCK I, H, kernel width in blocks], its outputs side by side as channels."""
    outputs, inputs, height, width = weights_OIHW.shape
    num_together = BLOCK // stride
    num_blocks = -(-((num_together - 1) * stride + width) // BLOCK)
    blocked = np.zeros((num_together, outputs, BLOCK, inputs, height, num_blocks), weights_OIHW.dtype)
    for position in range(num_together):
        for tap in range(width):
            block, pixel = divmod(position * stride + tap, BLOCK)
            blocked[position, :, pixel, :, :, block] = weights_OIHW[..., tap].transpose(0, 1, 2)
    return blocked.reshape(num_together * outputs, BLOCK * inputs, height, num_blocks)


def _rewrite(graph: Any, stem: _Stem, name: str) -> None:  # noqa: ANN401
    onnx = require("onnx", extra="export")
    initial = {tensor.name: tensor for tensor in graph.initializer}

    def constant(suffix: str, value: np.ndarray[Any, Any]) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), f"{name}_{suffix}"))
        return f"{name}_{suffix}"

    def node(kind: str, inputs: list[str], suffix: str, **attributes: Any) -> str:  # noqa: ANN401
        made.append(onnx.helper.make_node(kind, inputs, [f"{name}_{suffix}"], f"{name}_{suffix}", **attributes))
        return f"{name}_{suffix}"

    made: list[Any] = []
    num_together = BLOCK // stem.strides[1]
    weights = onnx.numpy_helper.to_array(initial[stem.weights.input[0]])
    blocked = block_weights(weights, stem.strides[1])
    height, width = _shapes(graph)[stem.transpose.input[0]][1:3]
    num_blocks = stem.out_hw[1] // num_together + blocked.shape[3] - 1
    frame = stem.transpose.input[0]
    if num_blocks * BLOCK > width:
        frame = node("Concat", [frame, constant("border", np.zeros((1, height, num_blocks * BLOCK - width, 3), np.uint8))], "wide", axis=2)
    frame = node("Reshape", [frame, constant("blocks", np.array([1, height, num_blocks, 3 * BLOCK]))], "frame")
    frame = node("Transpose", [frame], "first", perm=_CHANNELS_FIRST)
    frame = node("DequantizeLinear", [frame, *stem.frame.input[1:]], "values")
    inputs = [frame, _repeated(stem.weights, initial, constant, node, "weights", num_together, blocked)]
    if stem.bias is not None:
        inputs.append(_repeated(stem.bias, initial, constant, node, "bias", num_together, None))
    tensor = node("Conv", inputs, "sums", kernel_shape=list(blocked.shape[2:]), strides=[stem.strides[0], 1])
    if stem.relu is not None:
        tensor = node("Relu", [tensor], "relu")
    tensor = node("QuantizeLinear", [tensor, *stem.quantize.input[1:]], "quantized")
    tensor = node("Transpose", [tensor], "last", perm=_CHANNELS_LAST)
    tensor = node("Reshape", [tensor, constant("pixels", np.array([1, *stem.out_hw, len(weights)]))], "taken_apart")
    made.append(onnx.helper.make_node("Transpose", [tensor], list(stem.quantize.output), f"{name}_done", perm=_CHANNELS_FIRST))
    place = list(graph.node).index(stem.quantize)
    for index, new in enumerate(made):
        graph.node.insert(place + 1 + index, new)
    for old in (stem.conv, stem.relu, stem.quantize):
        if old is not None:
            graph.node.remove(old)


def _repeated(old: Any, initial: Any, constant: Any, node: Any, name: str, times: int, value: Any | None) -> str:  # noqa: ANN401
    """DequantizeLinear like `old` for outputs that are there `times` over: scales and zero points per output are repeated."""
    to_array = require("onnx", extra="export").numpy_helper.to_array
    held = to_array(initial[old.input[0]])
    held = np.tile(held, times) if value is None else value
    arguments = [constant(name, held)]
    for index, argument in enumerate(old.input[1:]):
        array = to_array(initial[argument])
        arguments.append(constant(f"{name}_{('scale', 'zero')[index]}", np.tile(array, times)) if array.ndim else argument)
    return str(node("DequantizeLinear", arguments, f"{name}_real", axis=0))


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:  # noqa: ANN401
    """Shapes of the frame and of what Cast and Concat alone make of it and of constants."""
    shapes = {value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in graph.input}
    shapes.update({tensor.name: tuple(tensor.dims) for tensor in graph.initializer})
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
        elif node.op_type == "Concat" and all(name in shapes for name in node.input):
            axis, parts = node.attribute[0].i, [shapes[name] for name in node.input]
            shapes[node.output[0]] = (*parts[0][:axis], sum(part[axis] for part in parts), *parts[0][axis + 1 :])
    return shapes


def _settle(graph: Any) -> None:  # noqa: ANN401
    """Remove nodes and initializers that nothing reads any more."""
    outputs = {output.name for output in graph.output}
    while True:
        read = {name for node in graph.node for name in node.input} | outputs
        dead = [node for node in graph.node if not any(output in read for output in node.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
