"""ONNX files. The contract's ends are joined to the imported graph, whose own nodes stay as they are.

Older operator sets are brought to 18 by ONNX's own version converter, since the ends and the int8 form (per channel) need it; newer
ones stay, and the ends are brought to theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeseg.core.bundle import ModelFiles
from edgeseg.core.errors import ConfigError, InputMissingError, telling_line, vendor_errors
from edgeseg.core.lazy import require
from edgeseg.core.manifest import FRAME_END, INPUT_NAME, OUTPUT_NAME
from edgeseg.core.vendors import quiet, versions
from exporters.imported import openvino as as_openvino
from exporters.imported.base import Facts, Port, Reading
from exporters.imported.ends import ANSWER_NAME, X_NAME, AnswerEnd, FrameEnd, answer_example, frame_example, to_onnx
from exporters.imported.onnx_stem import fold_onnx
from exporters.imported.stem import RawEnd, said, why_not
from exporters.to_onnx import IR_VERSION, OPSET, strip

_NEWEST_EVERYWHERE: Final = 21
"""Opset that ONNX Runtime 1.18 (JetPack 6) still reads."""
_QUANTIZING: Final = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
)
_PASSING: Final = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Resize", "Upsample", "Cast", "Flatten"})


class OnnxSource:
    """`model.onnx`, with or without its weights beside it."""

    formats: Mapping[str, str] = {
        "onnx": "", "openvino": "",
        "tflite": "no converter from ONNX to TFLite works without TensorFlow; export TFLite where the model comes from and import that",
    }

    def claims(self, path: Path) -> bool:
        """See `Source.claims`."""
        return path.suffix.lower() == ".onnx" and path.is_file()

    def beside(self, path: Path) -> tuple[Path, ...]:
        """See `Source.beside`; ONNX calls them external data."""
        onnx = require("onnx", extra="export")
        model = onnx.load(str(path), load_external_data=False)
        nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
        tensors = [*model.graph.initializer, *(tensor for node in nodes for tensor in _tensors(node))]
        names = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
        return tuple(path.parent / name for name in sorted(names))

    def open(self, path: Path) -> OpenedOnnx:
        """See `Source.open`."""
        onnx = require("onnx", extra="export")
        try:
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
        except Exception as error:  # protobuf's and the checker's kinds have no common base
            raise InputMissingError(f"{path} is not a whole ONNX model ({telling_line(error)}); copy or export it again") from error
        return OpenedOnnx(model)


class OpenedOnnx:
    """A model that was read."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._model = model
        weights = {tensor.name for tensor in model.graph.initializer}  # IR before 4 lists them among the inputs
        self.inputs = tuple(_port(value) for value in model.graph.input if value.name not in weights)
        self.outputs = tuple(_port(value) for value in model.graph.output)

    def settle(self, input: Port, output: Port, shape: tuple[int, ...]) -> SettledOnnx:
        """See `Opened.settle`."""
        onnx = require("onnx", extra="export")
        ort = require("onnxruntime", extra="export")
        with vendor_errors("onnx"), quiet():
            model = _settled(onnx, self._model, input, output, shape)
            options = ort.SessionOptions()
            options.log_severity_level = 3
            session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            answer = session.run([output.name], {input.name: np.zeros(shape, input.dtype)})[0]
        return SettledOnnx(model, session, Port(name=output.name, dtype=answer.dtype.name, shape=answer.shape))


class SettledOnnx:
    """One input, one output, static; runs in ONNX Runtime."""

    def __init__(self, model: Any, session: Any, output: Port) -> None:  # noqa: ANN401
        self._model, self._session = model, session
        opset = _opset(model)
        domains = sorted({o.domain for o in model.opset_import} - {"", "ai.onnx"})
        remarks = []
        if opset > _NEWEST_EVERYWHERE:
            remarks.append(f"note: opset {opset}; ONNX Runtime 1.18 (JetPack 6) reads up to {_NEWEST_EVERYWHERE}")
        if _holds_halves(model.graph):
            remarks.append("note: it holds float16, computed with in float16 or float32 as runtimes please; it is recorded as fp32")
        if domains:
            remarks.append(f"note: operators beyond ONNX ({', '.join(domains)}); TensorRT and OpenVINO may not know them")
        self.facts = Facts(
            output=output, last_op=_last_op(model.graph, output.name), remarks=tuple(remarks),
            quantized=any(node.op_type in _QUANTIZING for node in model.graph.node),
            runtime=" ".join(("onnxruntime", *versions("onnxruntime").values())),
        )

    def run(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """See `Settled.run`."""
        with vendor_errors("onnxruntime"):
            answer: NDArray[np.generic] = self._session.run(None, {self._session.get_inputs()[0].name: x})[0]
        return answer

    def write(self, format: str, reading: Reading, workdir: Path) -> ModelFiles:
        """See `Settled.write`."""
        if format == "openvino":
            return self._write_openvino(reading, workdir)
        onnx = require("onnx", extra="export")
        path = workdir / "model.onnx"
        with vendor_errors("onnx"), quiet():
            body = onnx.ModelProto()
            body.CopyFrom(self._model)
            stem = why_not(reading, quantized=self.facts.quantized) or fold_onnx(body, reading)
            feed = FrameEnd(reading) if isinstance(stem, str) else RawEnd(reading, stem.borders)
            frame_end = to_onnx(feed, frame_example(reading), (INPUT_NAME, X_NAME))
            answer_end = to_onnx(AnswerEnd(reading, format), answer_example(reading), (ANSWER_NAME, OUTPUT_NAME))
            model = join(onnx, frame_end, body, answer_end)
            strip(model)
            onnx.checker.check_model(model, full_check=True)
            onnx.save_model(model, str(path))
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format=format, precision="int8" if self.facts.quantized else "fp32",
            scheme=said(stem), tools=versions("torch", "onnx", "onnxscript"),
        )

    def _write_openvino(self, reading: Reading, workdir: Path) -> ModelFiles:
        ov = require("openvino", extra="export")
        settled = workdir / "imported.onnx"
        with vendor_errors("openvino"), quiet():
            settled.write_bytes(self._model.SerializeToString())
            body = ov.Core().read_model(str(settled))
            made = as_openvino.write(body, reading, workdir, quantized=self.facts.quantized)
            settled.unlink()
        return made


