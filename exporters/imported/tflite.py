"""TFLite files. The contract's ends are joined to the imported graph in the file's own schema, whose operators stay as they are.

`ai_edge_litert.schema_py_generated` is the schema as Python objects: three graphs become one by appending tensors, buffers and operator
codes with their indices moved, and by giving the middle graph the first one's answer in place of its input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from exporters.imported.ends import AnswerEnd, FrameEnd, answer_example, frame_example, to_tflite

_TYPES: Final = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 5: "string", 6: "bool", 7: "int16", 9: "int8", 10: "float64",
}
_PASSING: Final = frozenset({"TRANSPOSE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "CAST"})
_SIGNATURE: Final = "serving_default"


class TfliteSource:
    """`model.tflite`."""

    formats: Mapping[str, str] = {
        "tflite": "", "openvino": "", "onnx": "no maintained converter from TFLite to ONNX; import the model it was made from",
    }

    def claims(self, path: Path) -> bool:
        """See `Source.claims`."""
        return path.suffix.lower() in (".tflite", ".lite") and path.is_file()

    def beside(self, path: Path) -> tuple[Path, ...]:
        """See `Source.beside`."""
        return ()

    def open(self, path: Path) -> OpenedTflite:
        """See `Source.open`."""
        return open_content(path.read_bytes(), str(path))


def open_content(content: bytes, name: str) -> OpenedTflite:
    """Read the bytes of a TFLite file; `name` is for messages.

    Raises:
        InputMissingError: cut short, or not TFLite.
        ConfigError: it holds operators that plain LiteRT does not have.
    """
    schema = require("ai_edge_litert.schema_py_generated", extra="export")
    sdk = require("ai_edge_litert.interpreter", extra="export")
    try:
        if content[4:8] != b"TFL3":
            raise ValueError("it does not begin as a TFLite file does")
        model = schema.ModelT.InitFromPackedBuf(content)
        with quiet():
            sdk.Interpreter(model_content=content)  # checks the whole buffer, which parsing does not
    except Exception as error:  # struct.error, ValueError, RuntimeError, by where the file is broken
        if "custom op" in str(error) or "Select TensorFlow op" in str(error):
            raise ConfigError(
                f"{name} holds operators that LiteRT lacks ({telling_line(error)}); convert it with built-in operators alone"
            ) from error
        raise InputMissingError(f"{name} is not a whole TFLite model ({telling_line(error)}); copy or export it again") from error
    return OpenedTflite(content, model)


class OpenedTflite:
    """A file that was read."""

    def __init__(self, content: bytes, model: Any) -> None:  # noqa: ANN401
        self._content = content
        graph = model.subgraphs[0]
        signature = next((s for s in model.signatureDefs or [] if s.subgraphIndex == 0), None)
        self.inputs = tuple(_port(graph, i, signature.inputs if signature else []) for i in graph.inputs)
        self.outputs = tuple(_port(graph, i, signature.outputs if signature else []) for i in graph.outputs)

    def settle(self, input: Port, output: Port, shape: tuple[int, ...]) -> SettledTflite:
        """See `Opened.settle`."""
        schema = require("ai_edge_litert.schema_py_generated", extra="export")
        sdk = require("ai_edge_litert.interpreter", extra="export")
        with vendor_errors("litert"), quiet():
            model = schema.ModelT.InitFromPackedBuf(self._content)
            graph = model.subgraphs[0]
            graph.outputs = [graph.outputs[self.outputs.index(output)]]
            graph.operators = _needed(graph.operators, int(graph.outputs[0]))
            model.signatureDefs = None
            plain = sdk.Interpreter(
                model_content=pack(model), experimental_op_resolver_type=sdk.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            plain.resize_tensor_input(int(graph.inputs[0]), list(shape))
            plain.allocate_tensors()
            known = {details["index"]: details["shape"] for details in plain.get_tensor_details()}
            for index, tensor in enumerate(graph.tensors):
                if index in known and tensor.type != schema.TensorType.STRING:
                    tensor.shape, tensor.shapeSignature = [int(axis) for axis in known[index]], None
            interpreter = sdk.Interpreter(model_content=pack(model), num_threads=1)
            interpreter.allocate_tensors()
        return SettledTflite(model, interpreter, output)


class SettledTflite:
    """One input, one output, static; runs in LiteRT."""

    def __init__(self, model: Any, interpreter: Any, output: Port) -> None:  # noqa: ANN401
        self._model, self._interpreter = model, interpreter
        graph = model.subgraphs[0]
        self._ports = int(graph.inputs[0]), int(graph.outputs[0])
        details = interpreter.get_output_details()[0]
        axes = tuple(int(axis) for axis in details["shape"])
        halves = any(_TYPES.get(tensor.type) == "float16" for tensor in graph.tensors)
        self.facts = Facts(
            output=Port(name=output.name, dtype=np.dtype(details["dtype"]).name, shape=axes, aliases=output.aliases),
            last_op=_last_op(model), runtime=" ".join(("litert", *versions("ai-edge-litert").values())),
            quantized=any(_TYPES.get(t.type) == "int8" and t.quantization is not None and t.quantization.scale is not None
                          for t in graph.tensors),
            remarks=("note: its weights are stored in float16 and computed with in float32",) if halves else (),
        )

    def run(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        """See `Settled.run`."""
        with vendor_errors("litert"):
            self._interpreter.set_tensor(self._ports[0], x)
            self._interpreter.invoke()
            answer: NDArray[np.generic] = self._interpreter.get_tensor(self._ports[1])
        return answer

    def write(self, format: str, reading: Reading, workdir: Path) -> ModelFiles:
        """See `Settled.write`."""
        if format == "openvino":
            return self._write_openvino(reading, workdir)
        schema = require("ai_edge_litert.schema_py_generated", extra="export")
        path, scratch = workdir / "model.tflite", workdir / "end.tflite"
        with vendor_errors("litert_torch"), quiet():
            ends = [
                schema.ModelT.InitFromPackedBuf(to_tflite(module, example, scratch))
                for module, example in ((FrameEnd(reading), frame_example(reading)), (AnswerEnd(reading, format), answer_example(reading)))
            ]
            body = schema.ModelT.InitFromPackedBuf(pack(self._model))
            path.write_bytes(pack(join(schema, ends[0], body, ends[1])))
        return ModelFiles(
            folder=workdir, files=(path.name,), entry=path.name, format=format, precision="int8" if self.facts.quantized else "fp32",
            scheme={}, tools=versions("torch", "litert-torch", "ai-edge-litert"),
        )

    def _write_openvino(self, reading: Reading, workdir: Path) -> ModelFiles:
        ov = require("openvino", extra="export")
        settled = workdir / "imported.tflite"
        with vendor_errors("openvino"), quiet():
            settled.write_bytes(pack(self._model))
            made = as_openvino.write(ov.Core().read_model(str(settled)), reading, workdir, quantized=self.facts.quantized)
            settled.unlink()
        return made


def pack(model: Any) -> bytes:  # noqa: ANN401
    """Give the bytes of a TFLite file."""
    flatbuffers = require("flatbuffers", extra="export")

    class Aligned(flatbuffers.Builder):  # type: ignore[misc, name-defined]
        """The schema wants constants at multiples of 16 bytes, which the generated code forgets."""

        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: ANN401
            return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)

    builder = Aligned(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def join(schema: Any, frame_end: Any, body: Any, answer_end: Any) -> Any:  # noqa: ANN401
    """Give `body` with the two ends' only graphs before and behind its first graph; all three are used up."""
    graph = body.subgraphs[0]
    imported = list(graph.operators)
    for tensor in frame_end.subgraphs[0].tensors:
        tensor.name = f"{FRAME_END}{_text(tensor.name)}"
    first, frame, x = _append(body, frame_end)
    last, answer, class_map = _append(body, answer_end)
    _name_tensors(graph.tensors)
    _feed(imported, int(graph.inputs[0]), x)
    _feed(last, answer, int(graph.outputs[0]))
    class_map = int(graph.outputs[0]) if class_map == answer else class_map  # the model answers a class map: nothing is left to do
    graph.operators = [*first, *imported, *last]
    frame, class_map = _drop_unused(graph, (frame, class_map))
    graph.inputs, graph.outputs = [frame], [class_map]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = _SIGNATURE, 0
    signature.inputs, signature.outputs = [_named(schema, INPUT_NAME, frame)], [_named(schema, OUTPUT_NAME, class_map)]
    body.signatureDefs = [signature]
    return body


