"""Activations and layers of a TFLite graph: the interpreter keeps every tensor, the flatbuffer says what is computed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from edgeseg.core.bundle import Bundle
from edgeseg.core.errors import vendor_errors
from edgeseg.core.images import Frame
from edgeseg.core.lazy import require
from edgeseg.core.vendors import quiet
from quantization.tensors.base import Activations, LayerFacts, as_float32, check_format, choose_names, convolution_macs

KINDS: Final = {
    "CONV_2D": "convolution", "DEPTHWISE_CONV_2D": "depthwise", "TRANSPOSE_CONV": "transposed", "FULLY_CONNECTED": "linear",
}


@dataclass(frozen=True)
class TfliteGraph:
    """The one subgraph of a model, read from its flatbuffer."""

    graph: Any
    kinds: tuple[str, ...]
    """Name of each operator's kind, in the order of `graph.operators`."""
    constant: frozenset[int]
    """Tensors that have values in the file."""

    def name(self, tensor: int) -> str:
        """Name of a tensor."""
        found: str = self.graph.tensors[int(tensor)].name.decode()
        return found

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor; () for a scalar."""
        shape = self.graph.tensors[int(tensor)].shape
        return () if shape is None else tuple(int(size) for size in shape)

    def scope(self, operator: Any) -> str:  # noqa: ANN401 - an SDK object
        """What ai-edge-quantizer matches regular expressions with: the names of an operator's outputs, without the last ";"."""
        return ";".join(self.name(output) for output in operator.outputs)


def read_graph(path: Path) -> TfliteGraph:
    """Read a .tflite file."""
    schema = require("ai_edge_litert.schema_py_generated", extra="export")
    codes = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    graph = model.subgraphs[0]
    names = [codes[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    stored = frozenset(
        index for index, tensor in enumerate(graph.tensors)
        if model.buffers[tensor.buffer].data is not None and len(model.buffers[tensor.buffer].data)
    )
    return TfliteGraph(graph, tuple(names[operator.opcodeIndex] for operator in graph.operators), stored)


class TfliteTensors:
    """See `quantization.tensors.base.Tensors`. A layer is named after its outputs, activation included where the converter fused it."""

    format = "tflite"
    channels_first = False

    def observe(self, bundle: Bundle, frames: Sequence[Frame], names: Collection[str] | None = None) -> Iterator[Activations]:
        """See `quantization.tensors.base.Tensors`."""
        check_format(bundle, self.format)
        litert = require("ai_edge_litert.interpreter", extra="export")
        floats = float_activations(read_graph(bundle.model_path))
        chosen = choose_names(list(floats), names)
        with vendor_errors("ai_edge_litert"):
            with quiet():  # it warns that keeping all tensors takes memory
                interpreter = litert.Interpreter(str(bundle.model_path), experimental_preserve_all_tensors=True, num_threads=1)
                interpreter.allocate_tensors()
            entry = interpreter.get_input_details()[0]["index"]
            for frame in frames:
                interpreter.set_tensor(entry, frame[None])
                interpreter.invoke()
                yield {name: as_float32(interpreter.get_tensor(floats[name])) for name in chosen}

    def layers(self, bundle: Bundle) -> tuple[LayerFacts, ...]:
        """See `quantization.tensors.base.Tensors`."""
        check_format(bundle, self.format)
        graph = read_graph(bundle.model_path)
        pairs = zip(graph.graph.operators, graph.kinds, strict=True)
        found = (_facts(graph, operator, kind) for operator, kind in pairs if kind in KINDS and int(operator.inputs[1]) in graph.constant)
        return tuple(found)


def float_activations(graph: TfliteGraph) -> dict[str, int]:
    """Name -> index of the float tensors that operators compute from the frame, in the order of the graph."""
    schema = require("ai_edge_litert.schema_py_generated", extra="export")
    return {
        graph.name(output): int(output) for operator in graph.graph.operators for output in operator.outputs
        if graph.graph.tensors[int(output)].type == schema.TensorType.FLOAT32 and _moves(graph, operator)
    }


def _moves(graph: TfliteGraph, operator: Any) -> bool:  # noqa: ANN401
    return any(int(source) >= 0 and int(source) not in graph.constant for source in operator.inputs)


def _facts(graph: TfliteGraph, operator: Any, kind: str) -> LayerFacts:  # noqa: ANN401
    weight, output = graph.shape(operator.inputs[1]), graph.shape(operator.outputs[0])
    source = operator.inputs[2 if kind == "TRANSPOSE_CONV" else 0]
    if kind == "TRANSPOSE_CONV":  # [outputs, h, w, inputs]
        macs = prod(graph.shape(source)) * prod(weight[:3])
    else:  # [outputs, ..., inputs], depthwise [1, h, w, outputs]
        macs = convolution_macs(output, weight, outputs=weight[3 if kind == "DEPTHWISE_CONV_2D" else 0])
    return LayerFacts(
        name=graph.scope(operator), kind=KINDS[kind], inputs=(graph.name(source),),
        outputs=tuple(graph.name(index) for index in operator.outputs), macs=macs, weight_shape=weight,
    )