def join(onnx: Any, frame_end: Any, body: Any, answer_end: Any) -> Any:  # noqa: ANN401
    """Give one model: frame end, body, answer end. The body is changed in names alone, and only where they clash."""
    joined = onnx.ModelProto()
    joined.CopyFrom(body)
    for name in (INPUT_NAME, OUTPUT_NAME):
        _rename(joined.graph, name, f"imported/{name}")
    opset = _opset(joined)
    ends = []
    for end, prefix, outside in ((frame_end, FRAME_END, INPUT_NAME), (answer_end, "answer_end/", OUTPUT_NAME)):
        end = onnx.version_converter.convert_version(end, opset) if _opset(end) != opset else end
        end = onnx.compose.add_prefix(end, prefix)
        _rename(end.graph, prefix + outside, outside)
        ends.append(end.graph)
    first, last = ends
    _rename(first, FRAME_END + X_NAME, joined.graph.input[0].name)
    _rename(last, "answer_end/" + ANSWER_NAME, joined.graph.output[0].name)
    nodes = [*first.node, *joined.graph.node, *last.node]
    weights = [*first.initializer, *joined.graph.initializer, *last.initializer]
    graph = onnx.helper.make_graph(nodes, "imported", list(first.input), list(last.output), weights)
    graph.sparse_initializer.extend(joined.graph.sparse_initializer)
    _name_nodes(graph)
    made = onnx.helper.make_model(graph, opset_imports=list(joined.opset_import), functions=list(joined.functions))
    made.ir_version = min(max(body.ir_version, 8), IR_VERSION)
    made.producer_name = body.producer_name
    return made


def _tensors(node: Any) -> Iterator[Any]:  # noqa: ANN401
    """Tensors that a node holds, those of its inner graphs included."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for inner in _inner_graphs(node):
        yield from inner.initializer
        for part in inner.node:
            yield from _tensors(part)


def _holds_halves(graph: Any) -> bool:  # noqa: ANN401
    half = require("onnx", extra="export").TensorProto.FLOAT16
    stored = (tensor.data_type for tensor in graph.initializer)
    return half in stored or any(value.type.tensor_type.elem_type == half for value in graph.value_info)


def _settled(onnx: Any, source: Any, input: Port, output: Port, shape: tuple[int, ...]) -> Any:  # noqa: ANN401
    """A copy with a static input, the one output and what it needs, in opset 18 or newer."""
    model = onnx.ModelProto()
    model.CopyFrom(source)
    graph = model.graph
    for port in graph.input:
        if port.name == input.name:
            for axis, size in zip(port.type.tensor_type.shape.dim, shape, strict=False):
                axis.Clear()
                axis.dim_value = size
    for ports, kept in ((graph.input, input.name), (graph.output, output.name)):
        for port in [port for port in ports if port.name != kept]:
            ports.remove(port)
    graph.ClearField("value_info")
    graph.output[0].type.tensor_type.ClearField("shape")
    _drop_unneeded(graph, output.name)
    if _opset(model) < OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:  # the converter raises bare RuntimeError and more, as its C++ likes
            raise ConfigError(f"the model is of opset {_opset(model)}, and ONNX's converter cannot bring it to {OPSET} "
                              f"({telling_line(error)}); export it again with opset {OPSET}") from error
    model.ir_version = max(model.ir_version, 8)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _drop_unneeded(graph: Any, output: str) -> None:  # noqa: ANN401
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(_reads(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for weights in (graph.initializer, graph.sparse_initializer):
        for tensor in [t for t in weights if (t.name if weights is graph.initializer else t.values.name) not in needed]:
            weights.remove(tensor)


def _reads(node: Any) -> Iterator[str]:  # noqa: ANN401
    """Names a node takes, those its inner graphs take from outside included."""
    yield from node.input
    for inner in _inner_graphs(node):
        for part in inner.node:
            yield from _reads(part)
        yield from (port.name for port in inner.output)


def _inner_graphs(node: Any) -> Iterator[Any]:  # noqa: ANN401
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _rename(graph: Any, old: str, new: str) -> None:  # noqa: ANN401
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for inner in _inner_graphs(node):
            _rename(inner, old, new)
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if item.name == old:
            item.name = new


def _name_nodes(graph: Any) -> None:  # noqa: ANN401
    """Give every node a name of its own: quantizers tell nodes apart by it."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)


def _opset(model: Any) -> int:  # noqa: ANN401
    return max((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def _last_op(graph: Any, tensor: str) -> str:  # noqa: ANN401
    producer = {name: node for node in graph.node for name in node.output}
    while tensor in producer and producer[tensor].op_type in _PASSING:
        tensor = producer[tensor].input[0]
    return str(producer[tensor].op_type).lower() if tensor in producer else ""


def _port(value: Any) -> Port:  # noqa: ANN401
    helper = require("onnx.helper", extra="export")
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return Port(name=value.name, dtype=str(value.type.WhichOneof("value")), shape=None)
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    except KeyError:
        dtype = "unknown"
    axes = tuple(int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
    return Port(name=value.name, dtype="string" if dtype == "object" else dtype, shape=axes if tensor.HasField("shape") else None)