def _append(body: Any, end: Any) -> tuple[list[Any], int, int]:  # noqa: ANN401
    """Append an end's tensors, buffers and operator codes to `body`; give its operators, its input and its output, re-numbered."""
    assert len(end.subgraphs) == 1, "the ends hold no control flow"
    graph, added = body.subgraphs[0], end.subgraphs[0]
    buffers, codes, tensors = len(body.buffers), len(body.operatorCodes), len(graph.tensors)
    body.buffers.extend(end.buffers)
    body.operatorCodes.extend(end.operatorCodes)
    for tensor in added.tensors:
        tensor.buffer = tensor.buffer + buffers if tensor.buffer else 0
    graph.tensors.extend(added.tensors)
    for operator in added.operators:
        operator.opcodeIndex += codes
        operator.inputs = [int(i) + tensors if i >= 0 else -1 for i in operator.inputs]
        operator.outputs = [int(i) + tensors for i in operator.outputs]
    return list(added.operators), int(added.inputs[0]) + tensors, int(added.outputs[0]) + tensors


def _name_tensors(tensors: Sequence[Any]) -> None:
    """Give every tensor a name of its own (the quantizer tells them apart by it); later ones, the ends', keep theirs."""
    taken: set[str] = set()
    for index, tensor in reversed(list(enumerate(tensors))):
        name = _text(tensor.name)
        tensor.name = name if name and name not in taken else f"imported/{name}_{index}"
        taken.add(tensor.name)


def _drop_unused(graph: Any, kept: tuple[int, int]) -> tuple[int, int]:  # noqa: ANN401
    """Remove tensors that no operator touches (calibration reads them all, and those never hold data); give `kept`, re-numbered."""
    touched = set(kept)
    for operator in graph.operators:
        for indices in (operator.inputs, operator.outputs, operator.intermediates):
            touched |= {int(i) for i in (() if indices is None else indices) if i >= 0}
    order = sorted(touched)
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    graph.tensors = [graph.tensors[old] for old in order]
    for operator in graph.operators:
        for name in ("inputs", "outputs", "intermediates"):
            indices = getattr(operator, name)
            if indices is not None:
                setattr(operator, name, [place[int(i)] for i in indices])
    return place[kept[0]], place[kept[1]]


def _feed(operators: Sequence[Any], old: int, new: int) -> None:
    for operator in operators:
        operator.inputs = [new if int(i) == old else int(i) for i in operator.inputs]


def _needed(operators: Sequence[Any], output: int) -> list[Any]:
    needed, kept = {output}, []
    for operator in reversed(operators):
        if needed & {int(i) for i in operator.outputs}:
            kept.append(operator)
            needed |= {int(i) for i in operator.inputs if i >= 0}
    return kept[::-1]


def _named(schema: Any, name: str, index: int) -> Any:  # noqa: ANN401
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def _last_op(model: Any) -> str:  # noqa: ANN401
    schema = require("ai_edge_litert.schema_py_generated", extra="export")
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    graph = model.subgraphs[0]
    producer = {int(output): operator for operator in graph.operators for output in operator.outputs}
    tensor = int(graph.outputs[0])
    while tensor in producer:
        code = model.operatorCodes[producer[tensor].opcodeIndex]
        name = names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "")
        if name not in _PASSING:
            return str(name).lower()
        tensor = int(producer[tensor].inputs[0])
    return ""


def _port(graph: Any, index: int, named: Sequence[Any]) -> Port:  # noqa: ANN401
    tensor = graph.tensors[index]
    own = _text(tensor.name)
    given = next((_text(entry.name) for entry in named if entry.tensorIndex == index), own)
    axes = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    shape = tuple(int(axis) if axis >= 0 else None for axis in axes) if axes is not None else None
    return Port(name=given, dtype=_TYPES.get(tensor.type, "unknown"), shape=shape, aliases=(own,))


def _text(name: bytes | str | None) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name or ""
